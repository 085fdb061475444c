"""`s3runner run` against real stores: a job with nothing shared but a bucket."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access

GREET = {
    "name": "greet",
    "command": "cat in.txt other/b > out.txt; echo said; echo complained >&2",
    "outputs": ["out.txt"],
}


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    return Desk(tmp_path, moto_access)


@pytest.fixture
def any_desk(tmp_path: Path, s3_access: S3Access) -> Desk:
    return Desk(tmp_path, s3_access)


def greet_inputs(desk: Desk) -> dict[str, str]:
    (desk.directory / "data").mkdir(exist_ok=True)
    (desk.directory / "data" / "in.txt").write_text("hello ")
    (desk.directory / "data" / "b").write_text("world\n")
    return {"in.txt": "./data/in.txt", "other": "./data"}


def test_a_job_runs_and_its_results_come_back(any_desk: Desk) -> None:
    ran = any_desk.run_job(**GREET, inputs=greet_inputs(any_desk))

    assert ran.code == 0, ran.stderr
    assert (any_desk.directory / "greet" / "out.txt").read_text() == "hello world\n"
    assert (any_desk.directory / "greet" / ".s3runner" / "stdout").read_text() == "said\n"
    assert (any_desk.directory / "greet" / ".s3runner" / "stderr").read_text() == "complained\n"
    report = ran.json
    assert report["outcome"] == "succeeded"
    assert report["code"] == 0
    assert report["tool_exit_code"] == 0
    assert report["error"] is None
    (output,) = report["outputs"]
    assert output["path"] == "out.txt"
    assert output["size"] == 12
    assert output["uri"].startswith(f"s3://{any_desk.access.config.bucket}/")
    for hop in ("stage_in", "fetch", "stage_out", "sync"):
        assert report["phases"][hop]["requests"] > 0, hop
    assert f"job {report['job_id']}\n" in ran.stderr


def test_what_lies_in_the_store_is_what_the_protocol_says(desk: Desk) -> None:
    report = desk.run_job(**GREET, inputs=greet_inputs(desk)).json

    job = f"runs/jobs/{report['job_id']}/"
    names = [key.removeprefix(job) for key in desk.keys(job)]
    attempt = next(name.split("/")[1] for name in names if name.startswith("attempts/"))
    assert names == [
        f"attempts/{attempt}/manifest.json",
        f"attempts/{attempt}/out/out.txt",
        f"attempts/{attempt}/rest.tar",
        f"attempts/{attempt}/result.json",
        "commit.json",
        "generations/1.created.json",
        "generations/1.json",
        "spec.json",
    ]
    assert desk.keys("probes/") == []


def test_the_second_run_uploads_no_byte(desk: Desk) -> None:
    inputs = greet_inputs(desk)
    first = desk.run_job(**GREET, inputs=inputs).json
    blobs = desk.keys("blobs/")

    second = desk.run_job(**GREET, inputs=inputs).json

    assert first["phases"]["stage_in"]["bytes"] > 0
    assert second["phases"]["stage_in"]["bytes"] == 0
    assert second["outcome"] == "succeeded"
    assert desk.keys("blobs/") == blobs


def test_three_hundred_small_files_go_up_as_one_object(desk: Desk) -> None:
    (desk.directory / "many").mkdir()
    for number in range(300):
        (desk.directory / "many" / f"f{number}").write_text(f"{number}\n" * 10)

    ran = desk.run_job(
        name="copies",
        command="cat many/* | wc -l > n; mkdir copy; cp many/* copy",
        inputs={"many": "./many"},
        outputs=["n", "copy"],
    )

    assert ran.code == 0, ran.stderr
    assert (desk.directory / "copies" / "n").read_text().strip() == "3000"
    assert len(desk.keys("blobs/")) == 1
    assert len(desk.keys("/packs/")) == 1
    assert len(list((desk.directory / "copies" / "copy").iterdir())) == 300
    member = next(o for o in ran.json["outputs"] if o["path"] == "copy/f7")
    assert member["uri"].endswith(".tar#copy/f7")


def test_staging_leaves_the_inputs_as_they_were(desk: Desk) -> None:
    inputs = greet_inputs(desk)
    source = desk.directory / "data" / "in.txt"
    source.chmod(0o400)
    before = source.stat()

    ran = desk.run_job(
        **{**GREET, "command": "chmod u+w in.txt; echo x > in.txt; cat in.txt > out.txt"},
        inputs=inputs,
    )

    after = source.stat()
    assert ran.code == 0, ran.stderr
    assert source.read_text() == "hello "
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


def test_a_failing_tool_is_reported_with_its_code_and_all_it_left(desk: Desk) -> None:
    ran = desk.run_job(
        name="fails",
        command="echo half > half.txt; echo so sorry >&2; exit 3",
        outputs=["half.txt", "never.txt"],
    )

    assert ran.code == 1
    assert ran.json["outcome"] == "tool_failed"
    assert ran.json["code"] == 10
    assert ran.json["tool_exit_code"] == 3
    assert (desk.directory / "fails" / "half.txt").read_text() == "half\n"
    assert (desk.directory / "fails" / ".s3runner" / "stderr").read_text() == "so sorry\n"
    assert "[E10]" in ran.stderr
    assert "so sorry" in ran.stderr


def test_a_missing_output_is_named_and_the_logs_come_back(desk: Desk) -> None:
    ran = desk.run_job(
        name="forgets",
        command="echo did something; touch here.txt",
        outputs=["here.txt", "gone.txt", "*.vcf", {"path": "extra", "optional": True}],
    )

    assert ran.code == 1
    assert ran.json["outcome"] == "output_missing"
    assert ran.json["code"] == 26
    assert "*.vcf, gone.txt" in ran.json["error"]["reason"]
    assert (desk.directory / "forgets" / ".s3runner" / "stdout").read_text() == "did something\n"


def test_a_tool_killed_by_a_signal_has_its_number(desk: Desk) -> None:
    ran = desk.run_job(name="dies", command="sh -c 'kill -SEGV $$'")

    assert ran.json["outcome"] == "tool_failed"
    assert ran.json["tool_exit_code"] == 128 + 11


def test_a_tool_that_is_not_there_is_127(desk: Desk) -> None:
    ran = desk.run_job(name="absent", command=["no-such-tool", "--version"])

    assert ran.json["outcome"] == "tool_failed"
    assert ran.json["tool_exit_code"] == 127
    assert "no-such-tool" in ran.stderr


def test_an_argument_list_reaches_the_tool_word_for_word(desk: Desk) -> None:
    words = ["a b", "$(touch pwned)", "it's", 'say "x"', "*", "", "new\nline", "-n"]
    ran = desk.run_job(
        name="words",
        command=["sh", "-c", 'for w in "$@"; do printf "%s\\0" "$w"; done > out', "tool", *words],
        outputs=["out"],
    )

    assert ran.code == 0, ran.stderr
    assert (desk.directory / "words" / "out").read_text().split("\0")[:-1] == words


def test_the_tool_sees_its_environment(desk: Desk) -> None:
    ran = desk.run_job(
        name="env",
        command="env > out; pwd >> out; echo tmp > $TMPDIR/x",
        env={"PLAIN": "a b", "DOLLAR": "$HOME $(x) $$"},
        resources={"cpu": 2, "memory": "1Gi"},
        outputs=["out"],
    )

    lines = (desk.directory / "env" / "out").read_text().splitlines()
    assert "PLAIN=a b" in lines
    assert "DOLLAR=$HOME $(x) $$" in lines
    assert "CPUS=2" in lines
    assert "MEMORY_MB=1024" in lines
    assert f"S3RUNNER_JOB_ID={ran.json['job_id']}" in lines
    assert not [line for line in lines if line.startswith(("AWS_", "S3RUNNER_STORE"))]


def test_walltime_ends_the_tool_and_brings_what_there_is(desk: Desk) -> None:
    ran = desk.run_job(
        name="slow", command="echo begun; echo x > out; sleep 600", outputs=["out"], walltime="1s"
    )

    assert ran.code == 1
    assert ran.json["outcome"] == "walltime"
    assert ran.json["code"] == 12
    assert (desk.directory / "slow" / ".s3runner" / "stdout").read_text() == "begun\n"
    assert (desk.directory / "slow" / "out").read_text() == "x\n"


def test_an_output_of_one_job_is_an_input_of_the_next_by_its_uri(desk: Desk) -> None:
    first = desk.run_job(
        name="one",
        command="echo alpha > a.txt; mkdir -p d/e; echo small > d/e/s; ln -s e/s d/link",
        outputs=["a.txt", "d"],
    ).json
    uris = {output["path"]: output["uri"] for output in first["outputs"]}

    ran = desk.run_job(
        name="two",
        command="cat a s d/link > out",
        inputs={"a": uris["a.txt"], "s": uris["d/e/s"], "d": uris["d"]},
        outputs=["out"],
    )

    assert ran.code == 0, ran.stderr
    assert (desk.directory / "two" / "out").read_text() == "alpha\nsmall\nsmall\n"
    assert ran.json["phases"]["stage_in"]["bytes"] == 0


def test_references_are_staged_by_name(desk: Desk) -> None:
    bucket = desk.access.config.bucket
    for key in ("refs/hg/genome.fa", "refs/hg/index/x.bwt"):
        body = key.encode()
        desk.store.put(key, partial(iter, (body,)), size=len(body), part_size=99)
    references = {"hg": f"s3://{bucket}/refs/hg/", "one": f"s3://{bucket}/refs/hg/genome.fa"}
    again = Desk(desk.directory, desk.access, references=references)

    ran = again.run_job(
        name="refs",
        command='cat "$S3RUNNER_REF_HG/index/x.bwt" "$S3RUNNER_REF_ONE" here/genome.fa > out',
        references=["hg", "one", {"hg": "here"}][:2],
        inputs={"here": f"s3://{bucket}/refs/hg/"},
        outputs=["out"],
    )

    assert ran.code == 0, ran.stderr
    assert (desk.directory / "refs" / "out").read_text() == (
        "refs/hg/index/x.bwt" + "refs/hg/genome.fa" * 2
    )


def test_an_existing_directory_is_not_replaced_unasked(desk: Desk) -> None:
    job = {"name": "tree", "command": "mkdir d; echo new > d/f; date +%s%N > d/t", "outputs": ["d"]}
    place = desk.directory / "tree" / "d"
    place.mkdir(parents=True)
    (place / "mine").write_text("precious")

    refused = desk.run_job(**job)
    assert refused.code == 3
    assert refused.json["code"] == 28
    assert "--overwrite" in refused.stderr
    assert (place / "mine").read_text() == "precious"
    assert desk.keys() == []

    replaced = desk.run_job("--overwrite", **job)
    assert replaced.code == 0, replaced.stderr
    assert sorted(item.name for item in place.iterdir()) == ["f", "t"]
    assert [
        item.name for item in place.parent.iterdir() if item.name.startswith(".s3runner-")
    ] == []


def test_into_chooses_the_place(desk: Desk) -> None:
    ran = desk.run_job("--into", "elsewhere", name="x", command="echo 1 > o", outputs=["o"])

    assert ran.code == 0, ran.stderr
    assert (desk.directory / "elsewhere" / "o").read_text() == "1\n"
    assert not (desk.directory / "x").exists()


def test_plan_writes_nothing_and_shows_the_job(desk: Desk) -> None:
    inputs = greet_inputs(desk)
    job = desk.write_job(**GREET, inputs=inputs)

    planned = desk.run("plan", job)

    assert planned.code == 0, planned.stderr
    assert "kind: Job" in planned.stdout
    assert desk.access.credentials.secret_key not in planned.stdout
    assert desk.keys() == []
    assert desk.run("plan", job, "--json").json["bytes"] > 0
    desk.run("run", job)
    assert desk.run("plan", job, "--json").json["bytes"] == 0


def test_the_mode_of_a_result_does_not_depend_on_the_umask(desk: Desk) -> None:
    old = os.umask(0o077)
    try:
        ran = desk.run_job(
            name="modes", command="echo x > o; chmod 755 o; touch -d @1000000000 o", outputs=["o"]
        )
    finally:
        os.umask(old)

    assert ran.code == 0, ran.stderr
    found = (desk.directory / "modes" / "o").stat()
    assert stat.S_IMODE(found.st_mode) == 0o755
    assert found.st_mtime == 1_000_000_000

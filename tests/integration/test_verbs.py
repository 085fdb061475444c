"""`submit`, `status` and `list` on jobs that other commands submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Desk, Ran
from conftest import S3Access
from waiting import wait_until

from s3runner.runner.report import JobReport

UNKNOWN = "0199e2a4-0000-7000-8000-000000000009"
REPORT = set(JobReport().to_json())


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    return Desk(tmp_path, moto_access)


def write_batch(desk: Desk, *jobs: dict[str, Any]) -> Path:
    """Write a file of several jobs."""
    path = desk.directory / "batch.yml"
    path.write_text(yaml.safe_dump_all(jobs))
    return path


def submit(desk: Desk, *flags: str, **job: Any) -> str:
    ran = desk.run("submit", desk.write_job(**job), *flags)
    assert ran.code == 0, ran.stderr
    return ran.stdout.strip()


def status(desk: Desk, job_id: str) -> dict[str, Any]:
    ran = desk.run("status", job_id, "--json")
    assert ran.code == 0, ran.stderr
    return ran.json


def names(ran: Ran) -> list[str]:
    assert ran.code == 0, ran.stderr
    return [job["name"] for job in ran.json["jobs"]]


def test_jobs_of_several_files_are_submitted_and_anybody_finishes_them(desk: Desk) -> None:
    (desk.directory / "in").write_text("1\n")
    one = desk.write_job(name="one", command="cat in > o", inputs={"in": "./in"}, outputs=["o"])
    two = {"name": "two", "command": "echo 2 > o", "outputs": ["o"]}
    three = {"name": "three", "command": "exit 3"}

    submitted = desk.run("submit", one, write_batch(desk, two, three))

    assert submitted.code == 0, submitted.stderr
    ids = submitted.stdout.splitlines()
    said = [line.split()[1] for line in submitted.stderr.splitlines() if line.startswith("job ")]
    assert len(ids) == 3
    assert ids == said
    assert [desk.run("sync", job_id).code for job_id in ids] == [0, 0, 1]
    assert (desk.directory / "one" / "o").read_text() == "1\n"
    assert (desk.directory / "two" / "o").read_text() == "2\n"


def test_ended_jobs_are_shown_with_their_outcomes(desk: Desk) -> None:
    good, bad = {"name": "two", "command": "true"}, {"name": "three", "command": "exit 3"}
    first, second = desk.run("submit", write_batch(desk, good, bad)).stdout.split()
    assert [desk.run("wait", job_id).code for job_id in (first, second)] == [0, 1]

    listed = desk.run("list", "--json")
    assert names(listed) == ["three", "two"]
    assert [job["outcome"] for job in listed.json["jobs"]] == ["tool_failed", "succeeded"]
    table = desk.run("list").stdout.splitlines()
    assert [line.split()[:4] for line in table] == [
        ["JOB", "NAME", "STATE", "OUTCOME"],
        [second, "three", "ended", "tool_failed"],
        [first, "two", "ended", "succeeded"],
    ]

    failed = status(desk, second)
    assert set(failed) > REPORT
    assert (failed["state"], failed["code"], failed["tool_exit_code"]) == ("ended", 10, 3)
    assert (failed["attempts"], failed["generation"]) == (1, 1)
    both = desk.run("status", first, second)
    assert (both.code, both.stderr) == (0, "")
    lines = both.stdout.splitlines()
    assert lines[0].startswith(f"{first}  two  ended: succeeded ")
    assert lines[1].startswith(f"{second}  three  ended: tool_failed [E10] ")
    together = desk.run("status", first, second, "--json")
    assert together.code == 0, together.stderr
    assert [job["job_id"] for job in together.json["jobs"]] == [first, second]


def test_submit_prints_one_object_of_all_jobs(desk: Desk) -> None:
    jobs = ({"name": name, "command": "true"} for name in "ab")
    ran = desk.run("submit", write_batch(desk, *jobs), "--json")
    assert ran.code == 0, ran.stderr
    first, second = ran.json["jobs"]
    assert set(first) == set(second) == REPORT
    assert desk.run("wait", second["job_id"]).code == 0
    assert second["phases"]["stage_in"] is not None


def test_a_submitter_that_is_killed_once_the_id_is_out_loses_nothing(desk: Desk) -> None:
    job = desk.write_job(name="k", command="echo 1 > o", outputs=["o"])
    with desk.start("submit", job) as process:
        assert process.stdout is not None
        job_id = process.stdout.readline().strip()
        process.kill()

    assert desk.run("sync", job_id).code == 0
    assert (desk.directory / "k" / "o").read_text() == "1\n"
    assert status(desk, job_id)["attempts"] == 1


def test_a_mistake_in_any_file_is_told_before_anything_is_uploaded(desk: Desk) -> None:
    good = desk.write_job(name="good", command="true")
    bad = write_batch(desk, {"name": "a", "command": "true"}, {"name": "b", "comand": "true"})

    ran = desk.run("submit", good, bad, desk.directory / "none.yml", "--json")

    assert ran.code == 2
    assert (ran.json["code"], ran.json["jobs"]) == (20, [])
    assert "batch.yml:4: document 2: comand: unknown key (did you mean 'command'?)" in ran.stderr
    assert "none.yml: No such file" in ran.stderr
    assert desk.keys() == []


def test_every_missing_input_is_told_before_anything_is_uploaded(desk: Desk) -> None:
    (desk.directory / "there").write_text("1")
    jobs = [
        {"name": "a", "command": "true", "inputs": {"i": "./there"}},
        {"name": "b", "command": "true", "inputs": {"i": "./missing-1"}},
        {"name": "c", "command": "true", "inputs": {"i": "./missing-2"}},
    ]
    ran = desk.run("submit", write_batch(desk, *jobs))
    assert (ran.code, ran.stdout) == (3, "")
    assert "missing-1" in ran.stderr
    assert "missing-2" in ran.stderr
    assert ran.stderr.count("[E21]") == 2
    assert desk.keys() == []


def test_a_running_job_is_seen_by_its_own_cluster_and_known_elsewhere(desk: Desk) -> None:
    job_id = submit(desk, name="long", command="echo > begun; while :; do sleep 0.1; done")
    wait_until(lambda: status(desk, job_id)["state"] == "running")

    assert status(desk, job_id)["since"] is not None
    assert names(desk.run("list", "--state", "running", "--json")) == ["long"]
    assert names(desk.run("list", "--state", "ended", "--json")) == []
    elsewhere = {"S3RUNNER_STATE_DIR": str(desk.directory / "other-state")}
    seen = desk.run("status", job_id, "--json", **elsewhere)
    assert (seen.code, seen.json["state"], seen.json["outcome"]) == (0, None, None)
    assert "unknown here" in desk.run("status", job_id, **elsewhere).stdout
    assert "elsewhere" in desk.run("list", **elsewhere).stdout

    assert desk.run("cancel", job_id).code == 0
    assert status(desk, job_id)["outcome"] == "cancelled"
    assert desk.run("status", job_id, "--json", **elsewhere).json["state"] == "ended"


def test_a_list_can_be_narrowed(desk: Desk) -> None:
    for name in ("sort-1", "sort-2", "align"):
        submit(desk, name=name, command="true")
    assert names(desk.run("list", "--name", "sort-*", "--json")) == ["sort-2", "sort-1"]
    assert names(desk.run("list", "--newer-than", "1h30m", "--json")) == [
        "align",
        "sort-2",
        "sort-1",
    ]
    assert names(desk.run("list", "--older-than", "2d", "--json")) == []
    assert desk.run("list", "--older-than", "2d").stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["list", "--newer-than", "soon"], "'soon' must be a time such as 90s"),
        (["list", "--state", "asleep"], "'asleep' is not one of 'staged'"),
        (["status"], "Missing argument"),
        (["submit"], "Missing argument"),
        (["status", UNKNOWN, "../x"], "'../x' is no job id"),
        (["status", UNKNOWN], f"there is no job {UNKNOWN}"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(desk: Desk, words: list[str], told: str) -> None:
    ran = desk.run(*words, "--json")
    assert ran.code == 2
    assert ran.json["code"] == 20
    assert told in ran.stderr

"""`ls` and `cat`: results are read where they lie, verified, by the URIs that the JSON gives."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from command import Desk, Ran
from conftest import S3Access


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    return Desk(tmp_path, moto_access)


@pytest.fixture
def ran(desk: Desk) -> Ran:
    done = desk.run_job(
        name="makes",
        command="mkdir -p d/e; echo small > d/e/s; ln -s e d/link; printf 'a\\nb' > o; echo said",
        outputs=["d", "o"],
    )
    assert done.code == 0, done.stderr
    return done


def test_ls_lists_a_jobs_outputs(desk: Desk, ran: Ran) -> None:
    listed = desk.run("ls", ran.json["job_id"], "--json")

    assert listed.code == 0, listed.stderr
    assert listed.json["outputs"] == ran.json["outputs"]
    plain = desk.run("ls", ran.json["job_id"]).stdout.splitlines()
    assert [line.split()[:2] for line in plain] == [
        ["dir", "d"],
        ["dir", "d/e"],
        ["6", "B"],
        ["symlink", "d/link"],
        ["3", "B"],
    ]


def test_ls_lists_what_is_below_a_uri(desk: Desk, ran: Ran) -> None:
    uris = {output["path"]: output["uri"] for output in ran.json["outputs"]}

    listed = desk.run("ls", uris["d"], "--json").json["outputs"]

    assert {item["path"]: item["uri"] for item in listed if item["kind"] == "file"} == {
        "d/e/s": uris["d/e/s"]
    }
    prefix = f"s3://{desk.access.config.bucket}/runs/jobs/{ran.json['job_id']}/generations/"
    names = [item["path"] for item in desk.run("ls", prefix, "--json").json["outputs"]]
    assert names == ["generations", "generations/1.created.json", "generations/1.json"]


def test_cat_writes_the_bytes(desk: Desk, ran: Ran) -> None:
    uris = {output["path"]: output["uri"] for output in ran.json["outputs"]}

    assert desk.run("cat", uris["o"]).stdout == "a\nb"
    assert desk.run("cat", uris["d/e/s"]).stdout == "small\n"
    spec = f"s3://{desk.access.config.bucket}/runs/jobs/{ran.json['job_id']}/spec.json"
    assert '"protocol":1' in desk.run("cat", spec).stdout


def test_cat_writes_no_damaged_byte(desk: Desk, ran: Ran) -> None:
    uri = next(output["uri"] for output in ran.json["outputs"] if output["path"] == "o")
    key = uri.removeprefix(f"s3://{desk.access.config.bucket}/")
    desk.store.put(key, partial(iter, (b"a\nc",)), size=3, part_size=3)

    damaged = desk.run("cat", uri)

    assert damaged.code == 3
    assert damaged.stdout == ""
    assert "[E22]" in damaged.stderr


@pytest.mark.parametrize("verb", ["ls", "cat"])
def test_what_is_not_there_is_named(desk: Desk, verb: str) -> None:
    uri = f"s3://{desk.access.config.bucket}/nowhere"

    missing = desk.run(verb, uri)

    assert missing.code == 3
    assert "nowhere" in missing.stderr
    assert "[E21]" in missing.stderr


def test_a_directory_cannot_be_written_out(desk: Desk, ran: Ran) -> None:
    uri = next(output["uri"] for output in ran.json["outputs"] if output["path"] == "d")

    refused = desk.run("cat", uri)

    assert refused.code == 3
    assert "no file but a dir" in refused.stderr


def test_a_synced_output_is_an_input_without_an_upload(desk: Desk) -> None:
    first = desk.run_job(
        name="first",
        command="head -c 3000000 /dev/zero | tr '\\0' x > large; echo small > s; mkdir d; cp s d/t",
        outputs=["large", "s", "d"],
    )
    assert first.code == 0, first.stderr
    inputs = {"large": "./first/large", "s": "./first/s"}
    blobs = desk.keys("blobs/")

    second = desk.run_job(
        name="second", command="cat large s | wc -c > n", inputs=inputs, outputs=["n"]
    )

    assert second.code == 0, second.stderr
    assert (desk.directory / "second" / "n").read_text().strip() == "3000006"
    assert second.json["phases"]["stage_in"]["bytes"] == 0
    assert desk.keys("blobs/") == blobs

    (desk.directory / "first" / "s").write_text("other")
    third = desk.run_job(name="third", command="cat s > o", inputs=inputs, outputs=["o"])
    assert third.code == 0, third.stderr
    assert (desk.directory / "third" / "o").read_text() == "other"
    assert third.json["phases"]["stage_in"]["bytes"] == 5


def test_a_synced_output_whose_object_is_gone_is_uploaded(desk: Desk) -> None:
    first = desk.run_job(name="first", command="echo kept > s", outputs=["s"])
    key = first.json["outputs"][0]["uri"].removeprefix(f"s3://{desk.access.config.bucket}/")
    desk.store.delete(key)

    second = desk.run_job(
        name="second", command="cat s > o", inputs={"s": "./first/s"}, outputs=["o"]
    )

    assert second.code == 0, second.stderr
    assert (desk.directory / "second" / "o").read_text() == "kept\n"
    assert second.json["phases"]["stage_in"]["bytes"] == 5

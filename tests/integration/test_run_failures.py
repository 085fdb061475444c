"""What goes wrong before, in and after the pod: the code, the message, and nothing lost."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
import threading
from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access

from s3runner.model import Credentials


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    return Desk(tmp_path, moto_access)


def test_every_missing_input_is_named_and_nothing_is_stored(desk: Desk) -> None:
    ran = desk.run_job(
        name="x",
        command="true",
        inputs={
            "a": "./absent-a",
            "b": "./absent-b",
            "c": f"s3://{desk.access.config.bucket}/absent-c",
        },
    )

    assert ran.code == 3
    assert ran.json["code"] == 21
    for name in ("absent-a", "absent-b", "absent-c"):
        assert name in ran.stderr
    assert desk.keys() == []


def test_a_fifo_among_the_inputs_is_refused_at_once(desk: Desk) -> None:
    (desk.directory / "d").mkdir()
    os.mkfifo(desk.directory / "d" / "pipe")
    (desk.directory / "d" / "file").write_text("x")

    ran = desk.run_job(name="x", command="true", inputs={"d": "./d"})

    assert ran.code == 3
    assert ran.json["code"] == 25
    assert "d/pipe" in ran.stderr
    assert desk.keys() == []


def test_an_input_that_changes_while_it_is_staged_is_named(desk: Desk) -> None:
    source = desk.directory / "growing.bin"
    source.write_bytes(bytes(24 * 1024 * 1024))
    stop = threading.Event()

    def grow() -> None:
        with source.open("ab") as file:
            while not stop.wait(0.002):
                file.write(b"x")
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        ran = desk.run_job(name="x", command="true", inputs={"g": str(source)})
    finally:
        stop.set()
        writer.join()

    assert ran.code == 3
    assert ran.json["code"] == 21
    assert "growing.bin" in ran.stderr
    assert "changed" in ran.stderr
    assert desk.keys("jobs/") == []


def test_a_malformed_job_file_is_told_by_line_and_key(desk: Desk) -> None:
    path = desk.directory / "job.yml"
    path.write_text("name: x\ncommand: true\nresources:\n  memroy: 8Gi\n")

    ran = desk.run("run", path, "--json")

    assert ran.code == 2
    assert ran.json["code"] == 20
    assert "job.yml:4" in ran.stderr
    assert "memroy" in ran.stderr
    assert "memory" in ran.stderr


def test_yaml_that_is_none_is_told_by_line(desk: Desk) -> None:
    path = desk.directory / "job.yml"
    path.write_text("name: x\ncommand: [a, b\n")

    ran = desk.run("run", path)

    assert ran.code == 2
    assert "job.yml:" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_bucket_that_is_not_there_is_access_denied(tmp_path: Path, s3_access: S3Access) -> None:
    config = dataclasses.replace(s3_access.config, bucket="no-such-bucket-here")
    desk = Desk(tmp_path, S3Access(config, s3_access.credentials))

    ran = desk.run_job(name="x", command="true")

    assert ran.code == 3
    assert ran.json["code"] == 23
    assert "no-such-bucket-here" in ran.stderr
    assert "bucket" in ran.json["error"]["reason"]


def test_wrong_keys_are_access_denied_without_a_retry(tmp_path: Path, rgw_access: S3Access) -> None:
    wrong = Credentials(rgw_access.credentials.access_key, "not-the-secret")
    desk = Desk(tmp_path, S3Access(rgw_access.config, wrong))

    ran = desk.run_job(name="x", command="true")

    assert ran.code == 3
    assert ran.json["code"] == 23
    assert ran.json["error"]["tries"] <= 1
    assert "not-the-secret" not in ran.stderr


def test_a_store_that_does_not_answer_is_named_with_key_and_tries(
    tmp_path: Path, moto_access: S3Access
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
        config = dataclasses.replace(moto_access.config, endpoint=dead)
        desk = Desk(
            tmp_path, S3Access(config, moto_access.credentials), store={"retry_budget_s": 2}
        )
        (tmp_path / "in").write_text("x")

        ran = desk.run_job(name="x", command="true", inputs={"in": "./in"})

    assert ran.code == 3
    assert ran.json["code"] == 30
    error = ran.json["error"]
    assert error["tries"] > 1
    assert "Put" in error["reason"] or "Head" in error["reason"]
    assert "s3://" in error["source"] + error["target"]


def test_bytes_that_are_not_the_inputs_never_reach_the_tool(
    tmp_path: Path, moto_access: S3Access
) -> None:
    desk = Desk(
        tmp_path,
        moto_access,
        destinations={"default": {"cluster": "local", "spot": {"max_evictions": 0}}},
    )
    (tmp_path / "in").write_bytes(b"right")
    name = hashlib.sha256(b"right").hexdigest()
    desk.store.put(f"runs/blobs/{name[:2]}/{name}", lambda: iter((b"wrong",)), size=5, part_size=5)

    ran = desk.run_job(name="x", command="cat in > out", inputs={"in": "./in"}, outputs=["out"])

    assert ran.code == 1
    assert ran.json["outcome"] == "integrity_failed"
    assert ran.json["code"] == 22
    assert name in ran.stderr
    assert not (tmp_path / "x" / "out").exists()


@pytest.mark.parametrize(
    ("command", "named"),
    [
        pytest.param("mkdir d; ln -s /etc/passwd d/out", "d/out", id="absolute link"),
        pytest.param("mkdir d; ln -s ../../.. d/up", "d/up", id="climbing link"),
        pytest.param("mkdir d; mkfifo d/pipe", "d/pipe", id="fifo"),
    ],
)
def test_an_output_that_cannot_be_carried_is_refused_by_name(
    desk: Desk, command: str, named: str
) -> None:
    ran = desk.run_job(name="x", command=f"{command}; echo log", outputs=["d"])

    assert ran.code == 1
    assert ran.json["outcome"] == "unsupported"
    assert ran.json["code"] == 25
    assert named in ran.stderr
    assert (desk.directory / "x" / ".s3runner" / "stdout").read_text() == "log\n"


def test_an_output_that_links_to_a_secret_is_refused(desk: Desk) -> None:
    ran = desk.run_job(name="x", command="ln -s /s3runner/secrets/credentials out", outputs=["out"])

    assert ran.json["code"] == 25
    assert not (desk.directory / "x" / "out").exists()
    stored = desk.keys()
    assert stored
    for key in stored:
        assert desk.access.credentials.secret_key.encode() not in desk.store.get(key, b"".join)


def test_plain_http_must_be_asked_for(tmp_path: Path, moto_access: S3Access) -> None:
    desk = Desk(tmp_path, moto_access, store={"insecure_http": False})

    ran = desk.run_job(name="x", command="true")

    assert ran.code == 2
    assert "insecure_http" in ran.stderr

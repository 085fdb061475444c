"""Files that somebody still writes to: inputs while they are staged, outputs after the tool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access
from waiting import wait_until

from s3runner.staging.digest import PartHasher, combine, part_size

MIB = 1024**2

WRITER = """
import os, sys
with open(sys.argv[1], "r+b", buffering=0) as file:
    while True:
        file.seek(int.from_bytes(os.urandom(4), "big") % (24 * 1024 * 1024))
        file.write(os.urandom(16))
"""


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    return Desk(tmp_path, moto_access)


def digest_of(body: bytes) -> str:
    hasher = PartHasher(part_size(len(body)))
    hasher.update(body)
    return combine(hasher.finish())


def test_an_input_that_another_program_writes_to_is_never_stored_torn(desk: Desk) -> None:
    """Its size stays as it is; only its bytes tell. Another input of the job is whole."""
    source = desk.directory / "busy.bin"
    source.write_bytes(bytes(24 * MIB))
    (desk.directory / "calm.bin").write_bytes(b"calm" * MIB)
    inputs = {"busy": "./busy.bin", "calm": "./calm.bin"}

    with subprocess.Popen([sys.executable, "-c", WRITER, source]) as writer:
        wait_until(lambda: any(source.read_bytes()))
        ran = desk.run_job(name="x", command="true", inputs=inputs)
        writer.kill()

    assert (ran.code, ran.json["code"]) == (3, 21), ran.stderr
    error = ran.json["error"]
    assert (error["operation"], error["source"]) == ("stage-in", str(source))
    assert (error["reason"], error["tries"]) == ("changed while it was staged", 3)
    assert f"stage-in {source}: changed while it was staged (3 tries) [E21]" in ran.stderr
    assert "hint: wait until nothing writes to it any more" in ran.stderr
    assert desk.keys("jobs/") == []
    for key in desk.keys("blobs/"):
        body = desk.store.get(key, b"".join)
        assert digest_of(body) == f"sha256:{key.rsplit('/', 1)[1]}"


@pytest.mark.parametrize("how", ["setsid", "nohup", "setsid nohup"])
def test_a_writer_that_the_tool_left_behind_is_ended_before_its_output_goes_up(
    desk: Desk, how: str
) -> None:
    """What is stored is what the digest says, and nobody writes to it any more."""
    loop = "while :; do echo line; done >> o"
    command = f"{how} sh -c '{loop}' > /dev/null 2>&1 & while [ ! -s o ]; do sleep 0.01; done"

    ran = desk.run_job(name="x", command=command, outputs=["o"])

    assert ran.code == 0, ran.stderr
    (output,) = ran.json["outputs"]
    here = (desk.directory / "x" / "o").read_bytes()
    (key,) = desk.keys("/out/o")
    assert desk.store.get(key, b"".join) == here
    assert digest_of(here) == output["digest"]
    assert "changed" not in ran.stderr


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        pytest.param("mkfifo o", "a FIFO", id="FIFO"),
        pytest.param(
            "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('o')\"",
            "a socket",
            id="socket",
        ),
        # the one device that anybody may make
        pytest.param("mknod o c 0 0", "a character device", id="device"),
    ],
)
@pytest.mark.parametrize("inside", [False, True], ids=["declared", "in a directory"])
def test_an_output_that_is_no_file_is_refused_by_name_and_streams_come_back(
    desk: Desk, command: str, kind: str, *, inside: bool
) -> None:
    start, outputs, path = ("mkdir d; cd d; ", ["d"], "d/o") if inside else ("", ["o"], "o")

    ran = desk.run_job(name="x", command=f"{start}{command} && echo made", outputs=outputs)

    assert (ran.code, ran.json["outcome"], ran.json["code"]) == (1, "unsupported", 25), ran.stderr
    error = ran.json["error"]
    assert error["operation"] == "stage-out"
    assert error["source"].endswith(f"/{path}")
    assert error["reason"] == f"it is {kind}, not a file, directory or link"
    assert f"it is {kind}" in ran.stderr
    assert desk.keys("/out/") == []
    assert (desk.directory / "x" / ".s3runner" / "stdout").read_text() == "made\n"
    assert not (desk.directory / "x" / "o").exists()

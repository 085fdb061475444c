"""`s3runner logs` on a job that somebody else submitted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access
from waiting import found_below, wait_until


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    return Desk(tmp_path, moto_access)


def submit(desk: Desk, **job: object) -> str:
    """Start a job and leave it to itself; return its id."""
    with desk.start("run", desk.write_job(**job)) as run:
        assert run.stderr is not None
        job_id = next(line.split()[1] for line in run.stderr if line.startswith("job "))
        assert any(line.strip().endswith("running") for line in run.stderr)
        run.kill()
    return job_id


def logs(desk: Desk, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run `s3runner logs`; its streams are bytes."""
    return subprocess.run(
        [sys.executable, "-m", "s3runner", "logs", *words],
        cwd=desk.directory,
        env=desk.environment,
        capture_output=True,
        timeout=120,
        check=False,
    )


def test_following_shows_each_byte_once_while_the_tool_runs(desk: Desk) -> None:
    job_id = submit(
        desk,
        name="talks",
        command="printf 'one\\n\\377'; echo oops >&2; touch here; "
        "until [ -e go ]; do sleep 0.1; done; printf 'two\\n'",
    )
    with subprocess.Popen(
        [sys.executable, "-m", "s3runner", "logs", "-f", job_id],
        cwd=desk.directory,
        env=desk.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as following:
        try:
            assert following.stdout is not None
            live = os.read(following.stdout.fileno(), 100)
            assert live == b"one\n\xff"
            shown = logs(desk, job_id)
            assert (shown.returncode, shown.stdout) == (0, live)
            found_below(desk.directory / "home", "here")[0].with_name("go").touch()
            rest, stderr = following.communicate(timeout=60)
        finally:
            following.kill()

    assert following.returncode == 0, stderr
    assert (rest, stderr) == (b"two\n", b"oops\n")
    whole = logs(desk, job_id)
    assert (whole.stdout, whole.stderr) == (b"one\n\xfftwo\n", b"oops\n")


def test_a_cancelled_jobs_logs_are_kept(desk: Desk) -> None:
    job_id = submit(desk, name="endless", command="echo begun; while :; do sleep 0.1; done")
    wait_until(lambda: desk.keys("/logs/stdout/"))
    assert desk.run("cancel", job_id).code == 0

    synced = desk.run("sync", job_id)

    assert synced.code == 1, synced.stderr
    assert (desk.directory / "endless" / ".s3runner" / "stdout").read_text() == "begun\n"
    assert logs(desk, job_id).stdout == b"begun\n"


def test_an_unknown_job_is_a_usage_error(desk: Desk) -> None:
    ran = logs(desk, "0199e2a4-0000-7000-8000-000000000009")

    assert ran.returncode == 2
    assert b"there is no job" in ran.stderr


def test_logs_have_no_json(desk: Desk) -> None:
    assert desk.run("logs", "x", "--json").code == 2

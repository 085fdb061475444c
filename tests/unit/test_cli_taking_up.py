"""Verbs on a job that is stored: at whose place they look, and what they say when they fail."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from s3runner.cli.follow import Landing, take_up
from s3runner.cli.main import run_command_line
from s3runner.cli.rendering import PlainLines
from s3runner.cli.report import Invocation
from s3runner.errors import (
    OutputConflictError,
    S3RunnerError,
    SpecError,
    StoreAccessError,
    StoreUnavailableError,
)
from s3runner.model import Job, Outcome
from s3runner.runner.report import JobEnd, Listener, SyncResult

JOB_ID = "0198-id"


@dataclass
class Failing:
    """A runner with one step that fails."""

    step: str
    error: S3RunnerError

    def _reach(self, step: str) -> None:
        if step == self.step:
            raise self.error

    def submit(self, job: Job, listener: Listener) -> str:
        raise AssertionError(f"submitted {job} {listener}")

    def check_places(self, job: Job, into: Path | None, *, overwrite: bool) -> None:
        raise AssertionError(f"looked for the place of {job} {into} {overwrite}")

    def check_landing(self, job_id: str, into: Path | None) -> None:
        del job_id, into
        self._reach("check_landing")

    def wait(self, job_id: str, listener: Listener) -> JobEnd:
        del job_id, listener
        self._reach("wait")
        return JobEnd(Outcome.SUCCEEDED, 0)

    def sync(
        self, job_id: str, into: Path | None, listener: Listener, *, overwrite: bool
    ) -> SyncResult:
        del job_id, into, listener, overwrite
        raise self.error


def said(step: str, error: S3RunnerError) -> str:
    """Return what a sync says of how to go on when a step fails."""
    stream = io.StringIO()
    runner = Failing(step, error)
    with pytest.raises(type(error)):
        take_up(runner, JOB_ID, Invocation(), PlainLines(stream), Landing())
    return stream.getvalue()


def test_to_go_on_is_said_where_it_may_help() -> None:
    assert f"s3runner wait {JOB_ID}" in said("wait", StoreUnavailableError("no answer"))


@pytest.mark.parametrize(
    "error", [SpecError("protocol 2"), StoreAccessError("denied")], ids=["protocol", "denied"]
)
def test_to_go_on_is_not_said_where_it_cannot_help(error: S3RunnerError) -> None:
    assert said("wait", error) == ""


def test_a_place_that_is_taken_is_found_before_the_wait() -> None:
    assert said("check_landing", OutputConflictError("a file")) == ""


def test_a_sync_that_failed_can_be_said_again_whatever_the_reason() -> None:
    assert f"to sync again: s3runner sync {JOB_ID}" in said("sync", OutputConflictError("differs"))


@pytest.mark.parametrize("verb", ["run", "sync"])
def test_a_file_is_no_place_for_results(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    assert run_command_line([verb, "x", "--into", str(tmp_path / "file")]) == 2

    assert "file: not a directory [E20]" in capsys.readouterr().err


def test_commands_to_go_on_name_the_destination_that_was_named() -> None:
    invocation = Invocation(settings=Path("s.yml"), destination="big one")

    told = invocation.command_for("wait", JOB_ID)

    assert told == f"s3runner wait {JOB_ID} --settings s.yml --destination 'big one'"

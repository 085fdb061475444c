"""The verbs on many jobs: what they print, and what is said when one of several cannot be had."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from s3runner.cli.list import table
from s3runner.cli.rendering import show_age
from s3runner.cli.report import InterruptedByUserError, Invocation
from s3runner.cli.status import status_line
from s3runner.cli.submit import submit_all
from s3runner.errors import ClusterUnavailableError, InputError, S3RunnerError, SpecError
from s3runner.model import Job, Outcome, code_of
from s3runner.runner.job_status import JobRow, JobStatus
from s3runner.runner.report import JobEnd, JobReport, Listener, SyncResult
from s3runner.runner.turns import Room

JOBS = [Job(name=name, command="true") for name in "abc"]
NOW = datetime(2026, 5, 1, tzinfo=timezone.utc)
FULL, FREE = Room("x", ("a", "b"), 2), Room("x", ("a",), 2)


@dataclass
class Submitter:
    """A runner that only submits; a job named in `before` or `after` fails around its storing."""

    before: dict[str, BaseException] = field(default_factory=dict)
    after: dict[str, BaseException] = field(default_factory=dict)

    def submit(self, job: Job, listener: Listener) -> str:
        if job.name in self.before:
            raise self.before[job.name]
        listener.job_id(f"id-{job.name}")
        if job.name in self.after:
            raise self.after[job.name]
        return f"id-{job.name}"

    def wait(self, job_id: str, listener: Listener) -> JobEnd:
        raise AssertionError(f"waited for {job_id} with {listener}")

    def sync(
        self, job_id: str, into: Path | None, listener: Listener, *, overwrite: bool
    ) -> SyncResult:
        raise AssertionError(f"synced {job_id} {into} {listener} {overwrite}")

    def check_places(self, job: Job, into: Path | None, *, overwrite: bool) -> None:
        raise AssertionError(f"looked for the place of {job} {into} {overwrite}")

    def check_landing(self, job_id: str, into: Path | None) -> None:
        raise AssertionError(f"looked for the place of {job_id} {into}")


def submitted(
    runner: Submitter, *, wants_json: bool
) -> tuple[dict[str, Any], S3RunnerError | None]:
    """Submit JOBS; return the JSON object ({} for none) and the failure."""
    invocation, failure = Invocation(wants_json=wants_json), None
    try:
        submit_all(runner, JOBS, invocation)
    except S3RunnerError as error:
        invocation.fail(error)
        failure = error
    out = io.StringIO()
    invocation.write(out)
    return json.loads(out.getvalue() or "{}"), failure


def ids(document: dict[str, Any]) -> list[str]:
    return [job["job_id"] for job in document["jobs"]]


def test_ids_go_to_stdout_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    document, _ = submitted(Submitter(), wants_json=False)
    assert capsys.readouterr().out == "id-a\nid-b\nid-c\n"
    assert document == {}


def test_with_json_stdout_has_the_object_only(capsys: pytest.CaptureFixture[str]) -> None:
    document, _ = submitted(Submitter(), wants_json=True)
    assert capsys.readouterr().out == ""
    assert list(document) == ["jobs"]
    assert ids(document) == ["id-a", "id-b", "id-c"]


@pytest.mark.parametrize(
    ("runner", "stored", "failed"),
    [
        (Submitter(before={"b": InputError("gone")}), ["id-a"], None),
        (Submitter(after={"b": ClusterUnavailableError("down")}), ["id-a", "id-b"], "id-b"),
    ],
    ids=["before it was stored", "after it was stored"],
)
def test_a_failure_ends_it_and_tells_what_was_submitted(
    runner: Submitter, stored: list[str], failed: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    document, failure = submitted(runner, wants_json=True)

    assert failure is not None
    assert set(document) == {*JobReport().to_json(), "jobs"}
    assert (document["code"], document["job_id"]) == (failure.code, failed)
    assert ids(document) == stored
    assert [job["error"] is None for job in document["jobs"]] == [True, False][: len(stored)]
    assert "1 of 3 jobs had been submitted" in capsys.readouterr().err

    submitted(runner, wants_json=False)
    assert capsys.readouterr().out.split() == stored


def test_ctrl_c_tells_what_was_submitted(capsys: pytest.CaptureFixture[str]) -> None:
    document, failure = submitted(Submitter(before={"c": KeyboardInterrupt()}), wants_json=True)
    assert isinstance(failure, InterruptedByUserError)
    assert ids(document) == ["id-a", "id-b"]
    assert "2 of 3 jobs had been submitted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            JobStatus(JobRow("id", "n", "running"), NOW - timedelta(minutes=3), None, 1, 1),
            "running for 3 min (1 attempt; generation 1)",
        ),
        (
            JobStatus(JobRow("id", "n", "queued"), None, None, 2, 2, {"out_of_memory": 1}),
            "queued (2 attempts; generation 2; 1 x out_of_memory)",
        ),
        (
            JobStatus(JobRow("id", "n", "ended"), None, None, 1, 1),
            "ended, but not decided: s3runner wait id goes on with it (1 attempt; generation 1)",
        ),
        (
            JobStatus(JobRow("id", "n", "staged"), NOW - timedelta(minutes=3), room=FULL),
            f"staged for 3 min - waiting: {FULL} (0 attempts; generation 0)",
        ),
        (
            JobStatus(JobRow("id", "n", "staged"), room=FREE),
            f"staged - {FREE}: s3runner wait id starts it (0 attempts; generation 0)",
        ),
        (
            JobStatus(
                JobRow("id", "n", "pending"),
                NOW - timedelta(minutes=3),
                attempts=2,
                generation=1,
                spent={"evicted": 1},
                reason="0/3 nodes are available: 3 Insufficient cpu.\n",
            ),
            (
                "pending: 0/3 nodes are available: 3 Insufficient cpu.\\n - for 3 min "
                "(2 attempts; generation 1; 1 x evicted)"
            ),
        ),
        (
            JobStatus(JobRow("id", "n", "queued"), reason="the Job is suspended"),
            "queued: the Job is suspended (0 attempts; generation 0)",
        ),
        (
            JobStatus(JobRow("id", "n")),
            "unknown here: it runs on another cluster (0 attempts; generation 0)",
        ),
        (
            JobStatus(JobRow("id", "n", problem=ClusterUnavailableError("x")), generation=2),
            "unknown: its cluster did not answer (0 attempts; generation 2)",
        ),
    ],
    ids=[
        "running",
        "queued again",
        "not decided",
        "no room",
        "room",
        "held up",
        "suspended",
        "elsewhere",
        "no answer",
    ],
)
def test_a_status_is_one_line(status: JobStatus, expected: str) -> None:
    assert status_line(status, NOW) == f"id  n  {expected}"


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome.SUCCEEDED, "ended: succeeded 2 h ago"),
        (Outcome.TOOL_FAILED, "ended: tool_failed [E10] 2 h ago"),
        (Outcome.CANCELLED, "ended: cancelled 2 h ago"),
    ],
)
def test_an_ended_jobs_status_tells_its_outcome(outcome: Outcome, expected: str) -> None:
    end = JobEnd(outcome, code_of(outcome))
    status = JobStatus(JobRow("id", "n", "ended", outcome), NOW - timedelta(hours=2), end, 1, 1)
    assert status_line(status, NOW) == f"id  n  {expected} (1 attempt; generation 1)"


def test_a_table_has_columns_and_nothing_that_could_forge_a_line() -> None:
    rows = [
        JobRow("id-1", "sort", "ended", Outcome.SUCCEEDED, NOW - timedelta(days=2)),
        JobRow("id-2", "a\nb\x1b[31m", None, None, NOW),
        JobRow("id-3", problem=SpecError("damaged")),
        JobRow("id-4", problem=ClusterUnavailableError("no answer")),
    ]
    assert table(rows, NOW) == [
        "JOB   NAME          STATE       OUTCOME    AGE",
        "id-1  sort          ended       succeeded  2 d",
        "id-2  a\\nb\\x1b[31m  elsewhere   -          0 s",
        "id-3  -             unreadable  -          -",
        "id-4  -             unknown     -          -",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-3, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (86400, "1 d"), (9e6, "104 d")],
)
def test_an_age_is_shown_in_its_largest_unit(seconds: float, shown: str) -> None:
    assert show_age(seconds) == shown

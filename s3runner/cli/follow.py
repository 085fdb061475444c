"""A job from its submission to its results, as `run` shows it.

It stands apart from the verb because the verbs that take up a job later do the same from the
middle on, and because it knows the runner by its methods only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from s3runner.cli.rendering import PlainLines, end_lines
from s3runner.cli.report import InterruptedByUserError, Invocation
from s3runner.errors import S3RunnerError
from s3runner.model import Job, Outcome
from s3runner.runner.report import STAGE_IN, JobEnd, Listener, SyncResult


class JobRunner(Protocol):
    """What the command line needs of a runner."""

    def submit(self, job: Job, listener: Listener) -> str:
        """Stage a job in and start it; return its id."""

    def wait(self, job_id: str, listener: Listener) -> JobEnd:
        """Return when the job has an outcome."""

    def sync(
        self, job_id: str, into: Path | None, listener: Listener, *, overwrite: bool
    ) -> SyncResult:
        """Bring an ended job's outputs here."""

    def check_places(self, job: Job, into: Path | None, *, overwrite: bool) -> None:
        """Refuse what sync could not put in its place."""

    def check_landing(self, job_id: str, into: Path | None) -> None:
        """Refuse the same for a job that is stored, but for what it might replace."""


@dataclass(frozen=True)
class Landing:
    """Where the results go (None: a directory named like the job), and what they may replace."""

    into: Path | None = None
    overwrite: bool = False


def run_to_end(
    runner: JobRunner,
    job: Job,
    invocation: Invocation,
    listener: PlainLines,
    landing: Landing,
) -> int:
    """Submit, wait, sync; return the exit code of the job's outcome (0 or 1).

    What is learned on the way goes into the invocation's report, so that a failure half-way can
    still say which job it was. Ctrl-C raises InterruptedByUserError and leaves the job alone.
    """
    with _telling(invocation, listener):
        runner.check_places(job, landing.into, overwrite=landing.overwrite)
        job_id = runner.submit(job, listener)
        return _finish(runner, job_id, invocation, listener, landing)


def submit_only(runner: JobRunner, job: Job, invocation: Invocation, listener: PlainLines) -> None:
    """Submit a job and leave it alone; what is known of it goes into the invocation's report."""
    with _telling(invocation, listener):
        runner.submit(job, listener)


def take_up(
    runner: JobRunner,
    job_id: str,
    invocation: Invocation,
    listener: PlainLines,
    landing: Landing | None,
) -> int:
    """Go on with a job that somebody submitted: wait, and sync if there is a place to land."""
    listener.current_job = job_id
    with _telling(invocation, listener, is_taken_up=True):
        if landing is not None:
            runner.check_landing(job_id, landing.into)
        return _finish(runner, job_id, invocation, listener, landing)


def _finish(
    runner: JobRunner,
    job_id: str,
    invocation: Invocation,
    listener: PlainLines,
    landing: Landing | None,
) -> int:
    end = runner.wait(job_id, listener)
    invocation.learn(job_id=job_id, end=end)
    if landing is not None:
        synced = runner.sync(job_id, landing.into, listener, overwrite=landing.overwrite)
        invocation.learn(sync=synced)
    listener.close()
    for line in end_lines(invocation.report):
        listener.say(line)
    return 0 if end.outcome is Outcome.SUCCEEDED else 1


@contextlib.contextmanager
def _telling(
    invocation: Invocation, listener: PlainLines, *, is_taken_up: bool = False
) -> Iterator[None]:
    """Turn an end before the job's own end into a report, and into words on how to go on.

    Whoever takes up a job knows that it is stored: only where the same may help it is said again.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise _detached(invocation, listener) from error
    except S3RunnerError as error:
        if error.temporary or not is_taken_up or invocation.report.end is not None:
            _tell_how_to_go_on(invocation, listener)
        raise
    finally:
        listener.close()
        invocation.learn(job_id=listener.current_job, stage_in=listener.phases.get(STAGE_IN))


def _detached(invocation: Invocation, listener: PlainLines) -> InterruptedByUserError:
    job_id = listener.current_job
    if job_id is None:
        return InterruptedByUserError("interrupted before the job was stored: nothing was started")
    wait, cancel = (invocation.command_for(verb, job_id) for verb in ("wait", "cancel"))
    return InterruptedByUserError(
        f"interrupted; job {job_id} goes on",
        hint=f"to wait for it: {wait}\n      to stop it:     {cancel}",
    )


def _tell_how_to_go_on(invocation: Invocation, listener: PlainLines) -> None:
    job_id = listener.current_job
    end = invocation.report.end
    if job_id is None:
        return
    if end is None:
        again = invocation.command_for("wait", job_id)
        listener.say(f"s3runner: the job is stored; to go on with it: {again}")
    else:
        again = invocation.command_for("sync", job_id)
        listener.say(f"s3runner: the job has ended ({end.outcome.value}); to sync again: {again}")

"""One job's way from stage-in to sync, in steps that a monitor starts and never waits for.

It stands apart from Galaxy's objects: what it needs of them is a directory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from s3runner.errors import S3RunnerError, StagingError, StoreAccessError, UnknownJobError
from s3runner.galaxy.pool import Pool
from s3runner.model import Job, Outcome
from s3runner.runner.report import JobEnd, Listener, Silence, SyncResult
from s3runner.store.stopping import Signal, StoppedError, stopped_by

log = logging.getLogger(__name__)

_PAUSE_S = 10.0
"""Between two tries of a step that met a temporary error."""

_FOR_EVER = 10**9
_REFUSED_TRIES = 360
"""Of a stored job's step, when the store refuses the keys: people have an hour to mend that."""

_SYNC_TRIES = 30
"""A tool's results are worth waiting for: the disk may be full, or the store away, for a while."""


class Following(Protocol):
    """A job that is followed."""

    def step(self) -> JobEnd | None:
        """Look once; return the job's end if it has one."""


class Verbs(Protocol):
    """Of a Runner, what an errand needs."""

    def submit(self, job: Job, listener: Listener, job_id: str | None = None) -> str:
        """Stage in and create the Job."""

    def follow(self, job_id: str, listener: Listener) -> Following:
        """Return the job as one to be followed step by step."""

    def sync_in_place(self, job_id: str, streams: Path, listener: Listener) -> SyncResult:
        """Bring the results here."""

    def cancel(self, job_id: str) -> tuple[JobEnd, bool]:
        """End the job."""

    def hand_over(self, job_id: str, listener: Listener) -> None:
        """Let inputs of a job that is over give way to links, where that is wanted."""


@dataclass(frozen=True)
class Pools:
    """Who does the work: `staging` moves files, `looks` asks cluster and store how it is."""

    staging: Pool
    looks: Pool


@dataclass(frozen=True, slots=True)
class _Step:
    pool: Pool
    task: Callable[[], Any]
    tries: int = 1
    ends_early: bool = False
    """A cancelled job does without what is left of the step."""


class _Hearing(Silence):
    """Remembers what the job is doing, and logs what an administrator should know."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self.last = ""

    def state(self, name: str) -> None:
        self.last = name

    def note(self, text: str) -> None:
        log.info("job %s: %s", self._job_id, text)

    def warning(self, text: str) -> None:
        log.warning("job %s: %s", self._job_id, text)


class Errand:
    """A job on its way. `advance` is called by one thread; the steps run in the pools.

    `job` is called in the pool for staging: its inputs are looked for then. Without it the job is
    one that was submitted before, perhaps: `never_stored` then tells that it was not. When it is
    over, `failure` says what went wrong on our side, else `end` how the job ended and `synced` what
    came back (nothing, of one that was cancelled).
    """

    def __init__(
        self,
        verbs: Verbs,
        job_id: str,
        directory: Path,
        pools: Pools,
        job: Callable[[], Job] | None = None,
    ) -> None:
        self.job_id = job_id
        self.end: JobEnd | None = None
        self.synced: SyncResult | None = None
        self.failure: BaseException | None = None
        self.never_stored = False
        self._hearing = _Hearing(job_id)
        self._verbs = verbs
        self._directory = directory
        self._pools = pools
        self._cancelled = Signal()
        self._walk = self._steps(job)
        self._step: _Step | None = next(self._walk)
        self._tries = 0
        self._not_before_s = 0.0
        self._pending: Future[Any] | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody wants the job to end."""
        return self._cancelled.is_set()

    @property
    def state(self) -> str:
        """What the job is doing, one of `report.STATES`, or nothing yet."""
        return self._hearing.last

    def cancel(self) -> None:
        """End the job: a stage-in at its next part or request, else when the step is over."""
        self._cancelled.set()

    def advance(self, clock: Callable[[], float] = time.monotonic) -> bool:
        """Take up what the last step brought and start the next; tell whether all is over."""
        if self._pending is not None and self.is_cancelled and self._may_end_early:
            # it may have waited for its turn, behind jobs that stage for hours
            self._pending.cancel()
        if self._pending is not None and self._pending.done():
            self._take_up(self._pending, clock)
        if self._step is None:
            return True
        if self._pending is None and clock() >= self._not_before_s:
            self._pending = self._step.pool.submit(self._step.task)
        return False

    def _take_up(self, done: Future[Any], clock: Callable[[], float]) -> None:
        self._pending = None
        if done.cancelled() or isinstance(done.exception(), StoppedError):
            self._go_on(None)
            return
        error = done.exception()
        if error is None:
            self._go_on(done.result())
        elif isinstance(error, UnknownJobError):
            self.never_stored, self._step = True, None
            if self.is_cancelled:
                log.info("job %s: cancelled before it was stored", self.job_id)
        elif self._may_repeat(error):
            self._not_before_s = clock() + _PAUSE_S
            log.warning("job %s: %s; trying again", self.job_id, error)
        else:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        """End the errand, and the job with it: Galaxy may begin it again under another id."""
        log.error("job %s: %s", self.job_id, error, exc_info=error)
        self.failure, self._step = error, None
        if self.end is None:
            # nobody waits for it, and it may take as long as the store or the cluster is away
            self._pools.staging.submit(self._end_job)

    def _end_job(self) -> None:
        try:
            self._verbs.cancel(self.job_id)
        except UnknownJobError:
            log.debug("job %s: nothing of it was stored", self.job_id)
        except Exception:
            # nobody takes up what this task raises: without the log it would be lost
            log.exception("job %s: its pods may run on", self.job_id)

    @property
    def _may_end_early(self) -> bool:
        return self._step is not None and self._step.ends_early

    def _may_repeat(self, error: BaseException) -> bool:
        self._tries += 1
        tries = self._step.tries if self._step is not None else 1
        if tries > 1 and not _is_temporary(error):
            tries = _REFUSED_TRIES if _is_refused(error) else 1
        return self._tries < tries

    def _go_on(self, result: Any) -> None:
        self._tries = 0
        try:
            self._step = self._walk.send(result)
        except StopIteration:
            self._step = None

    def _steps(self, job: Callable[[], Job] | None) -> Generator[_Step, Any, None]:
        verbs, looks, staging = self._verbs, self._pools.looks, self._pools.staging
        if job is not None:
            yield _Step(staging, partial(self._submit, job), ends_early=True)
        follower = yield _Step(looks, partial(verbs.follow, self.job_id, self._hearing), _FOR_EVER)
        was_told = False
        while self.end is None:
            if self.is_cancelled and not was_told:
                yield _Step(looks, partial(verbs.cancel, self.job_id), _FOR_EVER)
                was_told = True
            self.end = yield _Step(looks, follower.step, _FOR_EVER)
        if self.is_cancelled or self.end.outcome is Outcome.CANCELLED:
            return
        bring = partial(verbs.sync_in_place, self.job_id, self._directory, self._hearing)
        self.synced = yield _Step(staging, bring, _SYNC_TRIES)
        # nobody waits for it: the job is over
        staging.submit(self._hand_over)

    def _submit(self, job: Callable[[], Job]) -> None:
        with stopped_by(self._cancelled):
            self._verbs.submit(job(), self._hearing, self.job_id)

    def _hand_over(self) -> None:
        try:
            self._verbs.hand_over(self.job_id, self._hearing)
        except Exception:
            # the job is over and well: nothing that befalls this may change its end
            log.exception("job %s: its inputs stay on this machine", self.job_id)


def _is_temporary(error: BaseException) -> bool:
    return all(isinstance(e, S3RunnerError) and e.temporary for e in _failures(error))


def _is_refused(error: BaseException) -> bool:
    return all(_is_temporary(e) or isinstance(e, StoreAccessError) for e in _failures(error))


def _failures(error: BaseException) -> Sequence[BaseException]:
    return error.failures if isinstance(error, StagingError) else (error,)

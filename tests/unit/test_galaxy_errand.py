from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from s3runner.errors import (
    ClusterRefusedError,
    StagingError,
    StoreAccessError,
    StoreUnavailableError,
    UnknownJobError,
)
from s3runner.galaxy.errand import Errand, Pools
from s3runner.galaxy.pool import Pool
from s3runner.model import Job, Outcome, Phase
from s3runner.runner.report import JobEnd, Listener, SyncResult
from s3runner.store.stopping import pause

SYNCED = SyncResult((), Phase(), Path("/jwd"))
JOB = Job("galaxy-1", "true")


class Inline(Pool):
    """Does each task at once, in the caller's thread."""

    def __init__(self) -> None:
        super().__init__("inline", 0)

    def submit(self, task: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(task())
        except Exception as error:  # noqa: BLE001 # as the real one does
            future.set_exception(error)
        return future


@dataclass
class Verbs:
    """A runner that does what `script` says, verb by verb; what was called stands in `calls`."""

    script: dict[str, list[Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def _play(self, verb: str, otherwise: Any) -> Any:
        self.calls.append(verb)
        answers = self.script.get(verb)
        answer = answers.pop(0) if answers else otherwise
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit(self, job: Job, listener: Listener, job_id: str | None = None) -> str:
        assert job is JOB
        listener.state("staged")
        return str(self._play("submit", job_id))

    def follow(self, job_id: str, listener: Listener) -> Verbs:
        del job_id, listener
        self._play("follow", None)
        return self

    def step(self) -> JobEnd | None:
        found: JobEnd | None = self._play("step", JobEnd(Outcome.SUCCEEDED, 0))
        return found

    def sync_in_place(self, job_id: str, streams: Path, listener: Listener) -> SyncResult:
        del job_id, streams, listener
        found: SyncResult = self._play("sync", SYNCED)
        return found

    def cancel(self, job_id: str) -> tuple[JobEnd, bool]:
        del job_id
        found: tuple[JobEnd, bool] = self._play("cancel", (JobEnd(Outcome.CANCELLED, None), True))
        return found

    def hand_over(self, job_id: str, listener: Listener) -> None:
        del job_id, listener
        self._play("hand_over", None)


def errand(verbs: Verbs, job: Callable[[], Job] | None = lambda: JOB) -> Errand:
    return Errand(verbs, "job-1", Path("/jwd"), Pools(Inline(), Inline()), job)


def finished(found: Errand, *, most: int = 30) -> Errand:
    """Advance to the end, each look 60 seconds after the one before."""
    for number in range(most):
        if found.advance(lambda now=number * 60.0: now):  # type: ignore[misc]
            return found
    pytest.fail("it does not end")


def test_a_job_is_staged_followed_and_synced() -> None:
    """The steps come in this order, and what they brought is kept."""
    verbs = Verbs({"step": [None, None]})

    found = finished(errand(verbs))

    assert verbs.calls == ["submit", "follow", "step", "step", "step", "sync", "hand_over"]
    assert (found.end, found.synced) == (JobEnd(Outcome.SUCCEEDED, 0), SYNCED)
    assert found.failure is None
    assert found.state == "staged"


def test_looking_never_waits_for_a_step() -> None:
    """A stage-in that takes hours leaves the monitor free."""
    verbs = Verbs()
    staging = Pool("staging", 0)

    found = Errand(verbs, "job-1", Path("/jwd"), Pools(staging, Inline()), lambda: JOB)

    assert not found.advance()
    assert not found.advance()
    assert verbs.calls == []


@pytest.mark.parametrize("verb", ["follow", "step", "sync"])
def test_a_temporary_error_after_submission_ends_no_job(verb: str) -> None:
    """A store or cluster that is away for a while says nothing of the job."""
    verbs = Verbs({verb: [StoreUnavailableError("away"), StoreUnavailableError("away")]})

    found = finished(errand(verbs))

    assert found.failure is None
    assert found.synced == SYNCED
    assert verbs.calls.count(verb) == 3


@pytest.mark.parametrize("verb", ["follow", "step", "sync"])
def test_keys_that_are_refused_after_submission_may_be_replaced(verb: str) -> None:
    """Else one mistake with the keys would end all jobs, whose pods go on."""
    refused = [StoreAccessError("access denied")] * 40
    wrapped = StagingError("sync", [StoreAccessError("denied"), StoreUnavailableError("away")])

    found = finished(errand(Verbs({verb: [wrapped, *refused]})), most=100)

    assert (found.failure, found.synced) == (None, SYNCED)


def test_keys_that_stay_refused_end_a_job_at_last() -> None:
    """The job's user is told, and its pods are ended if that is possible."""
    verbs = Verbs({"step": [StoreAccessError("access denied")] * 1000})

    found = finished(errand(verbs), most=1000)

    assert isinstance(found.failure, StoreAccessError)
    assert (verbs.calls.count("step"), verbs.calls[-1]) == (360, "cancel")


def test_inputs_that_cannot_be_looked_for_end_a_job_with_the_reason() -> None:
    """A data table's path may stand for what only the store can list."""
    away = StoreUnavailableError("away")

    def job() -> Job:
        raise away

    found = finished(errand(Verbs(), job))

    assert found.failure is away


def test_keys_that_are_refused_at_submission_are_told_at_once() -> None:
    """Nothing runs yet."""
    found = finished(errand(Verbs({"submit": [StoreAccessError("access denied")]})))

    assert isinstance(found.failure, StoreAccessError)


@pytest.mark.parametrize("is_temporary", [True, False])
def test_failures_of_several_files_are_temporary_if_all_of_them_are(*, is_temporary: bool) -> None:
    """A stage tells them together."""
    other = StoreUnavailableError("away") if is_temporary else ClusterRefusedError("no")
    failed = StagingError("sync", [StoreUnavailableError("away"), other])

    found = finished(errand(Verbs({"sync": [failed]})))

    assert found.failure is (None if is_temporary else failed)


def test_inputs_that_stay_here_fail_no_job() -> None:
    """Handing them over is nobody's result."""
    verbs = Verbs({"hand_over": [StoreUnavailableError("away")]})

    found = finished(errand(verbs))

    assert (found.failure, found.synced) == (None, SYNCED)
    assert verbs.calls[-1] == "hand_over"


def test_after_a_temporary_error_there_is_a_pause() -> None:
    """The store is not asked again at each look of the monitor."""
    verbs = Verbs({"step": [StoreUnavailableError("away")]})
    found = errand(verbs, None)
    for _ in range(3):
        found.advance(lambda: 100.0)

    for now in (101.0, 105.0):
        found.advance(lambda now=now: now)  # type: ignore[misc]

    assert verbs.calls == ["follow", "step"]
    finished(found)


def test_an_error_that_stays_is_the_errands_failure() -> None:
    """Whoever watches it can say why."""
    refused = ClusterRefusedError("quota")

    found = finished(errand(Verbs({"submit": [refused]})))

    assert found.failure is refused
    assert found.end is None


@pytest.mark.parametrize("verb", ["submit", "follow", "step"])
def test_a_job_that_is_given_up_is_ended(verb: str) -> None:
    """Galaxy may begin it again, and nobody would take what its pods still make."""
    verbs = Verbs({verb: [KeyError("a bug")]})

    found = finished(errand(verbs))

    assert isinstance(found.failure, KeyError)
    assert verbs.calls[-2:] == [verb, "cancel"]


def test_a_job_whose_results_cannot_be_brought_here_has_ended_already() -> None:
    """What it has made stays in the bucket."""
    verbs = Verbs({"sync": [ClusterRefusedError("no")]})

    finished(errand(verbs))

    assert verbs.calls[-1] == "sync"


def test_a_job_that_is_given_up_may_not_be_there(caplog: pytest.LogCaptureFixture) -> None:
    """Its stage-in has failed; the log says why, and nothing of what was not to be ended."""
    verbs = Verbs({"submit": [KeyError("a bug")], "cancel": [UnknownJobError("no such job")]})

    finished(errand(verbs))

    assert [each.exc_info is not None for each in caplog.records] == [True]


def test_a_job_that_was_never_stored_is_told_from_one_that_failed() -> None:
    """Galaxy was killed while it staged in: the job begins anew, and there is no other one."""
    verbs = Verbs({"follow": [UnknownJobError("no such job")]})

    found = finished(errand(verbs, None))

    assert found.never_stored
    assert (found.failure, found.end) == (None, None)


def test_a_cancelled_job_is_ended_and_nothing_of_it_comes_back() -> None:
    """What was asked for while it staged in is done when there is something to end."""
    verbs = Verbs({"step": [JobEnd(Outcome.CANCELLED, None)]})
    found = errand(verbs)

    found.cancel()

    assert finished(found).synced is None
    assert verbs.calls == ["submit", "follow", "cancel", "step"]


class Staging(Verbs):
    """Stages in for ever, and says when it has begun."""

    begun = threading.Event()

    def submit(self, job: Job, listener: Listener, job_id: str | None = None) -> str:
        del job, listener
        self.begun.set()
        pause(10_000)
        return str(job_id)


def ended(found: Errand) -> Errand:
    """Advance as a monitor does, until the errand is over."""
    wait_until(lambda: found.advance())
    return found


def test_a_stage_in_ends_when_its_job_is_cancelled() -> None:
    """Nothing was stored, so there is nothing to be ended in the cluster."""
    verbs = Staging({"follow": [UnknownJobError("no such job")]})
    found = Errand(verbs, "job-1", Path("/jwd"), Pools(Pool("staging", 1), Inline()), lambda: JOB)
    found.advance()
    assert verbs.begun.wait(60)

    found.cancel()

    assert ended(found).never_stored
    assert found.is_cancelled
    assert verbs.calls == ["follow"]


def test_a_cancelled_job_does_not_wait_for_its_turn_to_stage_in() -> None:
    """Those before it may stage for hours."""
    verbs = Verbs({"follow": [UnknownJobError("no such job")]})
    found = Errand(verbs, "job-1", Path("/jwd"), Pools(Pool("busy", 0), Inline()), lambda: JOB)
    found.advance()

    found.cancel()

    assert finished(found).never_stored
    assert verbs.calls == ["follow"]


def test_a_sync_that_has_begun_is_not_ended(tmp_path: Path) -> None:
    """What the tool has made is here a moment later."""
    verbs, staging = Verbs(), Pool("staging", 0)
    found = Errand(verbs, "job-1", tmp_path, Pools(staging, Inline()), None)
    for _ in range(4):
        found.advance()

    found.cancel()

    assert not found.advance()
    assert verbs.calls == ["follow", "step"]


def test_a_pools_thread_hands_errors_over() -> None:
    """One task's error is nobody else's."""
    pool = Pool("two", 1)

    failed, done = pool.submit(lambda: 1 // 0), pool.submit(lambda: 7)

    assert isinstance(failed.exception(timeout=30), ZeroDivisionError)
    assert done.result(timeout=30) == 7

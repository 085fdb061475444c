"""Interrupting what runs in threads: nobody waits for a retry budget that nobody wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from memory_store import MemoryStore

from s3runner.errors import StagingError, StoreAccessError, StoreUnavailableError
from s3runner.staging.parallel import run_all
from s3runner.store.protocol import Chunks, StoredObject
from s3runner.store.retrying import Retry, RetryingStore
from s3runner.store.stopping import Signal, StoppedError, passed_on_to, pause, stopped_by

T = TypeVar("T")
FOR_EVER_S = 10_000.0
"""Far beyond the test's own time limit."""


class DeadStore(MemoryStore):
    """Never answers a HEAD, and says when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def head(self, key: str) -> StoredObject:
        self.asked.set()
        raise StoreUnavailableError(f"no answer about {key}")


class StreamingStore(MemoryStore):
    """Takes a body chunk by chunk, as one that sends it does, and gives out what it is told to."""

    def __init__(self, pieces: Callable[[], Chunks]) -> None:
        super().__init__()
        self._pieces = pieces

    def put(self, key: str, body: Callable[[], Chunks], *, size: int, part_size: int) -> None:
        del key, size, part_size
        exhaust(body())

    def get(
        self,
        key: str,
        consume: Callable[[Chunks], T],
        *,
        start: int = 0,
        length: int | None = None,
        if_match: str | None = None,
    ) -> T:
        del key, start, length, if_match
        return consume(self._pieces())


def exhaust(chunks: Chunks) -> None:
    for _ in chunks:
        pass


def interrupted_when(ready: threading.Event) -> Callable[[], None]:
    def interrupt() -> None:
        assert ready.wait(60)
        raise KeyboardInterrupt

    return interrupt


class Unending:
    """Work without an end; gives up in the end, so that a test that should fail does not hang."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ended = False

    def steps(self) -> Iterator[bytes]:
        for _ in range(4000):
            self.begun.set()
            yield b"x"
            threading.Event().wait(0.005)
        self.ended = True


def test_an_interruption_ends_a_pause_between_tries() -> None:
    dead = DeadStore()
    # the pauses of a real retry, a thousand times as long
    slow = Retry(FOR_EVER_S, sleep=lambda seconds: Retry().sleep(1000 * seconds))

    def ask() -> None:
        RetryingStore(dead, slow).head("k")

    with pytest.raises(KeyboardInterrupt):
        run_all("stage-in", [ask, ask, interrupted_when(dead.asked), ask])


@pytest.mark.parametrize("hop", ["upload", "download"])
def test_an_interruption_ends_a_transfer_at_its_next_part(hop: str) -> None:
    work = Unending()
    store = RetryingStore(StreamingStore(work.steps))

    transfers: dict[str, Callable[[], None]] = {
        "upload": lambda: store.put("k", work.steps, size=1, part_size=1),
        "download": lambda: store.get("k", exhaust),
    }
    with pytest.raises(KeyboardInterrupt):
        run_all("stage-in", [transfers[hop], interrupted_when(work.begun)])
    assert not work.ended


def test_an_interruption_ends_a_task_before_its_next_request() -> None:
    work = Unending()
    store = RetryingStore(MemoryStore())

    def ask_again() -> None:
        for _ in work.steps():
            store.put_if_absent("k", b"")

    with pytest.raises(KeyboardInterrupt):
        run_all("stage-in", [ask_again, interrupted_when(work.begun)])
    assert not work.ended


def test_a_failure_that_ends_the_stage_lets_the_others_tell_theirs() -> None:
    denied = threading.Event()
    dead = DeadStore()
    impatient = Retry(0.05, jitter=lambda: 1.0)

    def deny() -> None:
        denied.set()
        raise StoreAccessError("denied")

    def ask() -> None:
        assert denied.wait(60)
        RetryingStore(dead, impatient).head("k")

    with pytest.raises(StagingError) as caught:
        run_all("stage-in", [ask, deny])
    assert [type(failure) for failure in caught.value.failures] == [
        StoreUnavailableError,
        StoreAccessError,
    ]


@pytest.mark.parametrize("is_nested", [False, True])
def test_who_stops_a_thread_stops_those_that_it_has_started(*, is_nested: bool) -> None:
    """A job that is cancelled while its files go up: no result of theirs looks whole."""
    signal, begun = Signal(), threading.Barrier(3)

    def stage() -> None:
        begun.wait(60)
        pause(FOR_EVER_S)

    def run() -> None:
        if is_nested:
            run_all("stage-in", [lambda: run_all("stage-in", [stage, stage]), list])
        else:
            run_all("stage-in", [stage, stage])

    def stop() -> None:
        begun.wait(60)
        signal.set()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(StoppedError), stopped_by(signal):
        run()
    thread.join()


def test_what_is_stopped_already_begins_nothing() -> None:
    signal, done = Signal(), list[int]()
    signal.set()

    with pytest.raises(StoppedError), stopped_by(signal):
        run_all("stage-in", [lambda: done.append(1), lambda: done.append(2)])
    assert done == []


def test_a_signal_is_passed_on_only_as_long_as_it_was_asked_for() -> None:
    """The next stage of the same job keeps nothing of the one that has ended."""
    above, during, later = Signal(), Signal(), Signal()
    with stopped_by(above), passed_on_to(during):
        pass
    with stopped_by(above), passed_on_to(later):
        above.set()

    assert (during.is_set(), later.is_set()) == (False, True)

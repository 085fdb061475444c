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

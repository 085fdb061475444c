"""Retries: by time, with pauses that grow, and with every request counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from memory_store import MemoryStore

from s3runner.errors import (
    InputError,
    IntegrityError,
    ObjectNotFoundError,
    S3RunnerError,
    SpecError,
    StoreAccessError,
    StoreUnavailableError,
)
from s3runner.store.meter import Meter
from s3runner.store.protocol import Chunks
from s3runner.store.retrying import DAMAGED_TRIES, Retry, RetryingStore, read


class Clock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def retry(clock: Clock) -> Retry:
    """Five minutes, without jitter."""
    return Retry(300.0, clock, clock.sleep, jitter=lambda: 1.0)


def unavailable() -> StoreUnavailableError:
    return StoreUnavailableError("no answer (PutObject)", target="s3://memory/k")


def failing(method: str, times: int) -> dict[tuple[str, int], Exception]:
    return {(method, number): unavailable() for number in range(1, times + 1)}


def joined(chunks: Chunks) -> bytes:
    return b"".join(chunks)


def test_a_temporary_error_is_tried_again(retry: Retry, clock: Clock) -> None:
    store = RetryingStore(MemoryStore(fail=failing("put_if_absent", 3)), retry)
    assert store.put_if_absent("k", b"x") is True
    assert clock.pauses == [0.2, 0.4, 0.8]


def test_pauses_double_up_to_ten_seconds(retry: Retry, clock: Clock) -> None:
    store = RetryingStore(MemoryStore(fail=failing("delete", 9)), retry)
    store.delete("k")
    assert clock.pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10])


def test_jitter_takes_off_up_to_half_a_pause(clock: Clock) -> None:
    retry = Retry(300.0, clock, clock.sleep, jitter=lambda: 0.0)
    RetryingStore(MemoryStore(fail=failing("delete", 2)), retry).delete("k")
    assert clock.pauses == pytest.approx([0.1, 0.2])


def test_a_server_that_says_when_to_come_back_is_left_alone_until_then(
    retry: Retry, clock: Clock
) -> None:
    """But never longer than the budget: then comes the last try."""
    waits = iter((42.0, 10_000.0))

    def busy() -> str:
        error = unavailable()
        error.wait_s = next(waits, 0.0)
        if error.wait_s:
            raise error
        return "done"

    assert retry.call(busy) == "done"
    assert clock.pauses == [42.0, 258.0]


def test_after_the_budget_the_error_says_for_how_long_and_how_often(
    retry: Retry, clock: Clock
) -> None:
    store = RetryingStore(MemoryStore(fail=failing("put_if_absent", 1000)), retry)
    with pytest.raises(StoreUnavailableError) as caught:
        store.put_if_absent("k", b"x")
    assert clock.now == pytest.approx(300)
    assert caught.value.tries == len(clock.pauses) + 1
    assert str(caught.value) == (
        f"s3://memory/k: no answer (PutObject) for 300 s ({caught.value.tries} tries)"
    )


def test_the_budget_counts_from_the_first_failure_not_from_the_call(
    retry: Retry, clock: Clock
) -> None:
    calls = iter(range(3))

    def slow() -> str:
        clock.now += 200
        if next(calls) < 2:
            raise unavailable()
        return "done"

    assert retry.call(slow) == "done"


@pytest.mark.parametrize(
    "error",
    [StoreAccessError("denied"), ObjectNotFoundError("no such object"), InputError("changed")],
    ids=["denied", "not found", "input"],
)
def test_an_error_that_will_not_pass_is_raised_at_once(
    retry: Retry, clock: Clock, error: S3RunnerError
) -> None:
    store = RetryingStore(MemoryStore(fail={("head", 1): error}), retry)
    with pytest.raises(type(error)) as caught:
        store.head("k")
    assert caught.value is error
    assert caught.value.tries == 1
    assert clock.pauses == []


def test_an_error_that_is_not_ours_passes_through(retry: Retry, clock: Clock) -> None:
    store = RetryingStore(MemoryStore(fail={("head", 1): KeyError("a bug")}), retry)
    with pytest.raises(KeyError, match="a bug"):
        store.head("k")
    assert clock.pauses == []


def test_damaged_bytes_are_asked_for_five_times_at_most(retry: Retry) -> None:
    memory = MemoryStore()
    memory.put_if_absent("k", b"damaged")

    def verify(chunks: Chunks) -> None:
        raise IntegrityError(f"{len(joined(chunks))} bytes of another digest")

    with pytest.raises(IntegrityError) as caught:
        RetryingStore(memory, retry).get("k", verify)
    assert caught.value.tries == DAMAGED_TRIES
    assert memory.calls.count(("get", "k")) == DAMAGED_TRIES


def test_a_broken_download_begins_anew(retry: Retry) -> None:
    memory = MemoryStore(lose=[("get", 1), ("get", 2)])
    memory.put_if_absent("k", bytes(range(256)) * 100)
    assert RetryingStore(memory, retry).get("k", joined) == bytes(range(256)) * 100


def test_an_upload_is_sent_again_from_a_fresh_body(retry: Retry) -> None:
    memory = MemoryStore(fail=failing("put", 2))
    bodies = 0

    def body() -> Iterator[bytes]:
        nonlocal bodies
        bodies += 1
        yield b"abc"

    RetryingStore(memory, retry).put("k", body, size=3, part_size=4)
    assert memory.objects == {"k": b"abc"}
    assert bodies == 1  # the fake fails before it asks for the body


def test_a_lost_answer_makes_put_if_absent_false_and_the_object_ours(retry: Retry) -> None:
    memory = MemoryStore(lose=[("put_if_absent", 1)])
    assert RetryingStore(memory, retry).put_if_absent("commit.json", b"mine") is False
    assert memory.objects == {"commit.json": b"mine"}


class BreakingList(MemoryStore):
    """Listings that break off after some objects, the first times."""

    breaks: list[int]

    def list(self, prefix: str) -> Iterator:  # type: ignore[type-arg]
        found = list(super().list(prefix))
        stop = self.breaks.pop(0) if self.breaks else None
        yield from found[:stop]
        if stop is not None:
            raise StoreUnavailableError("the listing broke off")


def test_a_listing_that_breaks_off_yields_each_object_once(retry: Retry, clock: Clock) -> None:
    memory = BreakingList()
    for number in range(5):
        memory.put_if_absent(f"a/{number}", b"")
    memory.breaks = [2, 2, 1, 4]
    keys = [stored.key for stored in RetryingStore(memory, retry).list("a/")]
    assert keys == [f"a/{number}" for number in range(5)]
    # progress (2 objects, then 2 more) starts the pauses anew
    assert clock.pauses == pytest.approx([0.2, 0.4, 0.8, 0.2])


def test_a_listing_gives_up_after_the_budget(retry: Retry, clock: Clock) -> None:
    store = RetryingStore(MemoryStore(fail=failing("list", 1000)), retry)
    with pytest.raises(StoreUnavailableError, match="for 300 s"):
        list(store.list("a/"))
    assert clock.now == pytest.approx(300)


def test_each_try_counts_as_a_request(retry: Retry) -> None:
    meter = Meter(clock=lambda: 0.0)
    store = RetryingStore(MemoryStore(fail=failing("head", 2)), retry, meter)
    store.put_if_absent("k", b"x")
    store.head("k")
    store.get("k", joined)
    store.get("k", joined, length=0)
    list(store.list("a/"))
    store.delete("k")
    assert meter.phase.requests == 1 + 3 + 1 + 0 + 1 + 1


def test_a_multipart_upload_counts_its_parts_and_two(retry: Retry) -> None:
    meter = Meter(clock=lambda: 0.0)
    store = RetryingStore(MemoryStore(), retry, meter)
    store.put("k", lambda: iter([b"ab", b"cd", b"e"]), size=5, part_size=2)
    assert meter.phase.requests == 5


def test_another_meter_counts_for_itself(retry: Retry) -> None:
    first, second = Meter(clock=lambda: 0.0), Meter(clock=lambda: 0.0)
    store = RetryingStore(MemoryStore(buckets=["other"]), retry, first)
    store.with_meter(second).in_bucket("other").put_if_absent("k", b"x")
    assert (first.phase.requests, second.phase.requests) == (0, 1)


def test_read_returns_a_whole_document_and_refuses_a_huge_one(retry: Retry) -> None:
    store = RetryingStore(MemoryStore(), retry)
    store.put_if_absent("k", b"12345")
    assert read(store, "k", limit=5) == b"12345"
    with pytest.raises(SpecError, match="more than 4 bytes") as caught:
        read(store, "k", limit=4)
    assert caught.value.source == "s3://memory/k"

"""The probe for conditional writes, and what remembers that a store passed it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from memory_store import MemoryStore

from s3runner.errors import StoreAccessError, StoreError, StoreUnavailableError
from s3runner.model import StoreConfig
from s3runner.store.probe import REMEMBERED_S, ProbeMemory, check_conditional_writes
from s3runner.store.retrying import Retry


class Forgetful(MemoryStore):
    """A store that ignores If-None-Match."""

    def put_if_absent(self, key: str, body: bytes) -> bool:
        self.put(key, lambda: iter([body]), size=len(body), part_size=len(body))
        return True


class Refusing(MemoryStore):
    """A store that answers 412 whatever the key."""

    def put_if_absent(self, key: str, body: bytes) -> bool:
        super().put_if_absent(key, body)
        return False


@pytest.fixture
def new_key() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"runs/probes/{next(numbers)}"


@pytest.fixture
def retry() -> Retry:
    """Time that passes by sleeping only."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return Retry(300.0, lambda: now[0], sleep)


def unavailable() -> StoreUnavailableError:
    return StoreUnavailableError("no answer (PutObject)")


def test_a_store_that_keeps_them_passes_and_nothing_stays_behind(
    new_key: Callable[[], str], retry: Retry
) -> None:
    store = MemoryStore()
    check_conditional_writes(store, new_key=new_key, retry=retry)
    assert store.objects == {}
    assert [call for call in store.calls if call[0] == "put_if_absent"] == [
        ("put_if_absent", "runs/probes/1"),
        ("put_if_absent", "runs/probes/1"),
    ]


@pytest.mark.parametrize("store", [Forgetful(), Refusing()], ids=["writes over", "always 412"])
def test_a_store_that_does_not_is_refused(
    store: MemoryStore, new_key: Callable[[], str], retry: Retry
) -> None:
    with pytest.raises(StoreError, match="does not keep conditional writes") as caught:
        check_conditional_writes(store, new_key=new_key, retry=retry)
    assert caught.value.code == 30
    assert "If-None-Match" in caught.value.hint
    assert store.objects == {}


def test_a_store_that_calls_it_not_implemented_is_refused(
    new_key: Callable[[], str], retry: Retry
) -> None:
    error = StoreError("the store said 501 NotImplemented (PutObject)")
    store = MemoryStore(fail={("put_if_absent", 1): error})
    with pytest.raises(StoreError, match="conditional writes: the store said 501"):
        check_conditional_writes(store, new_key=new_key, retry=retry)


def test_a_lost_first_answer_goes_on_with_another_key(
    new_key: Callable[[], str], retry: Retry
) -> None:
    """On the same key a good store would say 412 to what it took the first time."""
    store = MemoryStore(lose=[("put_if_absent", 1)])
    check_conditional_writes(store, new_key=new_key, retry=retry)
    keys = [key for method, key in store.calls if method == "put_if_absent"]
    assert keys == ["runs/probes/1", "runs/probes/2", "runs/probes/2"]
    assert store.objects == {}


def test_a_lost_second_answer_is_asked_for_again_on_the_same_key(
    new_key: Callable[[], str], retry: Retry
) -> None:
    store = MemoryStore(lose=[("put_if_absent", 2)])
    check_conditional_writes(store, new_key=new_key, retry=retry)
    keys = [key for method, key in store.calls if method == "put_if_absent"]
    assert keys == ["runs/probes/1"] * 3


def test_a_store_that_does_not_answer_is_no_verdict(
    new_key: Callable[[], str], retry: Retry
) -> None:
    fail = {("put_if_absent", number): unavailable() for number in range(1, 1000)}
    with pytest.raises(StoreUnavailableError, match="for 300 s"):
        check_conditional_writes(MemoryStore(fail=fail), new_key=new_key, retry=retry)


def test_denied_access_stays_what_it_is(new_key: Callable[[], str], retry: Retry) -> None:
    error = StoreAccessError("access denied (PutObject)")
    store = MemoryStore(fail={("put_if_absent", 1): error})
    with pytest.raises(StoreAccessError, match="access denied"):
        check_conditional_writes(store, new_key=new_key, retry=retry)


def test_a_probe_that_cannot_be_deleted_does_not_fail_the_check(
    new_key: Callable[[], str], retry: Retry
) -> None:
    store = MemoryStore(fail={("delete", 1): StoreAccessError("access denied (DeleteObject)")})
    check_conditional_writes(store, new_key=new_key, retry=retry)


CONFIG = StoreConfig("bucket", endpoint="https://minio.example")


def test_what_passed_is_remembered_for_seven_days_per_endpoint_and_bucket(tmp_path: Path) -> None:
    now = [1_000_000.0]
    memory = ProbeMemory(tmp_path / "state" / "probes.json", clock=lambda: now[0])
    assert not memory.remembers(CONFIG)
    memory.remember(CONFIG)
    assert memory.remembers(CONFIG)
    assert memory.remembers(StoreConfig("bucket", prefix="p", endpoint="https://minio.example"))
    assert not memory.remembers(StoreConfig("bucket"))
    assert not memory.remembers(StoreConfig("other", endpoint="https://minio.example"))
    now[0] += REMEMBERED_S - 1
    assert memory.remembers(CONFIG)
    now[0] += 2
    assert not memory.remembers(CONFIG)


def test_a_date_in_the_future_is_not_believed(tmp_path: Path) -> None:
    now = [2_000_000.0]
    memory = ProbeMemory(tmp_path / "probes.json", clock=lambda: now[0])
    memory.remember(CONFIG)
    now[0] -= 1000
    assert not memory.remembers(CONFIG)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '{"https://minio.example bucket": "x"}', "\xff"],
    ids=["empty", "cut", "another shape", "no number", "no text"],
)
def test_a_damaged_memory_is_an_empty_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "probes.json"
    path.write_text(text, encoding="latin-1")
    memory = ProbeMemory(path)
    assert not memory.remembers(CONFIG)
    memory.remember(CONFIG)
    assert memory.remembers(CONFIG)
    assert list(tmp_path.iterdir()) == [path]


def test_two_stores_are_remembered_in_one_file_and_old_ones_dropped(tmp_path: Path) -> None:
    now = [1_000_000.0]
    memory = ProbeMemory(tmp_path / "probes.json", clock=lambda: now[0])
    memory.remember(CONFIG)
    memory.remember(StoreConfig("second"))
    assert memory.remembers(CONFIG)
    now[0] += REMEMBERED_S + 1
    memory.remember(StoreConfig("third"))
    assert list(json.loads((tmp_path / "probes.json").read_text())) == ["aws third"]


def test_a_memory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memory = ProbeMemory(tmp_path / "file" / "probes.json")
    memory.remember(CONFIG)
    assert not memory.remembers(CONFIG)

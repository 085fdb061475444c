from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from memory_store import MemoryStore

from s3runner.model import StoredAt
from s3runner.staging.chained import ChainedInputs
from s3runner.staging.digest import sha256_hex
from s3runner.staging.digest_cache import DigestCache
from s3runner.staging.layout import StoreLayout
from s3runner.staging.scan import scan
from s3runner.staging.tree import Identity

BODY = b"an output"
LAYOUT = StoreLayout("runs")
KEY = LAYOUT.job("job").attempt("pod").out("o")
DAY_S = 86400.0


class World:
    """A synced output: the file here, what the cache remembers, the object there."""

    def __init__(self, directory: Path) -> None:
        self.age = timedelta()
        self.store = MemoryStore("b", clock=lambda: datetime.now(timezone.utc) - self.age)
        self.cache = DigestCache(directory / "cache" / "c.db", time.time_ns)
        self.file = directory / "o"
        self.file.write_bytes(BODY)

    def store_object(self, body: bytes = BODY) -> None:
        self.store.put(KEY, partial(iter, (body,)), size=len(body), part_size=99)

    def remember(self, uri: str = f"s3://b/{KEY}", digest: str = sha256_hex(BODY)) -> None:
        self.cache.put_synced(Identity.of(self.file.stat()), (digest,), uri)

    def found(self) -> list[StoredAt | None]:
        inputs = ChainedInputs(self.store, LAYOUT, self.cache, job_ttl_s=90 * DAY_S)
        return [entry.at for entry in inputs.find([scan("in", str(self.file))])]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.cache.close()


def test_a_synced_output_is_referred_to_where_it_lies(world: World) -> None:
    world.store_object()
    world.remember()

    assert world.found() == [StoredAt(KEY)]


def test_what_was_never_synced_is_asked_nothing(world: World) -> None:
    world.store_object()

    assert world.found() == []
    assert ("head", KEY) not in world.store.calls


def test_other_bytes_are_not_the_output(world: World) -> None:
    """The file may have been written over within its time stamps' grain."""
    world.store_object()
    world.remember(digest=sha256_hex(b"something else"))

    assert world.found() == []


@pytest.mark.parametrize(
    "uri", [f"s3://another/{KEY}", "s3://b/elsewhere/o", "no uri at all"], ids=str
)
def test_an_object_of_another_place_is_not_relied_upon(world: World, uri: str) -> None:
    world.store_object()
    world.remember(uri)

    assert world.found() == []


def test_an_object_that_is_gone_or_torn_is_not_relied_upon(world: World) -> None:
    world.remember()
    assert world.found() == []

    world.store_object(b"short")
    assert world.found() == []


@pytest.mark.parametrize(("days", "relied"), [(29, True), (31, False)])
def test_an_output_near_the_end_of_its_job_is_staged_again(
    world: World, days: int, relied: bool
) -> None:
    world.age = timedelta(days=days)
    world.store_object()
    world.remember()

    assert bool(world.found()) is relied

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from memory_store import MemoryStore

from s3runner.model import Manifest, Output, StoredAt
from s3runner.staging.chained import ChainedInputs
from s3runner.staging.digest import parts_of, sha256_hex
from s3runner.staging.digest_cache import DigestCache, SyncedFrom
from s3runner.staging.layout import StoreLayout
from s3runner.staging.scan import scan, scan_outputs
from s3runner.staging.tree import Identity
from s3runner.staging.upload import stage_out
from s3runner.store.meter import Meter

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
        self.cache.put_synced(Identity.of(self.file.stat()), (digest,), SyncedFrom(uri))

    def find(self, source: Path) -> Manifest:
        inputs = ChainedInputs(self.store, LAYOUT, self.cache, job_ttl_s=90 * DAY_S)
        return inputs.find([scan("in", str(source))])

    def found(self) -> list[StoredAt | None]:
        return [entry.at for entry in self.find(self.file).entries]

    def sync_directory(self, directory: Path, contents: dict[str, bytes]) -> Manifest:
        """Let a directory be here, and in the store as a pod brings it out; return its tree."""
        for name, body in contents.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(body)
        found = scan_outputs([Output("d")], str(directory.parent), [str(directory.parent)])
        attempt = LAYOUT.job("job").attempt("pod")
        tree = stage_out(self.store, attempt, found, declared_files=set(), meter=Meter())
        for pack in tree.packs:
            self.cache.put_synced_pack(f"s3://b/{pack.key}", pack.size, parts_of(pack))
        for entry in tree.entries:
            if entry.at is not None:
                identity = Identity.of((directory.parent / entry.path).stat())
                origin = SyncedFrom(f"s3://b/{entry.at.key}", entry.at.offset)
                self.cache.put_synced(identity, parts_of(entry), origin)
        self.store.calls.clear()
        return tree


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.cache.close()


def test_a_synced_output_is_referred_to_where_it_lies(world: World) -> None:
    world.store_object()
    world.remember()

    assert world.found() == [StoredAt(KEY)]


def test_a_synced_output_that_was_moved_is_referred_to_where_it_lies(world: World) -> None:
    """Galaxy moves outputs and sets their modes."""
    world.store_object()
    world.remember()
    world.file.chmod(0o600)
    world.file = world.file.rename(world.file.with_name("moved"))

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


SMALL_FILES = {"a": b"alpha", "sub/b": b"beta", "sub/empty": b""}


def test_a_member_of_a_pack_is_referred_to_with_its_pack(world: World, tmp_path: Path) -> None:
    tree = world.sync_directory(tmp_path / "w" / "d", SMALL_FILES)
    (pack,) = tree.packs
    places = {entry.path: entry.at for entry in tree.entries}

    found = world.find(tmp_path / "w" / "d" / "sub" / "b")

    assert found.packs == (pack,)
    (entry,) = found.entries
    assert (entry.path, entry.at) == ("in", places["d/sub/b"])
    assert entry.digest == f"sha256:{sha256_hex(b'beta')}"


def test_a_whole_directory_of_them_costs_one_question(world: World, tmp_path: Path) -> None:
    contents = {**SMALL_FILES, "large": b"l" * 1024**2}
    tree = world.sync_directory(tmp_path / "w" / "d", contents)

    found = world.find(tmp_path / "w" / "d")

    assert sorted(entry.path for entry in found.entries) == [
        f"in/{name}" for name in sorted(contents)
    ]
    assert found.packs == tree.packs
    large = LAYOUT.job("job").attempt("pod").out("d/large")
    assert sorted(world.store.calls) == [("head", large), ("head", tree.packs[0].key)]


def test_a_member_that_changed_is_left_to_stage_in(world: World, tmp_path: Path) -> None:
    world.sync_directory(tmp_path / "w" / "d", SMALL_FILES)
    (tmp_path / "w" / "d" / "a").write_bytes(b"other")

    found = world.find(tmp_path / "w" / "d")

    assert sorted(entry.path for entry in found.entries) == ["in/sub/b", "in/sub/empty"]


@pytest.mark.parametrize("trouble", ["gone", "torn", "old", "never remembered"])
def test_a_pack_that_cannot_be_relied_upon_gives_no_member(
    world: World, tmp_path: Path, trouble: str
) -> None:
    world.age = timedelta(days=31 if trouble == "old" else 0)
    tree = world.sync_directory(tmp_path / "w" / "d", SMALL_FILES)
    key = tree.packs[0].key
    if trouble == "gone":
        world.store.delete(key)
    elif trouble == "torn":
        world.store.damage(key, b"short")
    elif trouble == "never remembered":
        world.cache._query("delete from synced_packs", ())

    assert world.find(tmp_path / "w" / "d") == Manifest()


def test_a_file_that_goes_away_meanwhile_is_left_to_stage_in(world: World) -> None:
    """It tells of it, or looks again: this is no place to fail."""
    world.store_object()
    world.remember()
    tree = scan("in", str(world.file))
    world.file.unlink()

    inputs = ChainedInputs(world.store, LAYOUT, world.cache, job_ttl_s=90 * DAY_S)

    assert inputs.find([tree]) == Manifest()

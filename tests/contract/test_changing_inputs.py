"""Inputs that change under stage-in, over every store: whatever key is there holds its bytes."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from memory_store import MemoryStore

from s3runner.errors import StagingError
from s3runner.staging.digest import PART, PartHasher, combine, part_size
from s3runner.staging.digest_cache import DigestCache
from s3runner.staging.layout import StoreLayout
from s3runner.staging.scan import scan
from s3runner.staging.upload import stage_in
from s3runner.store.meter import Meter
from s3runner.store.protocol import Chunks, ObjectStore, StoredObject
from s3runner.store.retrying import Retry, RetryingStore

LAYOUT = StoreLayout("runs")
SIZE = PART + 1000
"""Two parts: something can happen between them."""


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(os.urandom(SIZE))
    other.rename(path)


def rewrite(path: Path) -> None:
    """Change bytes of both parts in place, and set the times back."""
    before = path.stat()
    with path.open("r+b") as file:
        for position in (0, SIZE - 100):
            file.seek(position)
            file.write(os.urandom(50))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def delete(path: Path) -> None:
    path.unlink(missing_ok=True)


CHANGES: Mapping[str, Callable[[Path], None]] = {
    change.__name__: change for change in (grow, shrink, replace, rewrite, delete)
}


class Disturbed(RetryingStore):
    """A store during whose requests something happens to the file."""

    def __init__(self, store: ObjectStore, moment: str, act: Callable[[], None]) -> None:
        super().__init__(store, Retry(budget_s=5.0))
        self._moment = moment
        self._act = act

    def at(self, moment: str) -> None:
        if moment == self._moment:
            self._act()

    def head(self, key: str) -> StoredObject:
        self.at("asking")
        return super().head(key)

    def put(self, key: str, body: Callable[[], Chunks], *, size: int, part_size: int) -> None:
        def disturbed() -> Chunks:
            for number, chunk in enumerate(body()):
                yield chunk
                if number == 0:
                    self.at("sending")

        super().put(key, disturbed, size=size, part_size=part_size)

    def clock(self) -> int:
        """Be the digest cache's clock, at which hashing looks when it begins."""
        self.at("hashing")
        return time.time_ns()


def blobs_of(store: ObjectStore) -> list[str]:
    """Return the names of all blobs, after reading each back and hashing it anew."""
    names = []
    for item in store.list("runs/blobs/"):
        body = store.get(item.key, b"".join)
        hasher = PartHasher(part_size(len(body)))
        hasher.update(body)
        name = item.key.rsplit("/", 1)[1]
        assert combine(hasher.finish()) == f"sha256:{name}", "other bytes than its name says"
        names.append(name)
    return names


def stage(store: Disturbed, path: Path) -> list[str]:
    """Stage a file in; return the digests that the manifest names."""
    cache = DigestCache(None, store.clock)
    manifest = stage_in(store, LAYOUT, [scan("in", str(path))], cache, meter=Meter())
    return [entry.digest.removeprefix("sha256:") for entry in manifest.entries]


def once(act: Callable[[], None]) -> Callable[[], None]:
    """Return what acts at the first call only."""
    calls = itertools.count()
    return lambda: act() if next(calls) == 0 else None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.write_bytes(os.urandom(SIZE))
    return path


def digest_of(path: Path) -> str:
    body = path.read_bytes()
    hasher = PartHasher(part_size(len(body)))
    hasher.update(body)
    return combine(hasher.finish()).removeprefix("sha256:")


NOTICED = [
    *itertools.product(["hashing", "asking"], CHANGES),
    # the others leave the bytes alone that were hashed, and the file that is open
    *itertools.product(["sending"], ["shrink", "rewrite"]),
]


@pytest.mark.parametrize(("moment", "change"), [case for case in NOTICED if case[1] != "delete"])
def test_a_file_that_changes_once_is_staged_as_it_became(
    path: Path, change: str, moment: str
) -> None:
    store = MemoryStore()

    named = stage(Disturbed(store, moment, once(lambda: CHANGES[change](path))), path)

    assert named == [digest_of(path)]
    assert set(named) <= set(blobs_of(store))


@pytest.mark.parametrize(("moment", "change"), NOTICED)
def test_a_file_that_never_rests_is_refused_after_three_tries(
    path: Path, change: str, moment: str
) -> None:
    store = MemoryStore()

    with pytest.raises(StagingError) as caught:
        stage(Disturbed(store, moment, lambda: CHANGES[change](path)), path)

    (failure,) = caught.value.failures
    assert (failure.code, failure.source) == (21, str(path))
    if change == "delete":
        assert failure.reason == "no such file or directory"
    else:
        assert (failure.reason, failure.tries) == ("changed while it was staged", 3)
        assert failure.hint
    assert blobs_of(store) == []


@pytest.mark.parametrize("change", CHANGES)
def test_no_store_keeps_what_changed_while_it_was_sent(
    store: ObjectStore, path: Path, change: str
) -> None:
    """An upload that was given up half-way leaves no object, on any of them."""
    before = digest_of(path)
    disturbed = Disturbed(store, "sending", lambda: CHANGES[change](path))
    if ("sending", change) not in NOTICED:
        assert stage(disturbed, path) == [before]
        assert blobs_of(store) == [before]
        return
    with pytest.raises(StagingError) as caught:
        stage(disturbed, path)

    assert caught.value.code == 21
    assert blobs_of(store) == []

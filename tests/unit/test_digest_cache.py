"""The digest cache: believed only where a file cannot have changed unseen, and never needed."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from s3runner.staging.digest_cache import SETTLED_NS, DigestCache, SyncedFrom
from s3runner.staging.tree import Identity

NOW = 10**18
OLD = NOW - SETTLED_NS - 1
FILE = Identity(dev=os.makedev(8, 1), ino=7, size=3, mtime_ns=OLD, ctime_ns=OLD)
PARTS = ("aa", "bb")
ORIGIN = SyncedFrom("s3://b/k")
MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:50 / /mnt/nfs rw - nfs4 server:/export rw
23 21 0:51 / /mnt/bucket rw - fuse.s3fs s3fs rw
24 21 0:52 / /with\\040blank rw master:2 - tmpfs none rw
25 21 0:53 / /mnt/lustre rw - lustre server rw
"""


@pytest.fixture
def open_cache(tmp_path: Path) -> Iterator[Callable[[], DigestCache]]:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    caches: list[DigestCache] = []

    def open_another() -> DigestCache:
        cache = DigestCache(tmp_path / "new" / "c.db", lambda: NOW, tmp_path / "mountinfo")
        caches.append(cache)
        return cache

    yield open_another
    for cache in caches:
        cache.close()


@pytest.fixture
def cache(open_cache: Callable[[], DigestCache]) -> DigestCache:
    return open_cache()


def test_a_settled_file_is_remembered_by_every_process(
    open_cache: Callable[[], DigestCache],
) -> None:
    open_cache().put(FILE, PARTS, NOW)
    found = open_cache().get(FILE)
    assert found is not None
    assert found.parts == PARTS


@pytest.mark.parametrize("field", ["dev", "ino", "size", "mtime_ns", "ctime_ns"])
def test_a_file_that_differs_in_anything_is_unknown(cache: DigestCache, field: str) -> None:
    cache.put(FILE, PARTS, NOW)
    assert cache.get(replace(FILE, **{field: getattr(FILE, field) + 1})) is None


@pytest.mark.parametrize("field", ["mtime_ns", "ctime_ns"])
def test_a_file_younger_than_two_seconds_is_not_remembered(cache: DigestCache, field: str) -> None:
    young = replace(FILE, **{field: NOW - SETTLED_NS})
    assert cache.put(young, PARTS, NOW).parts == PARTS
    assert cache.get(young) is None


def test_a_file_from_the_future_is_not_remembered(cache: DigestCache) -> None:
    future = replace(FILE, mtime_ns=NOW * 2)
    cache.put(future, PARTS, NOW)
    assert cache.get(future) is None


@pytest.mark.parametrize(
    ("minor", "believed"),
    [(50, False), (51, False), (52, True), (53, False), (99, True)],
    ids=["nfs", "fuse", "tmpfs", "lustre", "a device that no mount names"],
)
def test_only_local_file_systems_are_believed(
    cache: DigestCache,
    minor: int,
    *,
    believed: bool,
) -> None:
    file = replace(FILE, dev=os.makedev(0, minor))
    cache.put(file, PARTS, NOW)
    cache.put_synced(replace(file, ino=8), PARTS, ORIGIN)
    assert (cache.get(file) is not None) is believed


def test_a_synced_output_is_hashed_at_first_use_and_keeps_its_origin(cache: DigestCache) -> None:
    cache.put_synced(FILE, PARTS, ORIGIN)
    assert cache.get(FILE) is None
    assert cache.put(FILE, PARTS, NOW).origin == ORIGIN
    found = cache.get(FILE)
    assert found is not None
    assert found.origin == ORIGIN


def test_a_synced_output_that_was_moved_is_hashed_and_keeps_its_origin(cache: DigestCache) -> None:
    """A rename or another mode changes the ctime alone; so does who writes and puts mtime back."""
    cache.put_synced(FILE, PARTS, ORIGIN)
    cache.put(FILE, PARTS, NOW)
    moved = replace(FILE, ctime_ns=OLD - 1)
    assert cache.origin_of(moved) == ORIGIN
    assert cache.get(moved) is None, "not believed before it was hashed again"
    assert cache.put(moved, PARTS, NOW).origin == ORIGIN
    assert cache.get(moved) is not None
    assert cache.put(replace(moved, ctime_ns=OLD - 2), ("cc",), NOW).origin is None


@pytest.mark.parametrize("field", ["dev", "ino", "size", "mtime_ns"])
def test_another_file_has_no_origin(cache: DigestCache, field: str) -> None:
    cache.put_synced(FILE, PARTS, ORIGIN)
    assert cache.origin_of(replace(FILE, **{field: getattr(FILE, field) + 1})) is None


def test_a_synced_output_that_changed_loses_its_origin(cache: DigestCache) -> None:
    cache.put_synced(FILE, PARTS, ORIGIN)
    assert cache.put(FILE, ("cc",), NOW).origin is None
    found = cache.get(FILE)
    assert found is not None
    assert (found.parts, found.origin) == (("cc",), None)


def test_a_synced_output_that_is_still_young_stays_racy(cache: DigestCache) -> None:
    young = replace(FILE, ctime_ns=NOW)
    cache.put_synced(young, PARTS, ORIGIN)
    assert cache.put(young, PARTS, NOW).origin == ORIGIN
    assert cache.get(young) is None
    assert cache.put(young, PARTS, NOW + 2 * SETTLED_NS).origin == ORIGIN
    assert cache.get(young) is not None


def test_what_turned_out_wrong_is_forgotten(cache: DigestCache) -> None:
    cache.put(FILE, PARTS, NOW)
    cache.forget(FILE)
    assert cache.get(FILE) is None


def test_a_changed_file_replaces_what_it_was(cache: DigestCache) -> None:
    cache.put(FILE, PARTS, NOW)
    changed = replace(FILE, mtime_ns=OLD - 5)
    cache.put(changed, ("cc",), NOW)
    assert cache.get(FILE) is None
    assert cache.get(changed) is not None


def test_inode_and_device_numbers_may_use_all_bits(cache: DigestCache) -> None:
    huge = replace(FILE, ino=2**64 - 1)
    cache.put(huge, PARTS, NOW)
    assert cache.get(huge) is not None


def test_a_pack_is_remembered_by_its_recipe(cache: DigestCache) -> None:
    cache.put_pack("recipe", PARTS)
    assert cache.get_pack("recipe") == PARTS
    assert cache.get_pack("another") is None


@pytest.mark.parametrize(
    "content", [b"this is no database" * 100, b"SQLite format 3\0" + b"x" * 900]
)
def test_a_damaged_cache_is_a_warning(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.db"
    path.write_bytes(content)
    cache = DigestCache(path, lambda: NOW)
    assert cache.put(FILE, PARTS, NOW).parts == PARTS
    assert cache.get(FILE) is None
    assert len(cache.warnings) == 1
    assert str(path) in cache.warnings[0]


def test_a_synced_pack_is_remembered_beside_its_members(
    open_cache: Callable[[], DigestCache],
) -> None:
    member = SyncedFrom("s3://b/pack", 512)
    open_cache().put_synced(FILE, PARTS, member)
    open_cache().put_synced_pack("s3://b/pack", 2048, PARTS)
    assert open_cache().origin_of(FILE) == member
    assert open_cache().get_synced_pack("s3://b/pack") == (2048, PARTS)
    assert open_cache().get_synced_pack("s3://b/another") is None


FIRST_VERSION = """
create table files (
    dev integer, ino integer, size integer, mtime_ns integer, ctime_ns integer,
    parts text not null, uri text, racy integer not null, primary key (dev, ino)
) without rowid;
create table packs (recipe text primary key, parts text not null) without rowid;
insert into packs values ('recipe', 'aa');
pragma user_version = 1;
"""


def test_what_an_older_version_remembered_is_dropped_once(
    tmp_path: Path, open_cache: Callable[[], DigestCache]
) -> None:
    path = tmp_path / "new" / "c.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.executescript(FIRST_VERSION)
    database.close()
    first, second = open_cache(), open_cache()
    assert first.get_pack("recipe") is None
    first.put_synced(FILE, PARTS, SyncedFrom("s3://b/k", 7))
    assert second.origin_of(FILE) == SyncedFrom("s3://b/k", 7)
    assert open_cache().origin_of(FILE) == SyncedFrom("s3://b/k", 7)
    assert (first.warnings, second.warnings) == ([], [])


def test_a_cache_of_a_newer_version_is_a_warning_and_left_as_it_is(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "c.db") as database:
        database.executescript("create table files (x); pragma user_version = 99;")
    database.close()
    cache = DigestCache(tmp_path / "c.db", lambda: NOW)
    assert cache.get(FILE) is None
    assert "version 99" in cache.warnings[0]
    with sqlite3.connect(tmp_path / "c.db") as database:
        assert database.execute("select * from files").fetchall() == []
        assert database.execute("pragma user_version").fetchone() == (99,)
    database.close()


def test_a_place_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = DigestCache(tmp_path / "file" / "c.db", lambda: NOW)
    assert cache.get(FILE) is None
    assert cache.warnings


def test_a_cache_that_breaks_while_in_use_is_one_warning(
    cache: DigestCache, open_cache: Callable[[], DigestCache]
) -> None:
    other = open_cache()
    assert other._database is not None
    other._database.execute("drop table files")
    assert cache.put(FILE, PARTS, NOW).parts == PARTS
    assert cache.get(FILE) is None
    assert len(cache.warnings) == 1


def test_no_path_remembers_nothing() -> None:
    cache = DigestCache(None, lambda: NOW)
    cache.put(FILE, PARTS, NOW)
    assert cache.get(FILE) is None
    assert not cache.warnings


def test_threads_and_connections_may_share_it(open_cache: Callable[[], DigestCache]) -> None:
    caches = [open_cache() for _ in range(3)]

    def work(number: int) -> None:
        for ino in range(20):
            caches[number % 3].put(replace(FILE, ino=100 * number + ino), PARTS, NOW)
        with caches[number % 3].together():
            for ino in range(20, 40):
                caches[number % 3].put(replace(FILE, ino=100 * number + ino), PARTS, NOW)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [cache.warnings for cache in caches] == [[], [], []]
    known = [caches[0].get(replace(FILE, ino=100 * n + i)) for n in range(6) for i in range(40)]
    assert all(known)

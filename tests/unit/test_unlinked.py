"""What is kept for links: gc leaves it alone, until none of its links is left."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from attempts import patient
from memory_store import MemoryControl, MemoryStore
from samples import STORE

from s3runner.errors import InputError, ObjectNotFoundError, SettingsError, SpecError
from s3runner.model import Outcome
from s3runner.runner.gc import Collector, Garbage
from s3runner.runner.linked_directories import Linked, find_links, give_ids, id_of
from s3runner.runner.sources import RemoteSources
from s3runner.staging.digest import PART, combine, part_count, part_range, sha256_hex
from s3runner.staging.expiry import DAY_S, Lifetimes
from s3runner.staging.keeping import Keeping, Kept
from s3runner.staging.layout import StoreLayout
from s3runner.staging.manifest import dump_document
from s3runner.staging.records import Commit
from s3runner.store.retrying import Retry

LAYOUT = StoreLayout(STORE.prefix)
TIMES = Lifetimes(blob_s=30 * DAY_S, job_s=90 * DAY_S)
BODY = b"b" * PART + b"of two parts"
BOUNDS = [part_range(len(BODY), index) for index in range(part_count(len(BODY)))]
PARTS = tuple(sha256_hex(BODY[start : start + size]) for start, size in BOUNDS)
BLOB = LAYOUT.blob(combine(PARTS))
JOB = LAYOUT.job("old")
OUT = JOB.attempt("pod").out("o")
HERE = frozenset({"here"})


class Bucket(MemoryStore):
    """A bucket whose objects can be of any age."""

    def __init__(self) -> None:
        super().__init__(STORE.bucket)

    def put_aged(self, key: str, body: bytes, days: float) -> None:
        self._objects()[key] = (body, self._world.clock() - timedelta(days=days))


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def keep_job(bucket: Bucket, directories: Iterable[str] | None, days: float = 100) -> None:
    """Let a job be there that is kept for links in directories, or for ever."""
    commit = Commit("head", Outcome.CANCELLED, None, None, 1)
    named = {} if directories is None else {"linked_in": sorted(directories)}
    for key, body in (
        (JOB.spec, b"{}"),
        (OUT, BODY),
        (JOB.commit, commit.dump()),
        (JOB.keep, dump_document(named)),
    ):
        bucket.put_aged(key, body, days)


def keep_blob(bucket: Bucket, *directories: str, days: float = 100) -> None:
    """Let a blob be there that is kept for links in directories."""
    bucket.put_aged(BLOB, BODY, days)
    for directory in directories:
        mark = LAYOUT.kept(combine(PARTS), directory)
        bucket.put_aged(mark, Kept(len(BODY), PARTS, directory).dump(), days)


def collect(bucket: Bucket, linked: Linked | None = None) -> Garbage:
    retry = Retry(1.0, sleep=lambda _: None)
    collector = Collector(
        patient(bucket), MemoryControl(bucket), STORE, TIMES, retry, linked or Linked()
    )
    dry = collector.collect(dry_run=True)
    done = collector.collect(dry_run=False)
    assert done == dry
    return done


@pytest.mark.parametrize(
    ("kept_for", "days", "linked", "goes"),
    [
        ({"here"}, 100, None, False),
        ({"here"}, 100, Linked(HERE, frozenset({"old"})), False),
        ({"here"}, 100, Linked(HERE, frozenset({"another"})), True),
        ({"here"}, 80, Linked(HERE), False),
        ({"there"}, 100, Linked(HERE), False),
        ({"here", "there"}, 100, Linked(HERE), False),
        ({"here", "there"}, 100, Linked(HERE | {"there"}), True),
        (None, 100, Linked(HERE), False),
    ],
    ids=[
        "nobody searched", "linked", "no link left", "too young for gc", "kept for another's",
        "only half was searched", "both were searched", "kept for ever",
    ],
)  # fmt: skip
def test_a_job_that_is_kept_for_links_goes_when_none_is_left(
    bucket: Bucket, kept_for: set[str] | None, days: float, linked: Linked | None, *, goes: bool
) -> None:
    """Directories that were not searched may have links."""
    keep_job(bucket, kept_for, days)

    assert [job.job_id for job in collect(bucket, linked).jobs] == (["old"] if goes else [])

    assert (OUT in bucket.objects) is not goes
    assert (bucket.objects == {}) is goes


@pytest.mark.parametrize(
    ("kept_for", "linked", "goes"),
    [
        ((), None, True),
        (("here",), None, False),
        (("here",), Linked(HERE, blobs=frozenset({BLOB.rpartition("/")[2]})), False),
        (("here",), Linked(HERE), True),
        (("there",), Linked(HERE), False),
        (("here", "there"), Linked(HERE), False),
    ],
    ids=["not kept", "nobody searched", "linked", "no link left", "another's", "and another's"],
)
def test_a_blob_that_is_kept_for_links_goes_when_none_is_left(
    bucket: Bucket, kept_for: tuple[str, ...], linked: Linked | None, *, goes: bool
) -> None:
    """Each directory keeps it for itself."""
    keep_blob(bucket, *kept_for)

    collect(bucket, linked)

    assert (BLOB in bucket.objects) is not goes
    assert (bucket.objects == {}) is goes


def test_a_mark_that_is_younger_than_the_search_stays(bucket: Bucket) -> None:
    """The link may have been made since the directories were searched."""
    keep_blob(bucket, "here", days=29)
    bucket.put_aged(BLOB, BODY, 100)

    collect(bucket, Linked(HERE))

    assert BLOB in bucket.objects
    assert LAYOUT.kept(combine(PARTS), "here") in bucket.objects


def test_a_kept_blob_is_an_input_with_its_digests(bucket: Bucket) -> None:
    """The pod checks every part of it, as of any file that was staged in."""
    keep_blob(bucket, "here")

    (entry,) = RemoteSources(patient(bucket), STORE).resolve("/in", STORE.uri(BLOB)).entries

    assert (entry.digest, entry.parts, entry.size) == (combine(PARTS), PARTS, len(BODY))
    assert entry.at is not None
    assert (entry.at.key, entry.at.etag) == (BLOB, None)


def test_a_blob_that_nobody_keeps_is_named_by_its_etag(bucket: Bucket) -> None:
    """Like any object that somebody names."""
    keep_blob(bucket)

    (entry,) = RemoteSources(patient(bucket), STORE).resolve("/in", STORE.uri(BLOB)).entries

    assert entry.digest == ""
    assert entry.at is not None
    assert entry.at.etag


def test_a_kept_blob_that_is_gone_is_a_missing_input(bucket: Bucket) -> None:
    """The link leads nowhere."""
    keep_blob(bucket, "here")
    del bucket._objects()[BLOB]

    with pytest.raises(ObjectNotFoundError) as caught:
        RemoteSources(patient(bucket), STORE).resolve("/in", STORE.uri(BLOB))

    assert caught.value.code == InputError.code


@pytest.mark.parametrize(
    "body",
    [b'{"protocol": 1}', Kept(len(BODY), PARTS[:1], "d").dump(), b"no JSON"],
    ids=["nothing in it", "digests of another size", "no JSON"],
)
def test_a_damaged_mark_is_an_error_with_its_name(bucket: Bucket, body: bytes) -> None:
    """What it says would be believed."""
    keep_blob(bucket, "here")
    mark = LAYOUT.kept(combine(PARTS), "here")
    bucket.put_aged(mark, body, 1)

    with pytest.raises(SpecError) as caught:
        RemoteSources(patient(bucket), STORE).resolve("/in", STORE.uri(BLOB))

    assert caught.value.source == STORE.uri(mark)


def test_a_blob_is_kept_only_while_gc_leaves_it_alone_anyway(bucket: Bucket) -> None:
    """One that gc may be about to delete is nothing to rely upon."""
    keeping = Keeping(patient(bucket), LAYOUT, TIMES)
    kept = Kept(len(BODY), PARTS, "here")

    assert not keeping.keep_blob(BLOB, kept)
    keep_blob(bucket, days=11)
    assert not keeping.keep_blob(BLOB, kept)
    keep_blob(bucket, days=9)
    assert keeping.keep_blob(BLOB, kept)


def test_a_directory_has_one_id_for_ever(tmp_path: Path) -> None:
    """Whoever gives it first; another directory has another."""
    first = give_ids([str(tmp_path / "a"), str(tmp_path / "b")])

    assert len(set(first.values())) == 2
    assert give_ids(first) == first
    assert id_of(str(tmp_path / "a")) == first[str(tmp_path / "a")]
    assert len(os.listdir(tmp_path / "a")) == 1


def test_links_are_found_wherever_they_are_below(tmp_path: Path) -> None:
    """By what they lead to, whether that is there or not, and whatever it is mounted as."""
    place = tmp_path / "objects"
    (ids,) = give_ids([str(place)]).values()
    (place / "0" / "1").mkdir(parents=True)
    (place / "0" / "1" / "dataset_1.dat").symlink_to(f"/mnt/bucket/{OUT}")
    (place / "0" / "dataset_2.dat").symlink_to(f"/old/mount/{BLOB}")
    directory = tmp_path / "mount" / LAYOUT.job("j2").attempt("u").out("d")
    directory.mkdir(parents=True)
    (place / "directory").symlink_to(directory)
    (place / "other").symlink_to("/elsewhere")

    found = find_links([str(place)])

    name = BLOB.rpartition("/")[2]
    assert found == Linked(frozenset({ids}), frozenset({"old", "j2"}), frozenset({name}))


def test_a_directory_without_an_id_is_not_searched(tmp_path: Path) -> None:
    """It may be where the real one is mounted on another day."""
    with pytest.raises(SettingsError, match="no links were made in it"):
        find_links([str(tmp_path)])


def test_links_are_found_behind_links_to_directories(tmp_path: Path) -> None:
    """An administrator may have put a part of the store elsewhere; a circle has an end."""
    store, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    (elsewhere / "0").mkdir(parents=True)
    store.mkdir()
    (store / "000").symlink_to(elsewhere)
    (elsewhere / "circle").symlink_to(store)
    (elsewhere / "0" / "dataset_1.dat").symlink_to("/mnt/b/runs/jobs/j1/attempts/p/out/o")
    give_ids([str(store)])

    assert find_links([str(store)]).jobs == {"j1"}

"""Results that are links into the mounted bucket: which, when, and what gc does with them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from attempts import JOB, finish, memory_store, open_attempt, put, store_job
from fake_cluster import FakeCluster, Heard, head_of
from memory_store import MemoryStore
from mounted_store import MountedStore
from samples import JOB_ID, STORE

from s3runner.errors import IntegrityError, StagingError
from s3runner.model import Entry, Kind, Output, StoredAt
from s3runner.runner.landing import Places
from s3runner.runner.linking import Links, NotShownError, check_seen, require_mount
from s3runner.runner.report import SyncResult
from s3runner.runner.sync import sync
from s3runner.staging.digest import PART, combine, listed, part_count, part_range, sha256_hex
from s3runner.staging.keeping import directories_in
from s3runner.worker.attempt import Attempt

LARGE = b"large" * (PART // 4)
FILES = {"o.txt": b"one", "large": LARGE, "d/inner": b"inner", "empty": b""}
TREE = {"/galaxy/objects": "tree-1"}


class Clock:
    """The store's, which can be put back."""

    behind = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(timezone.utc) - self.behind


@dataclass
class Done:
    """A job that has ended, and a mount that shows its results."""

    store: MemoryStore
    attempt: Attempt
    mount: MountedStore
    into: Path
    clock: Clock

    def sync(self, heard: Heard | None = None, **places: str) -> SyncResult:
        head = head_of(self.store, FakeCluster())
        links = Links(str(self.mount.directory), TREE, {**self.places(), **places}.get)
        spec, _ = head.read_spec(JOB_ID)
        own = Places(self.into, gather_absolute=False)
        return sync(head, spec, own, heard or Heard(), overwrite=False, links=links)

    def places(self) -> dict[str, str]:
        return {name: str(self.into / name) for name in FILES}

    def is_link(self, name: str) -> bool:
        return (self.into / name).is_symlink()


@pytest.fixture
def done(tmp_path: Path) -> Done:
    clock = Clock()
    store = memory_store(clock=clock)
    store_job(store, outputs=tuple(map(Output, ("o.txt", "large", "d", "empty"))))
    attempt = open_attempt(tmp_path, store)
    for name, body in FILES.items():
        path = Path(attempt.work) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    assert finish(attempt) == 0
    mount = MountedStore(tmp_path / "mount", store)
    mount.refresh()
    return Done(store, attempt, mount, tmp_path / "results", clock)


def test_results_are_links_and_no_byte_of_them_comes_here(done: Done) -> None:
    """What is empty, or inside of a directory, is a file all the same."""
    heard = Heard()

    result = done.sync(heard)

    names = ("o.txt", "large", "d/inner", "empty")
    assert [done.is_link(name) for name in names] == [True, True, False, False]
    assert {name: (done.into / name).read_bytes() for name in FILES} == FILES
    assert (done.into / "large").readlink() == done.mount.directory / done.attempt.keys.out("large")
    assert {item.path for item in result.outputs} >= {"o.txt", "large", "d/inner", "empty"}
    assert heard.phases["sync"].bytes < 1000


def test_a_link_may_have_another_place_than_the_file_in_the_job(done: Done, tmp_path: Path) -> None:
    """Galaxy has names of its own for what a tool leaves in its directory."""
    done.sync(large=str(tmp_path / "elsewhere" / "dataset"))

    assert (tmp_path / "elsewhere" / "dataset").read_bytes() == LARGE
    assert (tmp_path / "elsewhere" / "dataset").is_symlink()
    assert not (done.into / "large").exists()


def test_a_file_that_may_not_be_a_link_is_brought(done: Done) -> None:
    """It has no place among the links."""
    done.places = lambda: {"large": str(done.into / "large")}  # type: ignore[method-assign]

    done.sync()

    assert [done.is_link(name) for name in ("o.txt", "large")] == [False, True]


def test_the_job_is_kept_before_the_first_link(done: Done) -> None:
    """The other way round a crash would leave links that gc makes dangle."""
    done.mount.directory.rename(done.mount.directory.with_name("away"))

    with pytest.raises(StagingError):
        done.sync()

    assert directories_in(done.store.objects[JOB.keep], "keep") == frozenset({"tree-1"})
    assert not os.path.lexists(done.into / "large")


@pytest.mark.parametrize(
    ("keep", "is_link"),
    [
        ({"linked_in": ["tree-1"]}, True),
        ({"linked_in": ["tree-1", "tree-2"]}, True),
        ({}, True),
        ({"linked_in": ["tree-2"]}, False),
    ],
    ids=["ours", "more than ours", "for ever", "another's"],
)
def test_a_job_that_is_kept_for_others_has_no_links_of_ours(
    done: Done, keep: dict[str, object], *, is_link: bool
) -> None:
    """Whoever looks for links in their directories would let gc take it."""
    done.store.put_if_absent(JOB.keep, json.dumps({"protocol": 1, **keep}).encode())

    done.sync()

    assert done.is_link("large") is is_link
    assert (done.into / "large").read_bytes() == LARGE


def test_results_that_gc_may_be_at_already_are_brought(done: Done) -> None:
    """A third of the time is over: from now on nobody relies on the job."""
    done.clock.behind = timedelta(days=31)
    put(done.store, JOB.commit, done.store.objects[JOB.commit])
    done.clock.behind = timedelta()

    done.sync()

    assert not done.is_link("large")
    assert (done.into / "large").read_bytes() == LARGE
    assert JOB.keep not in done.store.objects


def shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def other(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [(Path.unlink, NotShownError), (shorter, NotShownError), (other, IntegrityError)],
)
def test_no_link_is_made_to_what_the_mount_does_not_show(
    done: Done, spoil: object, error: type[Exception]
) -> None:
    """Neither is one to another result; later everything is as if nothing had been."""
    spoil(done.mount.directory / done.attempt.keys.out("large"))  # type: ignore[operator]

    with pytest.raises(StagingError) as caught:
        done.sync()

    assert [type(failure) for failure in caught.value.failures] == [error]
    assert all(failure.temporary for failure in caught.value.failures)
    assert not os.path.lexists(done.into / "o.txt")
    done.mount.refresh()
    done.sync()
    assert done.is_link("o.txt")


def test_every_part_is_compared_when_all_are_asked_for(tmp_path: Path) -> None:
    """Of a result only the last; of what is about to lose its local file, all."""
    body = b"a" * PART + b"b"
    bounds = (part_range(len(body), index) for index in range(part_count(len(body))))
    parts = tuple(sha256_hex(body[start : start + size]) for start, size in bounds)
    at = StoredAt("k")
    entry = Entry("f", Kind.FILE, 0o644, 0, len(body), combine(parts), listed(parts), at=at)
    path = tmp_path / "f"
    path.write_bytes(b"x" + body[1:])

    check_seen(str(path), entry, [1])
    with pytest.raises(IntegrityError):
        check_seen(str(path), entry)


def test_a_bucket_is_seen_only_where_something_is_mounted_read_only(tmp_path: Path) -> None:
    """Somebody could write to the bucket through anything else."""
    for wrong in (tmp_path / "absent", tmp_path):
        with pytest.raises(NotShownError, match="the bucket is not seen in"):
            require_mount(str(wrong))


def test_uris_of_links_are_those_of_the_results(done: Done) -> None:
    """A later job may name them, as before."""
    result = done.sync()

    uris = {item.path: item.uri for item in result.outputs}
    assert uris["large"] == STORE.uri(done.attempt.keys.out("large"))

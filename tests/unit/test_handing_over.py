"""Local inputs that give way to links: what is in the store for good, and never a byte is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from attempts import put
from fake_cluster import FakeCluster, Heard, head_of
from memory_store import MemoryStore
from mounted_store import MountedStore
from samples import JOB_ID, STORE

from s3runner.model import Input, Job
from s3runner.runner.head import Head
from s3runner.runner.linking import Links
from s3runner.runner.runner import Runner
from s3runner.staging.digest import PART, part_count, part_range, sha256_hex
from s3runner.staging.digest_cache import DigestCache, SyncedFrom
from s3runner.staging.keeping import Kept
from s3runner.staging.layout import StoreLayout
from s3runner.staging.tree import Identity
from s3runner.store.protocol import Chunks

LAYOUT = StoreLayout(STORE.prefix)
BODY = b"d" * PART + b"of two parts"


class Store(MemoryStore):
    """A bucket, and something that happens when a blob in it is kept."""

    when_kept: Callable[[], object] = staticmethod(lambda: None)

    def put(self, key: str, body: Callable[[], Chunks], *, size: int, part_size: int) -> None:
        if key.startswith(LAYOUT.kept_prefix):
            self.when_kept()
        super().put(key, body, size=size, part_size=part_size)


@dataclass
class World:
    """A job whose input was staged in from a directory of datasets, and a mount of the store."""

    store: Store
    head: Head
    mount: MountedStore
    datasets: Path
    heard: Heard

    @property
    def dataset(self) -> Path:
        return self.datasets / "dataset_1.dat"

    @property
    def blob(self) -> str:
        (key,) = [key for key in self.store.objects if key.startswith(LAYOUT.blobs_prefix)]
        return key

    def submit(self, path: Path) -> None:
        job = Job("j", "true", inputs=(Input("/data/in", str(path)),))
        Runner(self.head).submit(job, Heard(), JOB_ID)
        self.mount.refresh()

    def hand_over(self) -> None:
        def place_of(path: str) -> str | None:
            return path if Path(path).parent == self.datasets else None

        links = Links(str(self.mount.directory), {str(self.datasets): "tree-1"}, place_of)
        Runner(self.head).hand_over(JOB_ID, links, self.heard)

    def stays(self, why: str) -> None:
        """Check that the dataset is what it was, and why."""
        before = Identity.of(self.dataset.lstat()), self.dataset.read_bytes()
        self.hand_over()
        assert (Identity.of(self.dataset.lstat()), self.dataset.read_bytes()) == before
        assert [why in text for text in self.heard.warnings] == [True]


@pytest.fixture
def world(tmp_path: Path) -> World:
    store = Store(STORE.bucket)
    cache = DigestCache(tmp_path / "cache.sqlite", time.time_ns)
    head = replace(head_of(store, FakeCluster()), cache=cache)
    mount = MountedStore(tmp_path / "mount", store)
    found = World(store, head, mount, tmp_path / "datasets", Heard())
    found.datasets.mkdir()
    found.dataset.write_bytes(BODY)
    found.submit(found.dataset)
    return found


def test_an_input_gives_way_to_a_link_to_its_blob(world: World) -> None:
    """The blob is kept, and how to check it is kept with it."""
    world.hand_over()

    assert world.dataset.readlink() == world.mount.directory / world.blob
    assert world.dataset.read_bytes() == BODY
    (mark,) = [key for key in world.store.objects if key.startswith(LAYOUT.kept_prefix)]
    kept = Kept.load(world.store.objects[mark], mark)
    assert (kept.size, len(kept.parts), kept.directory) == (len(BODY), 2, "tree-1")
    assert [path.name for path in world.datasets.iterdir()] == ["dataset_1.dat"]
    assert world.heard.warnings == []


def test_what_is_a_link_already_is_left_alone(world: World) -> None:
    """A second job with the same input has nothing to do."""
    world.hand_over()
    before = world.dataset.lstat()

    world.hand_over()

    assert world.dataset.lstat() == before
    assert world.heard.warnings == []


def test_what_lies_elsewhere_is_left_alone(world: World, tmp_path: Path) -> None:
    """A file that Galaxy only knows the path of is not Galaxy's."""
    elsewhere = world.dataset.rename(tmp_path / "dataset_1.dat")
    world.store._objects().clear()
    world.submit(elsewhere)

    world.hand_over()

    assert not elsewhere.is_symlink()
    assert world.heard.notes == world.heard.warnings == []


def with_another_name(world: World) -> None:
    os.link(world.dataset, world.datasets / "other")


def changed(world: World) -> None:
    world.dataset.write_bytes(b"x" + BODY[1:])


def grown(world: World) -> None:
    world.dataset.write_bytes(BODY + b"x")


def damaged_in_the_store(world: World) -> None:
    (world.mount.directory / world.blob).write_bytes(b"x" + BODY[1:])


def away(world: World) -> None:
    world.mount.directory.rename(world.mount.directory.with_name("away"))


def old(world: World) -> None:
    blob, body = world.blob, world.store.objects[world.blob]
    world.store._objects()[blob] = (body, datetime.now(timezone.utc) - timedelta(days=11))


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        (with_another_name, "hard links"),
        (changed, "not what was staged in any more"),
        (grown, "not what was staged in any more"),
        (damaged_in_the_store, "other bytes"),
        (away, "does not show it"),
        (old, "too old"),
    ],
)
def test_an_input_stays_where_there_is_any_doubt(
    world: World, happens: Callable[[World], None], why: str
) -> None:
    """It is told, and it is the only thing that happens."""
    happens(world)

    world.stays(why)


@pytest.mark.parametrize("happens", [changed, with_another_name])
def test_an_input_that_changes_while_it_is_read_back_stays(
    world: World, happens: Callable[[World], None]
) -> None:
    """The last look is right before the rename."""
    world.store.when_kept = lambda: happens(world)

    world.hand_over()

    assert not world.dataset.is_symlink()
    assert [text for text in world.heard.warnings if "changed meanwhile" in text]


def test_one_input_that_stays_keeps_no_other_from_its_link(world: World) -> None:
    """Each is looked at by itself."""
    other = world.datasets / "dataset_2.dat"
    other.write_bytes(b"o" * PART)
    world.store._objects().clear()
    inputs = tuple(Input(f"/data/{path.name}", str(path)) for path in (world.dataset, other))
    Runner(world.head).submit(Job("j", "true", inputs=inputs), Heard(), JOB_ID)
    world.mount.refresh()
    with_another_name(world)

    world.hand_over()

    assert [path.is_symlink() for path in (world.dataset, other)] == [False, True]


def test_an_output_of_another_job_is_linked_to_where_it_lies(world: World) -> None:
    """That job is kept then; nothing is stored twice."""
    world.store._objects().clear()
    other = LAYOUT.job("other")
    key = other.attempt("pod").out("out")
    for name, body in ((key, BODY), (other.commit, b"{}")):
        put(world.store, name, body)
    identity = Identity.of(world.dataset.stat())
    world.head.cache.put_synced(identity, _parts(), SyncedFrom(STORE.uri(key)))
    world.submit(world.dataset)
    assert not [name for name in world.store.objects if name.startswith(LAYOUT.blobs_prefix)]

    world.hand_over()

    assert world.dataset.readlink() == world.mount.directory / key
    assert other.keep in world.store.objects


def _parts() -> tuple[str, ...]:
    bounds = (part_range(len(BODY), index) for index in range(part_count(len(BODY))))
    return tuple(sha256_hex(BODY[start : start + size]) for start, size in bounds)

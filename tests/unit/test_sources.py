"""Inputs that are in S3 already, by URI."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from attempts import JOB, finish, memory_store, open_attempt, patient, put, store_job
from fake_cluster import FakeCluster, head_of
from memory_store import MemoryStore
from samples import STORE

from s3runner.errors import (
    InputError,
    S3RunnerError,
    SettingsError,
    SpecError,
    StoreAccessError,
    UnsupportedError,
)
from s3runner.model import Input, Job, Kind, Manifest, Output
from s3runner.runner.report import Silence
from s3runner.runner.sources import RemoteSources
from s3runner.runner.submission import submit
from s3runner.staging.download import materialise
from s3runner.store.meter import Meter
from s3runner.store.protocol import StoredObject

KEYS = JOB.attempt("pod-1")


def resolve(store: MemoryStore, uri: str, path: str = "in") -> Manifest:
    return RemoteSources(store, STORE).resolve(path, uri)


def laid_out(store: MemoryStore, manifest: Manifest, root: Path) -> Path:
    """Bring the tree here, as fetch does."""
    place = root / "laid out"
    place.mkdir()
    materialise(patient(store), manifest, lambda path: str(place / path), meter=Meter())
    return place


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """A store with the outputs of a job: a file, a directory, and one with a name of bytes."""
    store = memory_store()
    store_job(store, outputs=(Output("a b.txt"), Output("d"), Output("dd")))
    attempt = open_attempt(tmp_path, store)
    work = Path(attempt.work)
    (work / "d" / "deep").mkdir(parents=True)
    (work / "d" / "empty").mkdir()
    (work / "dd").mkdir()
    (work / "a b.txt").write_text("alpha")
    (work / "d" / "s#1").write_text("small")
    (work / "d" / "deep" / "t").write_text("tiny")
    (work / "d" / "link").symlink_to("deep/t")
    (work / "d" / "large").write_bytes(b"l" * (1024**2 + 1))
    (work / "dd" / "u").write_text("u")
    assert finish(attempt) == 0
    store.calls.clear()
    return store


def test_a_file_of_another_job_is_named_with_its_digest(store: MemoryStore) -> None:
    manifest = resolve(store, STORE.uri(KEYS.out("a b.txt")), "x/y")

    (entry,) = manifest.entries
    assert (entry.path, entry.kind, entry.size) == ("x/y", Kind.FILE, 5)
    assert entry.digest.startswith("sha256:")
    assert entry.at is not None
    assert (entry.at.key, entry.at.etag) == (KEYS.out("a b.txt"), None)
    assert manifest.packs == ()
    assert store.calls == [("get", KEYS.result), ("get", KEYS.manifest)]


def test_a_member_of_a_pack_brings_its_pack_and_nothing_else(
    tmp_path: Path, store: MemoryStore
) -> None:
    manifest = resolve(store, STORE.uri(KEYS.pack(0)) + "#d/s#1")

    (entry,) = manifest.entries
    assert (entry.path, entry.size) == ("in", 5)
    assert [pack.key for pack in manifest.packs] == [KEYS.pack(0)]
    assert (laid_out(store, manifest, tmp_path) / "in").read_text() == "small"


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_directory_comes_with_all_below_it_and_no_neighbour(
    tmp_path: Path, store: MemoryStore, slash: str
) -> None:
    manifest = resolve(store, STORE.uri(KEYS.out("d")) + slash)

    assert [entry.path for entry in manifest.entries] == [
        "in",
        "in/deep",
        "in/deep/t",
        "in/empty",
        "in/large",
        "in/link",
        "in/s#1",
    ]
    tree = laid_out(store, manifest, tmp_path) / "in"
    assert (tree / "link").read_text() == "tiny"
    assert (tree / "large").stat().st_size == 1024**2 + 1
    assert (tree / "empty").is_dir()


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param(STORE.uri(KEYS.out("gone")), id="no such output"),
        pytest.param(STORE.uri(KEYS.pack(0)) + "#d/gone", id="no such member"),
        pytest.param(STORE.uri(KEYS.pack(9)) + "#d/s#1", id="a member of another pack"),
        pytest.param(STORE.uri(KEYS.pack(0)), id="a pack without a member"),
        pytest.param(STORE.uri(JOB.attempt("gone").out("x")), id="no such attempt"),
        pytest.param("s3://runs/data/gone", id="no such object"),
        pytest.param("s3://runs/data/gone/", id="nothing below"),
    ],
)
def test_what_is_not_there_is_an_input_error_that_names_the_uri(
    store: MemoryStore, uri: str
) -> None:
    with pytest.raises(InputError) as raised:
        resolve(store, uri)

    assert raised.value.source == uri
    assert raised.value.target == "in"
    assert raised.value.code == 21


def test_a_damaged_manifest_is_no_missing_input(store: MemoryStore) -> None:
    store.damage(KEYS.manifest, b"{")

    with pytest.raises(SpecError):
        resolve(store, STORE.uri(KEYS.out("d")))


def test_a_denied_store_is_no_missing_input() -> None:
    store = memory_store(fail={("head", 1): StoreAccessError("denied")})

    with pytest.raises(StoreAccessError):
        resolve(store, "s3://runs/data/x")


def test_a_foreign_file_is_named_by_size_and_etag() -> None:
    store = memory_store()
    put(store, "data/x#1", b"four")

    (entry,) = resolve(store, "s3://runs/data/x#1").entries

    assert (entry.path, entry.size, entry.digest, entry.mode) == ("in", 4, "", 0o644)
    assert entry.at is not None
    assert (entry.at.key, entry.at.bucket) == ("data/x#1", "runs")
    assert entry.at.etag == store.head("data/x#1").etag
    assert entry.mtime_ns == int(store.head("data/x#1").modified.timestamp()) * 10**9


def test_another_bucket_is_asked_for_what_lies_in_it() -> None:
    store = memory_store(buckets=["refs"])
    store._world.buckets["refs"]["hg/genome.fa"] = (b"ACGT", datetime.now(timezone.utc))

    (entry,) = resolve(store, "s3://refs/hg/genome.fa").entries

    assert entry.at is not None
    assert (entry.at.bucket, entry.at.key) == ("refs", "hg/genome.fa")


@pytest.mark.parametrize("uri", ["s3://runs/data/set", "s3://runs/data/set/"])
def test_a_foreign_prefix_is_a_directory(tmp_path: Path, uri: str) -> None:
    store = memory_store()
    for name in ("a", "b/c/d", "b-", "b/e"):
        put(store, f"data/set/{name}", name.encode())
    put(store, "data/set2", b"a neighbour")

    manifest = resolve(store, uri)

    assert [entry.path for entry in manifest.entries if entry.kind is Kind.DIR] == [
        "in",
        "in/b",
        "in/b/c",
    ]
    tree = laid_out(store, manifest, tmp_path) / "in"
    assert (tree / "b" / "c" / "d").read_text() == "b/c/d"
    assert sorted(item.name for item in tree.iterdir()) == ["a", "b", "b-"]


def test_an_object_comes_before_a_prefix_of_the_same_name() -> None:
    store = memory_store()
    put(store, "data/x", b"object")
    put(store, "data/x/y", b"below")

    assert [entry.path for entry in resolve(store, "s3://runs/data/x").entries] == ["in"]
    assert len(resolve(store, "s3://runs/data/x/").entries) == 2


@pytest.mark.parametrize("uri", ["s3://refs", "s3://refs/", "s3://refs//"])
def test_a_whole_bucket_is_refused(uri: str) -> None:
    store = memory_store(buckets=["refs"])

    with pytest.raises(UnsupportedError, match="whole bucket"):
        resolve(store, uri)

    assert store.calls == []


class Strange(MemoryStore):
    """A store that lists keys which its client cannot name otherwise."""

    strange: tuple[str, ...] = ()

    def list(self, prefix: str) -> Iterator[StoredObject]:
        yield from super().list(prefix)
        for key in self.strange:
            yield StoredObject(key, 0, '"e"', datetime.now(timezone.utc))


def test_a_consoles_folders_are_no_files() -> None:
    """An empty object `x/` is listed as `x`, and there is no object of that name."""
    store = Strange("runs")
    put(store, "data/set/sub/a", b"a")
    put(store, "data/set/empty", b"")
    store.strange = ("data/set", "data/set/sub", "data/set/other")

    found = {entry.path: entry.kind for entry in resolve(store, "s3://runs/data/set/").entries}

    assert found == {
        "in": Kind.DIR,
        "in/sub": Kind.DIR,
        "in/sub/a": Kind.FILE,
        "in/empty": Kind.FILE,
    }


@pytest.mark.parametrize("name", ["../x", "a//b", "./x", "a/../../x", "a/.", "/x"])
def test_a_key_that_no_tree_can_hold_is_refused_and_nothing_goes_up(name: str) -> None:
    class Named(Strange):
        def head(self, key: str) -> StoredObject:
            if key in self.strange:
                return StoredObject(key, 1, '"e"', datetime.now(timezone.utc))
            return super().head(key)

    store = Named(STORE.bucket)
    put(store, "data/set/ok", b"ok")
    store.strange = (f"data/set/{name}",)
    wanted = Job(name="j", command="x", inputs=(Input("in", "s3://runs/data/set/"),))
    before = store.objects

    with pytest.raises(S3RunnerError) as raised:
        submit(head_of(store, FakeCluster()), wanted, Silence())

    assert raised.value.code in (20, 25)
    assert store.objects == before


@pytest.mark.parametrize("uri", ["file:///x", "memory://x", "s3:///x", "htps://x/y"])
def test_what_no_url_of_an_input_can_be_is_refused(uri: str) -> None:
    with pytest.raises(SettingsError):
        resolve(memory_store(), uri)


def test_two_inputs_in_one_place_are_refused() -> None:
    store = memory_store()
    put(store, "data/x", b"x")
    inputs = (Input("in", "s3://runs/data/x"), Input("in/below", "s3://runs/data/x"))

    with pytest.raises(SettingsError):
        submit(head_of(store, FakeCluster()), Job("j", "x", inputs=inputs), Silence())

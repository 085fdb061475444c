"""The staging hops over every store: what goes in one end comes out at the other, identical."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile import NAMES, plant, snapshot

from s3runner.errors import ObjectChangedError, ObjectNotFoundError, StagingError
from s3runner.model import Entry, Kind, Manifest, Output, StoredAt
from s3runner.staging.digest import PART, parts_of, sha256_hex
from s3runner.staging.digest_cache import DigestCache
from s3runner.staging.download import materialise
from s3runner.staging.layout import StoreLayout
from s3runner.staging.manifest import dump_document, dump_manifest, load_manifest, parse_document
from s3runner.staging.scan import scan, scan_outputs
from s3runner.staging.upload import put_pack, stage_in, stage_out, survey
from s3runner.store.meter import Meter
from s3runner.store.protocol import ObjectStore

LAYOUT = StoreLayout("runs")
ATTEMPT = LAYOUT.job("job").attempt("uid")
LARGE = os.urandom(2 * PART + 12_345)
NO_CACHE = DigestCache(None, time.time_ns)


def _place(root: Path) -> Callable[[str], str]:
    return lambda path: f"{root}/{path}"


def _through_json(manifest: Manifest) -> Manifest:
    body = dump_document(dump_manifest(manifest))
    return load_manifest(parse_document(body, "here"), "here")


def _keys(store: ObjectStore) -> set[str]:
    return {stored.key for stored in store.list("runs/")}


def _put(store: ObjectStore, key: str, body: bytes) -> None:
    store.put(key, lambda: iter((body,)), size=len(body), part_size=len(body))


def test_the_hostile_tree_goes_in_and_comes_out_identical(
    store: ObjectStore, tmp_path: Path
) -> None:
    root = plant(tmp_path / "tree", large=LARGE)
    before = snapshot(root)
    sent, got = Meter(), Meter()
    manifest = stage_in(store, LAYOUT, [scan("in/tree", str(root))], NO_CACHE, meter=sent)
    materialise(store, _through_json(manifest), _place(tmp_path / "pod"), meter=got)
    assert snapshot(tmp_path / "pod" / "in" / "tree") == before
    assert snapshot(root) == before
    files = [seen for seen in before.values() if seen.kind == oct(0o100000)]
    assert sent.phase.bytes == got.phase.bytes == sum(len(seen.content) for seen in files)
    assert sent.phase.files == got.phase.files == len(files)
    assert len(_keys(store)) == 3, "a pack, the large file and the one that is not small"


def test_the_hostile_tree_is_brought_out_and_synced_identical(
    store: ObjectStore, tmp_path: Path
) -> None:
    root = plant(tmp_path / "work", large=LARGE).parent
    found = scan_outputs([Output("work")], str(root), [str(root)])
    meter = Meter()
    manifest = stage_out(store, ATTEMPT, found, declared_files={"work"}, meter=meter)
    materialise(store, _through_json(manifest), _place(tmp_path / "head"), meter=Meter())
    assert snapshot(tmp_path / "head" / "work") == snapshot(root / "work")
    assert all(key.startswith(f"{ATTEMPT.root}/") for key in _keys(store))


def test_declared_outputs_with_hostile_names_are_objects_of_their_own(
    store: ObjectStore, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    names = [os.fsdecode(name) for name in NAMES.values()]
    for name in names:
        (work / name).write_bytes(os.fsencode(name))
    found = scan_outputs([Output(name) for name in names], str(work), [str(work)])
    manifest = stage_out(store, ATTEMPT, found, declared_files=set(names), meter=Meter())
    assert _keys(store) == {ATTEMPT.out(name) for name in names}
    (tmp_path / "head").mkdir()
    materialise(store, _through_json(manifest), _place(tmp_path / "head"), meter=Meter())
    synced, local = snapshot(tmp_path / "head"), snapshot(work)
    assert {**synced, b".": None} == {**local, b".": None}


def test_a_second_stage_in_sends_nothing(store: ObjectStore, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(300):
        (root / str(number)).write_bytes(os.urandom(500))
    (root / "larger").write_bytes(LARGE)
    trees = [scan("in", str(root))]
    assert [there for _, there, _ in survey(store, LAYOUT, trees, NO_CACHE)] == [False, False]
    first = stage_in(store, LAYOUT, trees, NO_CACHE, meter=Meter())
    objects = {stored.key: stored.modified for stored in store.list("runs/")}
    meter = Meter()
    assert stage_in(store, LAYOUT, trees, NO_CACHE, meter=meter) == first
    assert (meter.phase.bytes, meter.phase.files) == (0, 0)
    assert {stored.key: stored.modified for stored in store.list("runs/")} == objects
    assert [there for _, there, _ in survey(store, LAYOUT, trees, NO_CACHE)] == [True, True]


def test_a_pack_of_streams_of_any_size_comes_back(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(LARGE)
    (tmp_path / "stderr").write_bytes(b"")
    (tmp_path / "exit_code").write_text("0 - -")
    members = [(f".s3runner/{name}", str(tmp_path / name)) for name in ("stdout", "stderr")]
    members.append((".s3runner/exit_code", str(tmp_path / "exit_code")))
    pack, entries = put_pack(store, ATTEMPT.rest, members, meter=Meter())
    manifest = _through_json(Manifest(entries, (pack,)))
    materialise(store, manifest, _place(tmp_path / "head"), meter=Meter())
    for name in ("stdout", "stderr", "exit_code"):
        assert (tmp_path / "head" / ".s3runner" / name).read_bytes() == (
            tmp_path / name
        ).read_bytes()


@pytest.mark.parametrize("content", [b"abc", LARGE], ids=["one part", "three parts"])
def test_a_foreign_object_is_hashed_as_it_arrives(
    store: ObjectStore, tmp_path: Path, content: bytes
) -> None:
    _put(store, "elsewhere/object", content)
    etag = store.head("elsewhere/object").etag
    at = StoredAt("elsewhere/object", bucket=store.bucket, etag=etag)
    entry = Entry("in/x", Kind.FILE, 0o644, 0, len(content), at=at)
    manifest = stage_in(store, LAYOUT, [], NO_CACHE, meter=Meter(), foreign=Manifest((entry,)))
    read = materialise(store, _through_json(manifest), _place(tmp_path), meter=Meter())
    assert (tmp_path / "in/x").read_bytes() == content
    parts = [content[start : start + PART] for start in range(0, len(content), PART)]
    assert parts_of(read.entries[0]) == tuple(sha256_hex(part) for part in parts)
    assert _through_json(read) == read


def test_a_foreign_object_that_changed_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    _put(store, "elsewhere/object", b"abc")
    at = StoredAt("elsewhere/object", etag=store.head("elsewhere/object").etag)
    _put(store, "elsewhere/object", b"xyz")
    manifest = Manifest((Entry("x", Kind.FILE, 0o644, 0, 3, at=at),))
    with pytest.raises(StagingError) as caught:
        materialise(store, manifest, _place(tmp_path), meter=Meter())
    assert isinstance(caught.value.failures[0], ObjectChangedError)
    assert list(tmp_path.iterdir()) == []


def test_every_missing_blob_is_named(store: ObjectStore, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("a", "b", "c"):
        (root / name).write_bytes(name.encode() * 1024**2)
    manifest = stage_in(store, LAYOUT, [scan("in", str(root))], NO_CACHE, meter=Meter())
    lost = [entry for entry in manifest.entries if entry.path in ("in/a", "in/c")]
    for entry in lost:
        assert entry.at is not None
        store.delete(entry.at.key)
    with pytest.raises(StagingError) as caught:
        materialise(store, manifest, _place(tmp_path / "pod"), meter=Meter())
    assert {failure.target for failure in caught.value.failures} == {
        f"{tmp_path}/pod/in/a",
        f"{tmp_path}/pod/in/c",
    }
    assert all(isinstance(failure, ObjectNotFoundError) for failure in caught.value.failures)
    assert caught.value.code == 21
    assert [left.name for left in (tmp_path / "pod" / "in").iterdir()] == ["b"]


def test_a_digest_remembered_wrongly_never_names_an_object(
    store: ObjectStore, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    tree = scan("in", str(path))
    cache = DigestCache(tmp_path / "c.db", time.time_ns)
    file = tree.files["in"]
    first = sha256_hex(LARGE[:PART])
    # right about the first part only: as if the file changed after hashing, without a trace
    cache._store(file.identity, (first, first, first), None, racy=False)
    manifest = stage_in(store, LAYOUT, [tree], cache, meter=Meter())
    assert _keys(store) == {entry.at.key for entry in manifest.entries if entry.at}
    [entry] = manifest.entries
    assert parts_of(entry) == tuple(
        sha256_hex(LARGE[start : start + PART]) for start in range(0, len(LARGE), PART)
    )
    cache.close()
    materialise(store, manifest, _place(tmp_path / "pod"), meter=Meter())
    assert (tmp_path / "pod" / "in").read_bytes() == LARGE

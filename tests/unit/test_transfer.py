"""What uploads and downloads do when files change, disks fill, and stores lie."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hostile import OLD_NS, plant, snapshot
from memory_store import MemoryStore

from s3runner.errors import (
    InputError,
    IntegrityError,
    LocalAccessError,
    NoSpaceError,
    ObjectNotFoundError,
    OutputConflictError,
    S3RunnerError,
    SettingsError,
    StagingError,
    StoreAccessError,
    UnsupportedError,
)
from s3runner.model import Entry, Kind, Manifest, Output, StoredAt
from s3runner.staging.compare import differences
from s3runner.staging.digest import PART, combine, part_count, sha256_hex
from s3runner.staging.digest_cache import Cached, DigestCache
from s3runner.staging.download import materialise
from s3runner.staging.layout import StoreLayout
from s3runner.staging.manifest import dump_manifest, load_manifest
from s3runner.staging.parallel import ByteBudget, run_all
from s3runner.staging.placing import local_error
from s3runner.staging.plan import MANY_MATCHES
from s3runner.staging.scan import scan, scan_outputs
from s3runner.staging.tree import Identity
from s3runner.staging.upload import put_pack, stage_in, stage_out
from s3runner.store.meter import Meter
from s3runner.store.protocol import Chunks, ObjectStore, StoredObject
from s3runner.store.retrying import Retry, RetryingStore

LAYOUT = StoreLayout("runs")
ATTEMPT = LAYOUT.job("job").attempt("uid")
NO_CACHE = DigestCache(None, time.time_ns)


class Interfering(MemoryStore):
    """A store that lets someone act before each head and each put."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act = act

    def head(self, key: str) -> StoredObject:
        self._act()
        return super().head(key)

    def put(self, key: str, body: Callable[[], Chunks], *, size: int, part_size: int) -> None:
        self._act()
        super().put(key, body, size=size, part_size=part_size)


def _place(root: Path) -> Callable[[str], str]:
    return lambda path: f"{root}/{path}"


def _stage_in(store: MemoryStore, path: Path, name: str = "in") -> Manifest:
    return stage_in(store, LAYOUT, [scan(name, str(path))], NO_CACHE, meter=Meter())


def _get(store: MemoryStore, manifest: Manifest, root: Path) -> None:
    materialise(store, manifest, _place(root), meter=Meter())


def _failures(store: MemoryStore, manifest: Manifest, root: Path) -> tuple[S3RunnerError, ...]:
    with pytest.raises(StagingError) as caught:
        _get(store, manifest, root)
    return caught.value.failures


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(5):
        (root / f"{number}.txt").write_bytes(b"%d" % number * 1000)
    (root / "large").write_bytes(os.urandom(1024**2 + 5))
    return root


@pytest.fixture
def masked() -> Iterator[Callable[[int], object]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_permission_bits_are_exact_whatever_the_umask(
    tmp_path: Path, masked: Callable[[int], object], umask: int
) -> None:
    root = plant(tmp_path / "tree")
    (tmp_path / "pod").mkdir()
    store = MemoryStore()
    manifest = _stage_in(store, root)
    masked(umask)
    _get(store, manifest, tmp_path / "pod")
    masked(0o022)
    assert snapshot(tmp_path / "pod" / "in") == snapshot(root)


@pytest.mark.parametrize(
    ("mode", "exact", "widened"),
    [(0o600, 0o600, 0o644), (0o000, 0o400, 0o444), (0o700, 0o700, 0o755), (0o777, 0o777, 0o777)],
)
def test_what_nobody_may_read_becomes_readable_and_widened_to_everyone(
    tmp_path: Path, mode: int, exact: int, widened: int
) -> None:
    store = MemoryStore()
    (tmp_path / "f").write_text("x")
    manifest = _stage_in(store, tmp_path / "f")
    manifest = Manifest((Entry("d", Kind.DIR, mode, 0), replace(manifest.entries[0], mode=mode)))
    _get(store, manifest, tmp_path / "exact")
    materialise(store, manifest, _place(tmp_path / "wide"), meter=Meter(), widen=True)
    assert (tmp_path / "exact" / "in").stat().st_mode & 0o777 == exact
    assert (tmp_path / "wide" / "in").stat().st_mode & 0o777 == widened
    assert (tmp_path / "exact" / "d").stat().st_mode & 0o777 == mode | 0o500
    assert (tmp_path / "wide" / "d").stat().st_mode & 0o777 == mode | 0o755


@pytest.mark.parametrize("name", ["in/large", "in/3.txt"])
def test_damaged_bytes_never_get_a_name(tmp_path: Path, small_tree: Path, name: str) -> None:
    store = MemoryStore()
    manifest = _stage_in(store, small_tree)
    at = next(entry.at for entry in manifest.entries if entry.path == name)
    assert at is not None
    body = bytearray(store.objects[at.key])
    body[(at.offset or 0) + 7] ^= 1
    store.damage(at.key, bytes(body))
    [failure] = _failures(store, manifest, tmp_path / "pod")
    assert isinstance(failure, IntegrityError)
    assert failure.source == f"s3://memory/{at.key}"
    left = {path.name for path in (tmp_path / "pod" / "in").iterdir()}
    assert not left & {name.removeprefix("in/")}
    assert not any(other.startswith(".s3runner-") for other in left)


def test_a_member_is_checked_against_its_own_digest_too(tmp_path: Path, small_tree: Path) -> None:
    store = MemoryStore()
    manifest = _stage_in(store, small_tree)
    entries = list(manifest.entries)
    index = next(number for number, entry in enumerate(entries) if entry.path == "in/3.txt")
    entries[index] = replace(entries[index], digest=entries[index - 1].digest)
    [failure] = _failures(store, replace(manifest, entries=tuple(entries)), tmp_path / "pod")
    assert isinstance(failure, IntegrityError)
    assert failure.target.endswith("in/3.txt")
    assert sorted(left.name for left in (tmp_path / "pod" / "in").iterdir()) == [
        "0.txt",
        "1.txt",
        "2.txt",
        "4.txt",
        "large",
    ]


def test_a_file_that_changes_after_hashing_is_staged_as_it_became(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("before")
    changes = iter(["after!"])

    def change() -> None:
        for text in changes:
            path.write_text(text)

    store = Interfering(change)
    manifest = _stage_in(store, path)
    assert list(store.objects.values()) == [b"after!"]
    _get(store, manifest, tmp_path / "pod")
    assert (tmp_path / "pod" / "in").read_text() == "after!"


@pytest.mark.parametrize("packed", [True, False])
def test_a_file_that_never_rests_is_an_input_failure(small_tree: Path, *, packed: bool) -> None:
    path = small_tree / "3.txt" if packed else small_tree / "large"

    def touch() -> None:
        with path.open("ab") as out:
            out.write(b"more")

    store = Interfering(touch)
    with pytest.raises(StagingError) as caught:
        _stage_in(store, small_tree)
    [failure] = caught.value.failures
    assert isinstance(failure, InputError)
    assert (failure.source, failure.tries, caught.value.code) == (str(path), 3, 21)
    assert not any(b"more" in body for body in store.objects.values())


def test_content_that_changed_behind_its_times_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("before")
    cache = DigestCache(tmp_path / "c.db", lambda: time.time_ns() + 10**10)
    store = MemoryStore()
    trees = [scan("in", str(path))]
    stage_in(MemoryStore(), LAYOUT, trees, cache, meter=Meter())
    cached = cache.get(trees[0].files["in"].identity)
    assert cached is not None
    path.write_text("after!")
    # the same times as far as the cache can see
    trees = [scan("in", str(path))]
    cache._store(trees[0].files["in"].identity, cached.parts, None, racy=False)
    stage_in(store, LAYOUT, trees, cache, meter=Meter())
    assert list(store.objects.values()) == [b"after!"]
    cache.close()


def test_a_packed_file_that_changed_behind_its_times_is_found_among_the_others(
    tmp_path: Path, small_tree: Path
) -> None:
    cache = DigestCache(tmp_path / "c.db", lambda: time.time_ns() + 10**10)
    trees = [scan("in", str(small_tree))]
    stage_in(MemoryStore(), LAYOUT, trees, cache, meter=Meter())
    before = cache.get(trees[0].files["in/1.txt"].identity)
    assert before is not None
    (small_tree / "1.txt").write_bytes(b"x" * 1000)
    trees = [scan("in", str(small_tree))]
    cache._store(trees[0].files["in/1.txt"].identity, before.parts, None, racy=False)
    store = MemoryStore()
    manifest = stage_in(store, LAYOUT, trees, cache, meter=Meter())
    cache.close()
    _get(store, manifest, tmp_path / "pod")
    assert snapshot(tmp_path / "pod" / "in") == snapshot(small_tree)


class Stubborn(DigestCache):
    """A cache that never learns: what it was told first it says for ever."""

    def __init__(self, identity: Identity, parts: tuple[str, ...]) -> None:
        super().__init__(None, time.time_ns)
        self._known: dict[Identity, Cached] = {identity: Cached(parts)}

    def get(self, identity: Identity) -> Cached | None:
        return self._known.get(identity)

    def put(self, identity: Identity, parts: Sequence[str], hashing_began_ns: int) -> Cached:  # noqa: ARG002 # it never looks
        return self._known.setdefault(identity, Cached(tuple(parts)))

    def get_pack(self, recipe: str) -> tuple[str, ...] | None:  # noqa: ARG002 # it never looks
        return ("0" * 64,)


def test_the_file_that_does_not_fit_its_digest_is_named(small_tree: Path) -> None:
    trees = [scan("in", str(small_tree))]
    files = trees[0].files
    right = {path: (sha256_hex(Path(file.path).read_bytes()),) for path, file in files.items()}
    cache = Stubborn(files["in/1.txt"].identity, ("1" * 64,))
    for path, file in files.items():
        cache.put(file.identity, right[path], 0)
    store = MemoryStore()
    with pytest.raises(StagingError) as caught:
        stage_in(store, LAYOUT, trees, cache, meter=Meter())
    assert [failure.source for failure in caught.value.failures] == [str(small_tree / "1.txt")]
    assert not any(b"1" * 1000 in body for body in store.objects.values())


def test_a_large_file_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    digest = combine(["0" * 64] * 30)
    parts = ("0" * 64,) * 30
    at = StoredAt("gone")
    entry = Entry("large", Kind.FILE, 0o644, 0, 30 * PART, digest, parts, at=at)
    [failure] = _failures(MemoryStore(), Manifest((entry,)), tmp_path)
    assert isinstance(failure, ObjectNotFoundError)


@pytest.fixture
def large_output(tmp_path: Path) -> Path:
    path = tmp_path / "work" / "out"
    path.parent.mkdir()
    path.write_bytes(os.urandom(PART + 5))
    return path


def _send(store: ObjectStore, path: Path, meter: Meter, *, packed: bool) -> Manifest:
    """Bring one output out, as an object of its own or in a pack; return the checked manifest."""
    if packed:
        pack, entries = put_pack(store, ATTEMPT.rest, [("out", str(path))], meter=meter)
        manifest = Manifest(entries, (pack,))
    else:
        found = scan_outputs([Output("out")], str(path.parent), [str(path.parent)])
        manifest = stage_out(store, ATTEMPT, found, declared_files={"out"}, meter=meter)
    assert load_manifest(dump_manifest(manifest), "here") == manifest
    return manifest


@pytest.mark.parametrize("packed", [True, False])
def test_an_upload_that_is_sent_again_is_hashed_and_counted_once(
    tmp_path: Path, large_output: Path, *, packed: bool
) -> None:
    lossy = MemoryStore(lose={("put", 1), ("put", 2)})
    meter = Meter()
    store = RetryingStore(lossy, Retry(sleep=lambda _: None))
    manifest = _send(store, large_output, meter, packed=packed)
    assert [call for call, _ in lossy.calls] == ["put"] * 3
    assert (meter.phase.bytes, meter.phase.files) == (PART + 5, 1)
    _get(lossy, manifest, tmp_path / "head")
    assert (tmp_path / "head" / "out").read_bytes() == large_output.read_bytes()


@pytest.mark.parametrize("packed", [True, False])
def test_an_output_that_changes_between_its_parts_is_sent_again(
    tmp_path: Path, large_output: Path, *, packed: bool
) -> None:
    other = os.urandom(PART + 5)
    changes = iter([other])

    class Midway(MemoryStore):
        def put(self, key: str, body: Callable[[], Chunks], *, size: int, part_size: int) -> None:
            def interrupted() -> Chunks:
                for chunk in body():
                    yield chunk
                    for content in changes:
                        large_output.write_bytes(content)

            super().put(key, interrupted, size=size, part_size=part_size)

    store = Midway()
    _get(store, _send(store, large_output, Meter(), packed=packed), tmp_path / "head")
    assert (tmp_path / "head" / "out").read_bytes() == other


def test_a_cached_tree_is_staged_without_reading_it(small_tree: Path, tmp_path: Path) -> None:
    cache = DigestCache(tmp_path / "c.db", lambda: time.time_ns() + 10**10)
    store = MemoryStore()
    trees = [scan("in", str(small_tree))]
    manifest = stage_in(store, LAYOUT, trees, cache, meter=Meter())
    hidden = small_tree.rename(tmp_path / "hidden")
    assert stage_in(store, LAYOUT, trees, cache, meter=Meter()) == manifest
    assert hidden.is_dir()
    cache.close()


def test_an_input_that_vanishes_is_named(small_tree: Path) -> None:
    trees = [scan("in", str(small_tree))]
    (small_tree / "large").unlink()
    (small_tree / "1.txt").unlink()
    manifest = stage_in(MemoryStore(), LAYOUT, trees, NO_CACHE, meter=Meter())
    assert "in/1.txt" not in {entry.path for entry in manifest.entries}, "it is scanned again"
    (small_tree / "0.txt").rename(small_tree / "x")
    small_tree.rename(small_tree.parent / "gone")
    with pytest.raises(StagingError) as caught:
        stage_in(MemoryStore(), LAYOUT, trees, NO_CACHE, meter=Meter())
    assert isinstance(caught.value.failures[0], InputError)


def test_an_output_that_changes_while_it_is_sent_is_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"a" * 10)
    found = scan_outputs([Output("out")], str(tmp_path), [str(tmp_path)])
    path.write_bytes(b"b" * 20)
    store = MemoryStore()
    manifest = stage_out(store, ATTEMPT, found, declared_files={"out"}, meter=Meter())
    assert store.objects[ATTEMPT.out("out")] == b"b" * 20
    assert manifest.entries[0].size == 20


def test_an_output_that_never_rests_is_an_input_failure(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"a")
    found = scan_outputs([Output("out")], str(tmp_path), [str(tmp_path)])

    def grow() -> None:
        path.write_bytes(path.read_bytes() + b"a")

    store = Interfering(grow)
    with pytest.raises(StagingError) as caught:
        stage_out(store, ATTEMPT, found, declared_files={"out"}, meter=Meter())
    assert caught.value.tries == 3
    assert store.objects == {}


SECRET = b"secret"


@dataclass(frozen=True)
class Raid:
    """A work directory, and how the tool leads us to what it may not read itself.

    `swapped` (a path in the work directory) becomes a link to its like among the secrets, where
    every file has the size that ours has.
    """

    work: Path
    secrets: Path
    swapped: str
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def swap(self) -> None:
        place = self.work / self.swapped
        with self._lock:
            if not place.is_symlink():
                place.rename(self.work / "away")
                place.symlink_to(self.secrets / self.swapped)


@pytest.fixture
def raid(tmp_path: Path, request: pytest.FixtureRequest) -> Raid:
    for top, byte in (("work", b"o"), ("secrets", SECRET)):
        (tmp_path / top / "d/s").mkdir(parents=True)
        for name in ("one", "two"):
            (tmp_path / top / "d/s" / name).write_bytes(byte * (600 // len(byte)))
        (tmp_path / top / "d/s/large").write_bytes(byte * (6 * 1024**2 // len(byte)))
    (tmp_path / "work/latest").symlink_to("d/s/large")
    return Raid(tmp_path / "work", tmp_path / "secrets", request.param)


@pytest.mark.parametrize("raid", ["d", "d/s", "d/s/one", "d/s/large"], indirect=True)
@pytest.mark.parametrize("outputs", [["d"], ["d/s/large", "d/s/one"], ["latest", "d/s/*"]])
@pytest.mark.parametrize("late", [False, True], ids=["after the scan", "before the put"])
def test_a_link_put_in_the_way_of_an_output_is_never_followed(
    raid: Raid, outputs: list[str], *, late: bool
) -> None:
    found = scan_outputs([Output(path) for path in outputs], str(raid.work), [str(raid.work)])
    store = Interfering(raid.swap) if late else MemoryStore()
    if not late:
        raid.swap()
    with pytest.raises(StagingError) as caught:
        stage_out(store, ATTEMPT, found, declared_files=set(outputs), meter=Meter())
    assert not any(SECRET in body for body in store.objects.values())
    for failure in caught.value.failures:
        if isinstance(failure, InputError) and late:
            continue  # another thread looked when the old was away and the link not yet there
        assert isinstance(failure, UnsupportedError)
        assert "symbolic link" in failure.reason
        assert failure.source == str(raid.work / raid.swapped)


@pytest.mark.parametrize("raid", ["d/s/one"], indirect=True)
@pytest.mark.parametrize("late", [False, True], ids=["before", "midway"])
def test_a_link_in_the_place_of_a_stream_is_refused(raid: Raid, *, late: bool) -> None:
    store = Interfering(raid.swap) if late else MemoryStore()
    if not late:
        raid.swap()
    members = [(name, str(raid.work / "d/s" / name)) for name in ("one", "two")]
    with pytest.raises(UnsupportedError, match="symbolic link, not a file") as caught:
        put_pack(store, ATTEMPT.rest, members, meter=Meter())
    assert caught.value.source == str(raid.work / "d/s/one")
    assert store.objects == {}


@pytest.mark.parametrize("raid", ["d/s"], indirect=True)
def test_an_input_behind_a_link_that_was_a_directory_is_seen_again(raid: Raid) -> None:
    store = Interfering(raid.swap)
    with pytest.raises(StagingError, match="leads out of the directory"):
        _stage_in(store, raid.work / "d")
    assert not any(SECRET in body for body in store.objects.values())


def test_outputs_that_clash_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/y").write_text("y")
    (tmp_path / "d/l").symlink_to(".")
    found = scan_outputs([Output("d"), Output("d/l/y")], str(tmp_path), [str(tmp_path)])
    store = MemoryStore()
    with pytest.raises(UnsupportedError, match="'d/l/y' lies below 'd/l'"):
        stage_out(store, ATTEMPT, found, declared_files={"d", "d/l/y"}, meter=Meter())
    assert store.calls == []


def test_a_name_twice_in_a_pack_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    store = MemoryStore()
    with pytest.raises(UnsupportedError, match="'x' twice"):
        put_pack(store, ATTEMPT.rest, [("x", f"{tmp_path}/f")] * 2, meter=Meter())
    assert store.calls == []


def test_stage_in_says_how_much_will_go_up_and_takes_off_what_is_there(
    small_tree: Path,
) -> None:
    meter = Meter()
    assert (meter.expected_bytes, meter.expected_files) == (None, None)
    store = MemoryStore()
    told: list[tuple[int | None, int | None]] = []
    meter.listener = lambda _: told.append((meter.expected_bytes, meter.expected_files))
    stage_in(store, LAYOUT, [scan("in", str(small_tree / "large"))], NO_CACHE, meter=meter)
    large = (small_tree / "large").stat().st_size
    small = sum(path.stat().st_size for path in small_tree.glob("*.txt"))
    assert told[0] == (None, None)
    assert set(told[1:]) == {(large, 1)}
    meter, told[:] = Meter(), []
    meter.listener = lambda _: told.append((meter.expected_bytes, meter.expected_files))
    stage_in(store, LAYOUT, [scan("in", str(small_tree))], NO_CACHE, meter=meter)
    assert told[1] == (large + small, 6)
    assert told[-1] == (meter.phase.bytes, meter.phase.files) == (small, 5)


def test_a_second_try_adds_up_to_what_went_up_in_both(small_tree: Path) -> None:
    content = iter([b"other"])

    def change() -> None:
        for text in content:
            (small_tree / "3.txt").write_bytes(text)

    meter = Meter()
    trees = [scan("in", str(small_tree))]
    stage_in(Interfering(change), LAYOUT, trees, NO_CACHE, meter=meter)
    assert (meter.expected_bytes, meter.expected_files) == (meter.phase.bytes, 6)


@pytest.mark.parametrize("count", [MANY_MATCHES, MANY_MATCHES + 1])
def test_only_a_glob_with_many_matches_is_packed(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"{number}.txt").write_text(str(number))
    found = scan_outputs([Output("*.txt")], str(tmp_path), [str(tmp_path)])
    manifest = stage_out(MemoryStore(), ATTEMPT, found, declared_files=set(), meter=Meter())
    assert len(manifest.packs) == (count > MANY_MATCHES)


def test_a_declared_file_inside_a_declared_directory_is_an_object_of_its_own(
    small_tree: Path,
) -> None:
    outputs = [Output("tree/3.txt"), Output("tree")]
    found = scan_outputs(outputs, str(small_tree.parent), [str(small_tree.parent)])
    store = MemoryStore()
    manifest = stage_out(
        store, ATTEMPT, found, declared_files={"tree", "tree/3.txt"}, meter=Meter()
    )
    places = {entry.path: entry.at for entry in manifest.entries if entry.at}
    assert places["tree/3.txt"] == StoredAt(ATTEMPT.out("tree/3.txt"))
    assert {path for path, at in places.items() if at.offset is None} == {
        "tree/3.txt",
        "tree/large",
    }
    assert len(manifest.packs) == 1


def test_a_link_in_the_way_is_never_followed(tmp_path: Path, small_tree: Path) -> None:
    store = MemoryStore()
    manifest = _stage_in(store, small_tree, "a/in")
    outside = tmp_path / "outside"
    outside.mkdir()
    for link in ("a", "a/in"):
        root = tmp_path / f"head {len(link)}"
        (root / link).parent.mkdir(parents=True)
        (root / link).symlink_to(outside)
        failures = _failures(store, manifest, root)
        assert {type(failure) for failure in failures} == {OutputConflictError}
    assert list(outside.iterdir()) == []


def test_files_and_links_are_replaced_and_their_targets_left_alone(
    tmp_path: Path, small_tree: Path
) -> None:
    (small_tree / "link").symlink_to("large")
    store = MemoryStore()
    manifest = _stage_in(store, small_tree)
    root = tmp_path / "head"
    (root / "in").mkdir(parents=True)
    (tmp_path / "precious").write_text("precious")
    (root / "in" / "large").symlink_to(tmp_path / "precious")
    (root / "in" / "link").write_text("old")
    _get(store, manifest, root)
    assert (tmp_path / "precious").read_text() == "precious"
    assert snapshot(root / "in") == snapshot(small_tree)


def test_a_directory_where_a_file_belongs_is_a_conflict(tmp_path: Path, small_tree: Path) -> None:
    store = MemoryStore()
    manifest = _stage_in(store, small_tree)
    (tmp_path / "head" / "in" / "large" / "below").mkdir(parents=True)
    [failure] = _failures(store, manifest, tmp_path / "head")
    assert isinstance(failure, OutputConflictError)
    assert failure.target == f"{tmp_path}/head/in/large"


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(tmp_path: Path) -> None:
    store = MemoryStore()
    huge = Entry("huge", Kind.FILE, 0o644, 0, 2**60, "sha256:x", at=StoredAt("k"))
    [failure] = _failures(store, Manifest((huge,)), tmp_path)
    assert isinstance(failure, NoSpaceError)
    assert str(2**60) in failure.reason
    assert "free" in failure.reason
    assert failure.target == f"{tmp_path}/huge"
    assert store.calls == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EILSEQ, UnsupportedError),
        (errno.ENAMETOOLONG, UnsupportedError),
        (errno.EINVAL, UnsupportedError),
        (errno.EISDIR, OutputConflictError),
        (errno.EACCES, LocalAccessError),
        (errno.EROFS, LocalAccessError),
    ],
)
def test_what_a_disk_refuses_has_a_code(
    tmp_path: Path, number: int, kind: type[S3RunnerError]
) -> None:
    error = local_error(OSError(number, "no"), f"{tmp_path}/f", 5)
    assert type(error) is kind
    assert error.target == f"{tmp_path}/f"


def test_a_name_too_long_for_this_disk_is_unsupported(tmp_path: Path) -> None:
    store = MemoryStore()
    (tmp_path / "f").write_text("x")
    [entry] = _stage_in(store, tmp_path / "f").entries
    [failure] = _failures(store, Manifest((replace(entry, path="n" * 256),)), tmp_path / "pod")
    assert isinstance(failure, UnsupportedError)
    assert list((tmp_path / "pod").iterdir()) == []


def test_denied_access_stops_what_has_not_begun(tmp_path: Path, small_tree: Path) -> None:
    for number in range(50):
        (small_tree / f"large{number}").write_bytes(os.urandom(1024**2))
    store = MemoryStore()
    manifest = _stage_in(store, small_tree)
    denied = {("get", number): StoreAccessError("denied") for number in range(1, 60)}
    store._world.fail = denied
    failures = _failures(store, manifest, tmp_path / "pod")
    assert 1 <= len(failures) <= 8
    assert len([call for call in store.calls if call[0] == "get"]) <= 8


def test_two_inputs_at_one_place_are_refused_before_anything_is_sent(small_tree: Path) -> None:
    store = MemoryStore()
    trees = [scan("in", str(small_tree)), scan("in/large", str(small_tree / "large"))]
    with pytest.raises(SettingsError, match="clash"):
        stage_in(store, LAYOUT, trees, NO_CACHE, meter=Meter())
    assert store.objects == {}


class _Weighing(MemoryStore):
    """A store that notes the ranges it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[tuple[int, int | None]] = []

    def get(self, key: str, consume: Callable[[Chunks], Any], **range_: Any) -> Any:
        self.ranges.append((range_["start"], range_["length"]))
        return super().get(key, consume, **range_)


@pytest.fixture
def pack_of_forty(tmp_path: Path) -> tuple[_Weighing, Manifest]:
    """A pack of three parts in the store; `in/18` lies across the first two."""
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(40):
        (root / f"{number:02}").write_bytes(bytes([number]) * 900_000)
    store = _Weighing()
    manifest = _stage_in(store, root)
    assert part_count(manifest.packs[0].size) == 3
    return store, manifest


def _only(manifest: Manifest, *names: str) -> Manifest:
    chosen = tuple(e for e in manifest.entries if e.path.removeprefix("in/") in names)
    return replace(manifest, entries=chosen)


def test_a_few_members_of_a_pack_are_fetched_by_themselves(
    tmp_path: Path, pack_of_forty: tuple[_Weighing, Manifest]
) -> None:
    store, manifest = pack_of_forty
    some = _only(manifest, "18", "39")
    _get(store, some, tmp_path / "pod")
    assert sorted(store.ranges) == [(e.at.offset, 900_000) for e in some.entries if e.at]
    for name in ("18", "39"):
        assert (tmp_path / "pod/in" / name).read_bytes() == (tmp_path / "tree" / name).read_bytes()


def test_many_members_of_a_pack_come_with_the_parts_they_lie_in(
    tmp_path: Path, pack_of_forty: tuple[_Weighing, Manifest]
) -> None:
    store, manifest = pack_of_forty
    some = _only(manifest, *(f"{number:02}" for number in range(3, 18)))
    _get(store, some, tmp_path / "pod")
    assert store.ranges == [(0, PART)]


def test_a_member_fetched_by_itself_is_verified(
    tmp_path: Path, pack_of_forty: tuple[_Weighing, Manifest]
) -> None:
    store, manifest = pack_of_forty
    some = _only(manifest, "18")
    key = manifest.packs[0].key
    body = bytearray(store.objects[key])
    (at,) = [entry.at for entry in some.entries]
    assert at is not None
    body[(at.offset or 0) + 899_999] ^= 1
    store.damage(key, bytes(body))
    with pytest.raises(StagingError) as caught:
        _get(store, some, tmp_path / "pod")
    assert caught.value.code == 22
    assert caught.value.target == str(tmp_path / "pod/in/18")
    assert list((tmp_path / "pod").rglob("*18*")) == []


def test_an_unchanged_tree_has_no_differences_and_a_changed_one_names_each(
    tmp_path: Path, small_tree: Path
) -> None:
    (small_tree / "link").symlink_to("large")
    (small_tree / "sub").mkdir()
    store = MemoryStore()
    manifest = _stage_in(store, small_tree)
    here = tmp_path / "head" / "in"
    _get(store, manifest, tmp_path / "head")
    assert differences(manifest, _place(tmp_path / "head")) == []
    (here / "0.txt").write_bytes(b"x" * 1000)
    (here / "1.txt").unlink()
    (here / "2.txt").chmod(0o600)
    (here / "3.txt").write_text("short")
    (here / "link").unlink()
    (here / "link").symlink_to("0.txt")
    (here / "sub").rmdir()
    (here / "sub").touch()
    (here / "extra").touch()
    os.utime(here / "4.txt", ns=(OLD_NS, OLD_NS))
    found = differences(manifest, _place(tmp_path / "head"))
    names = {Path(text.partition(": ")[0]).name for text in found}
    assert names == {"0.txt", "1.txt", "2.txt", "3.txt", "link", "sub", "extra"}


def test_all_failures_are_told_and_results_keep_their_order() -> None:
    def fail(reason: str) -> Callable[[], int]:
        def task() -> int:
            raise ObjectNotFoundError(reason)

        return task

    assert run_all("hop", [lambda: 1, lambda: 2, lambda: 3]) == [1, 2, 3]
    assert run_all("hop", []) == []
    several = [lambda: 1, fail("a"), lambda: 2, fail("b")]
    for tasks, told in (([fail("a")], ["a"]), (several, ["a", "b"])):
        with pytest.raises(StagingError) as caught:
            run_all("hop", tasks)
        assert [failure.reason for failure in caught.value.failures] == told
        assert caught.value.operation == "hop"


def test_a_bug_in_a_task_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_all("hop", [lambda: 1, lambda: 1 // 0])


def test_the_byte_budget_lets_the_largest_through_alone() -> None:
    budget = ByteBudget(10)
    with budget.holding(1_000):
        assert budget._free == 0
    with budget.holding(4), budget.holding(6):
        assert budget._free == 0
    assert budget._free == 10

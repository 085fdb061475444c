"""The last hop, from an attempt that was really staged out to a directory of the user's."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from attempts import JOB, end_of, finish, memory_store, open_attempt, put, store_job
from fake_cluster import FakeCluster, Heard, head_of
from hostile import NAMES, plant, snapshot
from memory_store import MemoryStore
from samples import JOB_ID, STORE

from s3runner.errors import (
    IntegrityError,
    OutputConflictError,
    S3RunnerError,
    SettingsError,
    SpecError,
    StagingError,
)
from s3runner.model import Entry, Kind, Outcome, Output, StoredAt
from s3runner.runner.landing import Places, check_places
from s3runner.runner.report import SyncResult
from s3runner.runner.sync import _is_expected, sync
from s3runner.staging.records import Commit
from s3runner.worker.attempt import Attempt
from s3runner.worker.commit import publish

NOBODY = 65534
MTIME_NS = 1_000_000_000_123_456_789


@dataclass(frozen=True)
class Done:
    """A job that has ended, and the place where its outputs are to land."""

    store: MemoryStore
    attempt: Attempt
    into: Path

    def sync(
        self, *, overwrite: bool = False, gather: bool = False, heard: Heard | None = None
    ) -> SyncResult:
        head = head_of(self.store, FakeCluster())
        places = Places(self.into, gather_absolute=gather)
        spec, _ = head.read_spec(JOB_ID)
        return sync(head, spec, places, heard or Heard(), overwrite=overwrite)

    def leftovers(self) -> list[str]:
        """Return what we made beside the outputs and forgot."""
        return [
            name
            for _, directories, files in os.walk(self.into)
            for name in (*directories, *files)
            if name.startswith(".s3runner-") and name not in os.fsdecode(b"|".join(NAMES.values()))
        ]


def ended(
    root: Path,
    outputs: tuple[str, ...],
    make: Callable[[Path], object],
    roots: tuple[str, ...] = (),
) -> Done:
    """Run a job whose tool makes its outputs in its work directory."""
    store = memory_store()
    store_job(store, outputs=tuple(map(Output, outputs)), roots=roots)
    attempt = open_attempt(root, store)
    Path(attempt.work).mkdir()
    for stream in ("stdout", "stderr"):
        Path(attempt.control_file(stream)).write_text(f"{stream} of the tool\n")
    make(Path(attempt.work))
    assert finish(attempt) == 0
    return Done(store, attempt, root / "results")


def files(tree: Mapping[str, str]) -> Callable[[Path], None]:
    """Return what writes these files."""

    def make(work: Path) -> None:
        for name, text in tree.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text)
            os.utime(work / name, ns=(MTIME_NS, MTIME_NS))

    return make


TREE = {"d/a": "alpha", "d/sub/b": "beta"}


@pytest.fixture
def directory(tmp_path: Path) -> Done:
    return ended(tmp_path, ("d",), files(TREE))


@pytest.fixture
def file(tmp_path: Path) -> Done:
    return ended(tmp_path, ("o.txt",), files({"o.txt": "new"}))


def conflicts_of(error: StagingError) -> list[S3RunnerError]:
    assert error.code == 28
    assert all(isinstance(failure, OutputConflictError) for failure in error.failures)
    return list(error.failures)


def test_a_hostile_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    done = ended(tmp_path, ("tree",), lambda work: plant(work / "tree"))

    result = done.sync()

    before, after = snapshot(Path(done.attempt.work) / "tree"), snapshot(done.into / "tree")
    assert after == before
    assert len([item for item in result.outputs if item.path.startswith("tree")]) == len(before)
    assert done.leftovers() == []


def test_outputs_streams_and_the_result_land_in_their_places(tmp_path: Path) -> None:
    done = ended(tmp_path, ("o.txt", "d"), files({"o.txt": "new", **TREE}))
    heard = Heard()

    result = done.sync(heard=heard)

    assert (done.into / "o.txt").read_text() == "new"
    assert (done.into / "o.txt").stat().st_mtime_ns == MTIME_NS
    assert (done.into / "d" / "sub" / "b").read_text() == "beta"
    streams = done.into / ".s3runner"
    assert result.streams == streams
    assert (streams / "stdout").read_text() == "stdout of the tool\n"
    assert (streams / "stderr").read_text() == "stderr of the tool\n"
    assert (streams / "result.json").read_bytes() == done.store.objects[done.attempt.keys.result]
    assert [(item.path, item.kind) for item in result.outputs] == [
        ("d", Kind.DIR),
        ("d/a", Kind.FILE),
        ("d/sub", Kind.DIR),
        ("d/sub/b", Kind.FILE),
        ("o.txt", Kind.FILE),
    ]
    assert result.phase.files == 5
    assert heard.phases["sync"] == result.phase


def test_every_output_has_the_uri_that_a_later_job_can_name(tmp_path: Path) -> None:
    done = ended(tmp_path, ("o.txt", "d"), files({"o.txt": "new", **TREE}))

    uris = {item.path: item.uri for item in done.sync().outputs}

    keys = done.attempt.keys
    assert uris["o.txt"] == STORE.uri(keys.out("o.txt"))
    assert uris["d"] == STORE.uri(keys.out("d"))
    assert uris["d/sub/b"] == STORE.uri(keys.pack(0)) + "#d/sub/b"


def test_a_file_is_replaced_by_rename(file: Done) -> None:
    file.into.mkdir()
    place = file.into / "o.txt"
    place.write_text("old")
    (file.into / "other name").hardlink_to(place)

    file.sync()

    assert place.read_text() == "new"
    assert (file.into / "other name").read_text() == "old"
    assert file.leftovers() == []


def test_a_link_in_a_files_place_is_replaced_and_not_followed(file: Done) -> None:
    file.into.mkdir()
    (file.into / "elsewhere").write_text("precious")
    (file.into / "o.txt").symlink_to("elsewhere")

    file.sync()

    assert not (file.into / "o.txt").is_symlink()
    assert (file.into / "elsewhere").read_text() == "precious"


def test_syncing_twice_is_no_conflict(directory: Done) -> None:
    directory.sync()
    first = snapshot(directory.into / "d")

    directory.sync()

    assert snapshot(directory.into / "d") == first


def test_a_directory_that_is_there_already_is_left_as_it_is(directory: Done) -> None:
    directory.sync()
    before = (directory.into / "d").stat()

    directory.sync()

    after = (directory.into / "d").stat()
    assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)


def test_an_empty_directory_is_in_nobodys_way(directory: Done) -> None:
    (directory.into / "d").mkdir(parents=True)

    directory.sync()

    assert (directory.into / "d" / "a").read_text() == "alpha"


def spoil_content(place: Path) -> None:
    (place / "a").write_text("ALPHA")


def spoil_mode(place: Path) -> None:
    (place / "a").chmod(0o755)


def add_a_name(place: Path) -> None:
    (place / "mine").write_text("precious")


def take_a_name(place: Path) -> None:
    (place / "sub" / "b").unlink()


def be_a_file(place: Path) -> None:
    take_a_name(place)
    (place / "sub").rmdir()
    (place / "a").unlink()
    place.rmdir()
    place.write_text("precious")


def be_a_link(place: Path) -> None:
    place.rename(place.parent / "real")
    place.symlink_to("real")


SPOILS = [spoil_content, spoil_mode, add_a_name, take_a_name, be_a_file, be_a_link]


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_place_that_differs_is_refused_and_left_alone(
    directory: Done, spoil: Callable[[Path], None]
) -> None:
    directory.sync()
    spoil(directory.into / "d")
    before = snapshot(directory.into)

    with pytest.raises(StagingError) as raised:
        directory.sync()

    (failure,) = conflicts_of(raised.value)
    assert failure.target == str(directory.into / "d")
    assert "--overwrite" in failure.hint
    assert snapshot(directory.into) == before


@pytest.mark.parametrize("spoil", SPOILS)
def test_overwrite_replaces_what_differs(directory: Done, spoil: Callable[[Path], None]) -> None:
    directory.sync()
    wanted = snapshot(directory.into / "d")
    spoil(directory.into / "d")

    directory.sync(overwrite=True)

    assert snapshot(directory.into / "d") == wanted
    assert not (directory.into / "d").is_symlink()
    assert directory.leftovers() == []


def test_overwrite_follows_no_link_out_of_the_place(directory: Done) -> None:
    directory.into.mkdir()
    outside = directory.into.parent / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    (directory.into / "d").symlink_to(outside)

    directory.sync(overwrite=True)

    assert [item.name for item in outside.iterdir()] == ["precious"]


@pytest.fixture
def users_directory() -> Iterator[Path]:
    """A directory of a user's, as that user: no permission bit stops root."""
    directory = Path(tempfile.mkdtemp())
    if os.geteuid() != 0:
        yield directory
    else:
        os.chown(directory, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        yield directory
        os.seteuid(0)
    shutil.rmtree(directory, ignore_errors=True)


def test_overwrite_replaces_a_read_only_tree_by_a_read_only_tree(users_directory: Path) -> None:
    def make(work: Path) -> None:
        files({"d/deep/a": "new"})(work)
        (work / "d" / "deep").chmod(0o555)
        (work / "d").chmod(0o555)

    done = ended(users_directory, ("d",), make)
    files({"d/old/er/file": "old"})(done.into)
    for name in ("d/old/er", "d/old", "d"):
        (done.into / name).chmod(0o555)

    done.sync(overwrite=True)

    assert sorted(item.name for item in (done.into / "d").iterdir()) == ["deep"]
    assert stat.S_IMODE((done.into / "d" / "deep").stat().st_mode) == 0o555
    assert done.leftovers() == []


def test_all_conflicts_are_told_at_once(tmp_path: Path) -> None:
    done = ended(tmp_path, ("d", "e", "f.txt"), files({**TREE, "e/x": "x", "f.txt": "f"}))
    files({"d/mine": "m", "e/mine": "m", "f.txt/mine": "m"})(done.into)
    before = snapshot(done.into)

    with pytest.raises(StagingError) as raised:
        done.sync()

    assert [failure.source for failure in conflicts_of(raised.value)] == ["d", "e", "f.txt"]
    assert snapshot(done.into) == before


def test_overwrite_puts_a_file_where_a_directory_stood(file: Done) -> None:
    files({"o.txt/mine": "m"})(file.into)

    file.sync(overwrite=True)

    assert (file.into / "o.txt").read_text() == "new"


def damage_pack(done: Done) -> None:
    key = done.attempt.keys.pack(0)
    body = bytearray(done.store.objects[key])
    body[body.index(b"beta")] ^= 1
    done.store.damage(key, bytes(body))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_tree_that_does_not_arrive_whole_does_not_appear(
    directory: Done, overwrite: bool
) -> None:
    damage_pack(directory)

    with pytest.raises(StagingError) as raised:
        directory.sync(overwrite=overwrite)

    assert isinstance(raised.value.failures[0], IntegrityError)
    assert not (directory.into / "d").exists()
    assert directory.leftovers() == []


def test_overwrite_keeps_the_old_tree_if_the_new_one_does_not_arrive(directory: Done) -> None:
    files({"d/mine": "precious"})(directory.into)
    before = snapshot(directory.into / "d")
    damage_pack(directory)

    with pytest.raises(StagingError):
        directory.sync(overwrite=True)

    assert snapshot(directory.into / "d") == before
    assert directory.leftovers() == []


def test_a_damaged_file_replaces_nothing(file: Done) -> None:
    files({"o.txt": "old"})(file.into)
    file.store.damage(file.attempt.keys.out("o.txt"), b"NEW")

    with pytest.raises(StagingError):
        file.sync()

    assert (file.into / "o.txt").read_text() == "old"
    assert file.leftovers() == []


@pytest.fixture
def absolute(tmp_path: Path) -> Done:
    root = tmp_path / "data"
    root.mkdir()
    outputs = (str(root / "o.txt"), str(root / "tree"))
    done = ended(
        tmp_path, outputs, lambda _: files({"o.txt": "x", "tree/a": "a"})(root), (str(root),)
    )
    # what the pod left is not what the head has
    (root / "o.txt").write_text("old")
    (root / "tree" / "a").unlink()
    (root / "tree").rmdir()
    return done


def test_absolute_outputs_return_to_their_own_place(tmp_path: Path, absolute: Done) -> None:
    absolute.sync()

    assert (tmp_path / "data" / "o.txt").read_text() == "x"
    assert (tmp_path / "data" / "tree" / "a").read_text() == "a"
    assert sorted(item.name for item in absolute.into.iterdir()) == [".s3runner"]


def test_absolute_outputs_are_gathered_where_the_user_said(tmp_path: Path, absolute: Done) -> None:
    absolute.sync(gather=True)

    gathered = absolute.into / str(tmp_path).lstrip("/") / "data"
    assert (gathered / "o.txt").read_text() == "x"
    assert (gathered / "tree" / "a").read_text() == "a"
    assert (tmp_path / "data" / "o.txt").read_text() == "old"


@pytest.mark.parametrize("path", ["d", "sub/d"])
def test_places_that_will_be_refused_are_refused_before_the_job_runs(
    tmp_path: Path, path: str
) -> None:
    outputs = [Output(path), Output("free"), Output("*.txt"), Output("empty"), Output("file")]
    files({f"{path}/mine": "m", "file": "f"})(tmp_path)
    (tmp_path / "empty").mkdir()

    with pytest.raises(StagingError) as raised:
        check_places(outputs, Places(tmp_path, gather_absolute=False), overwrite=False)

    assert [failure.source for failure in conflicts_of(raised.value)] == [path]


def test_free_places_are_fine_before_the_job_runs(tmp_path: Path) -> None:
    files({"file": "f"})(tmp_path)

    check_places([Output("x/y")], Places(tmp_path, gather_absolute=False), overwrite=False)


def test_two_outputs_in_one_place_are_refused_before_the_job_runs(tmp_path: Path) -> None:
    outputs = [Output("data/x"), Output("/data/x")]

    with pytest.raises(StagingError, match="would land there too"):
        check_places(outputs, Places(tmp_path, gather_absolute=True), overwrite=True)


def test_a_file_in_the_place_of_the_results_is_found_although_there_are_no_outputs(
    tmp_path: Path,
) -> None:
    files({"file": "f"})(tmp_path)

    with pytest.raises(StagingError, match="file is no directory"):
        check_places([], Places(tmp_path / "file", gather_absolute=True), overwrite=True)


def test_a_file_where_a_directory_is_needed_is_found_before_the_job_runs(tmp_path: Path) -> None:
    files({"file": "f"})(tmp_path)
    places = Places(tmp_path / "file" / "results", gather_absolute=True)

    with pytest.raises(StagingError, match="file is no directory"):
        check_places([Output("o")], places, overwrite=True)


@pytest.mark.parametrize(
    ("declared", "path", "expected"),
    [
        ("d", "d/a/b", True),
        ("d", "dd", False),
        ("*.txt", "a.txt", True),
        ("*.txt", "a.txt/below", True),
        ("*.txt", ".ssh/authorized_keys", False),
        ("qc/*/x", "qc/1/x", True),
        ("qc/*/x", "qc/1/y", False),
        ("qc/**/x", "qc/a/b/x", True),
        ("qc/**/x", "other/x", False),
        ("a[1]", "a[1]", True),
        ("x", "/etc/x", False),
        ("*", "/etc/x", False),
    ],
)
def test_what_was_not_declared_is_no_output(declared: str, path: str, expected: bool) -> None:
    entry = Entry(path=path, kind=Kind.DIR, mode=0o755, mtime_ns=0)

    assert _is_expected(entry, [Output(declared)], JOB.attempt("pod-1")) is expected


@pytest.mark.parametrize(
    "at",
    [
        StoredAt(JOB.spec),
        StoredAt(JOB.attempt("pod-2").out("o")),
        StoredAt(JOB.attempt("pod-1").out("o"), bucket="another"),
        StoredAt(JOB.attempt("pod-1").out("o"), etag="x"),
    ],
    ids=str,
)
def test_an_output_lies_below_its_own_attempt(at: StoredAt) -> None:
    entry = Entry(path="o", kind=Kind.FILE, mode=0o644, mtime_ns=0, at=at)

    assert not _is_expected(entry, [Output("o")], JOB.attempt("pod-1"))


def test_a_manifest_that_holds_more_than_was_declared_writes_nothing(tmp_path: Path) -> None:
    done = ended(tmp_path, ("o",), files({"o": "x"}))
    store_job(done.store, outputs=(Output("other"),))

    with pytest.raises(SpecError, match="no output of this job"):
        done.sync()

    assert not done.into.exists()


def test_a_directory_stays_until_the_file_for_its_place_has_arrived(tmp_path: Path) -> None:
    done = ended(tmp_path, ("o",), files({"o": "x"}))
    files({"o/precious": "mine"})(done.into)
    done.store.damage(done.attempt.keys.out("o"), b"y")

    with pytest.raises(StagingError):
        done.sync(overwrite=True)

    assert (done.into / "o" / "precious").read_text() == "mine"
    assert done.leftovers() == []


def test_a_failed_tools_outputs_and_streams_come_back(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store, outputs=(Output("half"), Output("never")))
    attempt = open_attempt(tmp_path, store)
    files({"half": "h"})(Path(attempt.work))
    Path(attempt.control_file("stderr")).write_text("so sorry")
    assert finish(attempt, Outcome.TOOL_FAILED) == 10
    done = Done(store, attempt, tmp_path / "results")

    done.sync()

    assert (done.into / "half").read_text() == "h"
    assert (done.into / ".s3runner" / "stderr").read_text() == "so sorry"


def test_a_job_without_a_result_brings_nothing_and_fails_nothing(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store)
    put(store, JOB.commit, Commit("head", Outcome.CANCELLED, None, None, 1).dump())
    done = Done(store, open_attempt(tmp_path, store), tmp_path / "results")

    result = done.sync()

    assert (result.outputs, result.streams) == ((), None)


def test_a_job_without_a_commit_is_not_synced(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store, final=())
    attempt = open_attempt(tmp_path, store)
    publish(attempt, end_of(attempt, Outcome.SUCCEEDED))

    with pytest.raises(SettingsError, match="has not ended"):
        Done(store, attempt, tmp_path / "results").sync()


def test_another_manifest_than_the_results_is_refused(file: Done) -> None:
    key = file.attempt.keys.manifest
    file.store.damage(key, file.store.objects[key].replace(b"o.txt", b"p.txt"))

    with pytest.raises(SpecError, match="digest"):
        file.sync()

    assert not file.into.exists()


def test_the_place_of_the_outputs_may_not_be_a_file(file: Done) -> None:
    file.into.write_text("mine")

    with pytest.raises(S3RunnerError) as raised:
        file.sync()

    assert raised.value.code in (23, 28)
    assert file.into.read_text() == "mine"


def test_a_directory_below_a_file_is_an_error_with_a_name(tmp_path: Path) -> None:
    done = ended(tmp_path, ("sub/d",), files({"sub/d/a": "x"}))
    files({"sub": "mine"})(done.into)

    with pytest.raises(S3RunnerError) as raised:
        done.sync()

    assert raised.value.code in (23, 28)
    assert (done.into / "sub").read_text() == "mine"

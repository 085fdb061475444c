"""The last hop: results from S3 to this machine.

Files are replaced by rename. A directory appears whole or not at all: it is filled beside its
place and renamed; one that is there and differs is left alone unless the user says otherwise.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from s3runner.errors import OutputConflictError, S3RunnerError, SettingsError, StagingError
from s3runner.model import Entry, Kind, Manifest, Output
from s3runner.runner.head import Head
from s3runner.runner.report import SYNC, Listener, SyncedOutput, SyncResult
from s3runner.staging.compare import differences
from s3runner.staging.download import materialise
from s3runner.staging.manifest import load_manifest, parse_document
from s3runner.staging.records import Commit, check_digest
from s3runner.store.meter import Meter
from s3runner.store.retrying import RetryingStore, read

STREAMS = ".s3runner"
"""Below the place of the outputs: stdout, stderr, exit_code and result.json."""


@dataclass(frozen=True)
class Places:
    """Where outputs land: relative ones below `into`, absolute ones at their own path.

    When the user named a directory on the command line, absolute ones are gathered below it too.
    """

    into: Path
    gather_absolute: bool

    def __call__(self, path: str) -> str:
        """Return the local path of an output's path in the job."""
        if not path.startswith("/"):
            return str(self.into / path)
        return str(self.into / path.lstrip("/")) if self.gather_absolute else path


def check_places(outputs: Iterable[Output], places: Places) -> None:
    """Refuse, before anything runs, outputs whose literal place is a directory with files in it.

    Raises StagingError of OutputConflictError (28).
    """
    conflicts: list[S3RunnerError] = []
    for output in outputs:
        place = Path(places(output.path))
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if place.is_dir() and not place.is_symlink() and any(place.iterdir()):
                conflicts.append(_conflict(output.path, str(place), "a directory is there already"))
    if conflicts:
        raise StagingError("sync", conflicts)


def sync(
    head: Head, job_id: str, places: Places, listener: Listener, *, overwrite: bool
) -> SyncResult:
    """Bring a committed job's outputs and streams to this machine.

    Raises SettingsError if the job has no commit yet, StagingError (28) for a directory that
    differs, and whatever the store or the disk refuses.
    """
    commit = head.read_commit(job_id)
    if commit is None:
        raise SettingsError(f"job {job_id} has not ended", hint=f"s3runner wait {job_id}")
    meter = Meter()
    manifest = _read_manifest(head, job_id, commit, meter)
    total = sum(entry.size for entry in manifest.entries)
    files = sum(entry.kind is Kind.FILE for entry in manifest.entries)
    meter.listener = lambda phase: listener.phase(SYNC, phase, total, files)
    store = head.store.with_meter(meter)
    trees = list(_trees(manifest))
    if not overwrite:
        _refuse_conflicts(trees, places)
    loose = [tree for tree in trees if tree.entries[0].kind is not Kind.DIR]
    for tree in trees:
        if tree.entries[0].kind is Kind.DIR:
            _sync_directory(store, tree, places, meter)
    together = Manifest(tuple(entry for tree in loose for entry in tree.entries), manifest.packs)
    _clear_the_way(together, places)
    materialise(store, together, places, meter=meter)
    streams = _write_result(head, job_id, commit, places)
    outputs = tuple(_describe(head, job_id, commit, manifest))
    return SyncResult(outputs, meter.phase, places.into, streams)


def _read_manifest(head: Head, job_id: str, commit: Commit, meter: Meter) -> Manifest:
    result = head.read_committed_result(job_id, commit)
    if result is None or result.manifest_digest is None or commit.attempt is None:
        return Manifest()
    key = head.layout.job(job_id).attempt(commit.attempt).manifest
    origin = head.config.uri(key)
    body = read(head.store.with_meter(meter), key)
    document = parse_document(check_digest(body, result.manifest_digest, origin), origin)
    return load_manifest(document, origin)


def _trees(manifest: Manifest) -> Iterator[Manifest]:
    """Split a manifest into its topmost entries, each with all below it and its packs."""
    tops: dict[str, list[Entry]] = {}
    for entry in manifest.entries:
        above = (str(parent) for parent in PurePosixPath(entry.path).parents)
        top = next((name for name in above if name in tops), entry.path)
        tops.setdefault(top, []).append(entry)
    for entries in tops.values():
        used = {entry.at.key for entry in entries if entry.at and entry.at.offset is not None}
        packs = tuple(pack for pack in manifest.packs if pack.key in used)
        yield Manifest(tuple(entries), packs)


def _refuse_conflicts(trees: Iterable[Manifest], places: Places) -> None:
    conflicts: list[S3RunnerError] = []
    for tree in trees:
        top = tree.entries[0]
        place = places(top.path)
        if top.kind is not Kind.DIR:
            if Path(place).is_dir() and not Path(place).is_symlink():
                conflicts.append(_conflict(top.path, place, "a directory stands in its place"))
        elif os.path.lexists(place) and not _is_empty_directory(place):
            found = differences(tree, places)
            if found:
                conflicts.append(_conflict(top.path, place, f"the directory differs: {found[0]}"))
    if conflicts:
        raise StagingError("sync", conflicts)


def _is_empty_directory(place: str) -> bool:
    path = Path(place)
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _conflict(path: str, place: str, reason: str) -> OutputConflictError:
    return OutputConflictError(
        reason,
        operation="sync",
        source=path,
        target=place,
        hint="--overwrite replaces it, --into DIR puts the outputs elsewhere",
    )


def _sync_directory(store: RetryingStore, tree: Manifest, places: Places, meter: Meter) -> None:
    """Fill a directory beside its place, then put it there by rename."""
    top = tree.entries[0].path
    target = Path(places(top))
    if os.path.lexists(target) and not differences(tree, places):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".s3runner-{secrets.token_hex(8)}"
    aside = target.parent / f"{scratch.name}-old"
    try:
        materialise(store, tree, lambda path: str(scratch) + path[len(top) :], meter=meter)
        if os.path.lexists(target):
            target.rename(aside)
        scratch.rename(target)
    except BaseException:
        if os.path.lexists(aside):
            aside.rename(target)
        raise
    finally:
        _remove(scratch)
        _remove(aside)


def _remove(path: Path) -> None:
    """Remove a tree of ours, or one the user gave up, read-only directories and all."""
    if path.is_dir() and not path.is_symlink():
        for directory, _, _ in os.walk(path):
            Path(directory).chmod(0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _clear_the_way(manifest: Manifest, places: Places) -> None:
    """Remove directories that stand where a file must go (only reached with --overwrite)."""
    for entry in manifest.entries:
        place = Path(places(entry.path))
        if place.is_dir() and not place.is_symlink():
            _remove(place)


def _write_result(head: Head, job_id: str, commit: Commit, places: Places) -> Path | None:
    result = head.read_committed_result(job_id, commit)
    if result is None:
        return None
    directory = places.into / STREAMS
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".s3runner-{secrets.token_hex(8)}"
    temporary.write_bytes(result.dump())
    temporary.rename(directory / "result.json")
    return directory


def _describe(
    head: Head, job_id: str, commit: Commit, manifest: Manifest
) -> Iterator[SyncedOutput]:
    for entry in manifest.entries:
        if entry.path.startswith(f"{STREAMS}/"):
            continue
        yield SyncedOutput(
            path=entry.path,
            kind=entry.kind,
            size=entry.size,
            digest=entry.digest,
            uri=_uri_of(head, job_id, commit, entry),
        )


def _uri_of(head: Head, job_id: str, commit: Commit, entry: Entry) -> str:
    """Return the URI that a later job may name as an input; a link has none."""
    if entry.kind is Kind.SYMLINK or commit.attempt is None:
        return ""
    if entry.at is None:
        return head.config.uri(head.layout.job(job_id).attempt(commit.attempt).out(entry.path))
    member = "" if entry.at.offset is None else f"#{entry.path}"
    return head.config.uri(entry.at.key) + member

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
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from s3runner.errors import SettingsError, SpecError
from s3runner.model import Entry, Kind, Manifest, Output
from s3runner.runner.head import Head
from s3runner.runner.landing import Places, is_directory, refuse_conflicts, refuse_shared_places
from s3runner.runner.report import SYNC, Listener, SyncedOutput, SyncResult
from s3runner.runner.segments import Segments, attempts_with_segments, cap_note
from s3runner.staging.compare import differences
from s3runner.staging.digest import parts_of
from s3runner.staging.download import materialise
from s3runner.staging.layout import LOG_STREAMS, AttemptLayout, JobLayout
from s3runner.staging.manifest import load_manifest, parse_document
from s3runner.staging.placing import local_error
from s3runner.staging.records import Commit, Result, Spec, check_digest
from s3runner.staging.tree import Identity
from s3runner.store.meter import Meter
from s3runner.store.retrying import RetryingStore, read

STREAMS = ".s3runner"
"""Below the place of the outputs: stdout, stderr, exit_code and result.json."""

_STREAM_PATHS = {f"{STREAMS}/{name}" for name in ("stdout", "stderr", "exit_code")}


def sync(
    head: Head, spec: Spec, places: Places, listener: Listener, *, overwrite: bool
) -> SyncResult:
    """Bring a committed job's outputs and streams to this machine.

    Raises SettingsError if the job has no commit yet, SpecError for a result that holds what the
    job did not declare, StagingError (28) for a directory that differs, and whatever the store or
    the disk refuses.
    """
    commit = head.read_commit(spec.job_id)
    if commit is None:
        raise SettingsError(f"job {spec.job_id} has not ended", hint=f"s3runner wait {spec.job_id}")
    result = head.read_committed_result(spec.job_id, commit)
    meter = Meter()
    store = head.store.with_meter(meter)
    manifest = read_manifest(head, store, spec, result)
    total = sum(entry.size for entry in manifest.entries)
    files = sum(entry.kind is Kind.FILE for entry in manifest.entries)
    meter.listener = lambda phase: listener.phase(SYNC, phase, total, files)
    with _disk_errors(places.into):
        _place(store, manifest, places, meter, overwrite=overwrite)
        _remember(head, manifest, places)
        streams = _write_result(result, places)
        if result is None or result.manifest_digest is None:
            job = head.layout.job(spec.job_id)
            streams = _write_segments(store, job, places, listener) or streams
    outputs = tuple(describe_outputs(head, spec.job_id, commit, manifest))
    return SyncResult(outputs, meter.phase, places.into, streams)


@contextlib.contextmanager
def _disk_errors(into: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        path = os.fsdecode(error.filename or into)
        raise local_error(error, path).during("sync") from error


def read_manifest(head: Head, store: RetryingStore, spec: Spec, result: Result | None) -> Manifest:
    """Return the committed tree, checked; an empty one where there is none. Raises SpecError."""
    if result is None or result.manifest_digest is None:
        return Manifest()
    attempt = head.layout.job(spec.job_id).attempt(result.attempt)
    origin = head.config.uri(attempt.manifest)
    body = check_digest(read(store, attempt.manifest), result.manifest_digest, origin)
    manifest = load_manifest(parse_document(body, origin), origin)
    for entry in manifest.entries:
        if not _is_expected(entry, spec.outputs, attempt):
            # a manifest comes from a pod: it must not write where the job never asked it to
            raise SpecError(f"{entry.path!r} is no output of this job", source=origin)
    return manifest


def _is_expected(entry: Entry, outputs: Iterable[Output], attempt: AttemptLayout) -> bool:
    at = entry.at
    ours = at is None or (at.key.startswith(f"{attempt.root}/") and not at.bucket and not at.etag)
    return ours and (
        entry.path in _STREAM_PATHS or any(_covers(output.path, entry.path) for output in outputs)
    )


def _covers(declared: str, path: str) -> bool:
    """Tell whether a path is what was declared, matches it, or lies below such a one."""
    if path == declared or path.startswith(f"{declared}/"):
        return True
    if path.startswith("/") is not declared.startswith("/"):
        return False
    names = path.split("/")
    for number, segment in enumerate(declared.split("/")):
        if segment == "**":
            return True
        if number >= len(names) or not fnmatchcase(names[number], segment):
            return False
    return True


def _place(
    store: RetryingStore, manifest: Manifest, places: Places, meter: Meter, *, overwrite: bool
) -> None:
    refuse_shared_places(manifest, places)
    trees = list(_trees(manifest))
    if not overwrite:
        refuse_conflicts(trees, places)
    loose: list[Entry] = []
    for tree in trees:
        if tree.entries[0].kind is Kind.DIR:
            _place_directory(store, tree, places, meter)
        else:
            loose.extend(tree.entries)
    with _set_aside(places(entry.path) for entry in loose):
        materialise(store, Manifest(tuple(loose), manifest.packs), places, meter=meter)


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


def _place_directory(store: RetryingStore, tree: Manifest, places: Places, meter: Meter) -> None:
    """Fill a directory beside its place, then put it there by rename."""
    top = tree.entries[0].path
    target = Path(places(top))
    if os.path.lexists(target) and not differences(tree, places):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".s3runner-{secrets.token_hex(8)}"
    try:
        materialise(store, tree, lambda path: str(scratch) + path[len(top) :], meter=meter)
        with _set_aside([str(target)], files=True):
            scratch.rename(target)
    finally:
        _remove(scratch)


@contextlib.contextmanager
def _set_aside(places: Iterable[str], *, files: bool = False) -> Iterator[None]:
    """Move what stands in these places away; bring it back on failure, remove it on success.

    Directories are moved, and with `files` whatever is there; other files are replaced by rename.
    """
    moved: dict[Path, Path] = {}
    try:
        for place in places:
            if is_directory(place) or (files and os.path.lexists(place)):
                path = Path(place)
                aside = path.parent / f".s3runner-{secrets.token_hex(8)}-old"
                path.rename(aside)
                moved[path] = aside
        yield
    except BaseException:
        # Ctrl-C too must leave the user what was there
        for path, aside in moved.items():
            if not os.path.lexists(path):
                aside.rename(path)
        raise
    # only now: until the new one is in its place, the old one is the user's only one
    for aside in moved.values():
        _remove(aside)


def _remove(path: Path) -> None:
    """Remove a tree of ours, or one the user gave up, read-only directories and all."""
    if is_directory(str(path)):
        for directory, _, _ in os.walk(path):
            Path(directory).chmod(0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remember(head: Head, manifest: Manifest, places: Places) -> None:
    """Note where the files came from: as inputs of another job they need no upload."""
    with head.cache.together():
        for entry in manifest.entries:
            own = entry.at is not None and entry.at.offset is None
            if entry.kind is Kind.FILE and own and entry.at is not None:
                identity = Identity.of(os.lstat(places(entry.path)))
                head.cache.put_synced(identity, parts_of(entry), head.config.uri(entry.at.key))


def _write_result(result: Result | None, places: Places) -> Path | None:
    if result is None:
        return None
    return _write(places, "result.json", [result.dump()])


def _write_segments(
    store: RetryingStore, job: JobLayout, places: Places, listener: Listener
) -> Path | None:
    """Write what the newest attempt left of its streams, where no whole ones were committed."""
    attempts = attempts_with_segments(store, job)
    if not attempts:
        return None
    segments = Segments(store, job.attempt(attempts[-1]))
    for stream in LOG_STREAMS:
        _write(places, stream, segments.new(stream))
        if segments.are_capped(stream):
            listener.warning(cap_note(stream))
    return places.into / STREAMS


def _write(places: Places, name: str, pieces: Iterable[bytes]) -> Path:
    """Write one file beside the outputs; return its directory."""
    directory = places.into / STREAMS
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".s3runner-{secrets.token_hex(8)}"
    try:
        with temporary.open("wb") as file:
            file.writelines(pieces)
        temporary.rename(directory / name)
    finally:
        temporary.unlink(missing_ok=True)
    return directory


def describe_outputs(
    head: Head, job_id: str, commit: Commit, manifest: Manifest
) -> Iterator[SyncedOutput]:
    """Yield a job's outputs as people see them: without the streams, with their URIs."""
    for entry in manifest.entries:
        if entry.path in _STREAM_PATHS:
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

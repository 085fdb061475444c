"""The last hop: results from S3 to this machine.

Files are replaced by rename. A directory appears whole or not at all: it is filled beside its
place and renamed; one that is there and differs is left alone unless the user says otherwise.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath

from s3runner.errors import (
    LocalAccessError,
    NoSpaceError,
    S3RunnerError,
    SettingsError,
    SpecError,
    StagingError,
)
from s3runner.model import Entry, Kind, Manifest, Output, Pack
from s3runner.runner.head import Head
from s3runner.runner.landing import (
    STREAMS,
    Places,
    is_directory,
    refuse_shared_places,
    to_be_placed,
)
from s3runner.runner.linking import Links, choose, make_links
from s3runner.runner.report import SYNC, Listener, SyncedOutput, SyncResult
from s3runner.runner.segments import Segments, attempts_with_segments, cap_note
from s3runner.runner.unfinished import landing, remove
from s3runner.staging.digest import parts_of
from s3runner.staging.digest_cache import SyncedFrom
from s3runner.staging.download import materialise
from s3runner.staging.layout import LOG_STREAMS, AttemptLayout, JobLayout
from s3runner.staging.manifest import load_manifest, parse_document
from s3runner.staging.named import read_named
from s3runner.staging.parallel import HOPELESS
from s3runner.staging.placing import check_space, local_error, temporary_beside
from s3runner.staging.records import Commit, Result, Spec
from s3runner.staging.tree import Identity
from s3runner.store.meter import Meter
from s3runner.store.retrying import RetryingStore

_HINTS = {
    NoSpaceError: "make room there, or name another directory with --into, and sync again",
    LocalAccessError: "make it writable, or name another directory with --into, and sync again",
}

_STREAM_PATHS = {f"{STREAMS}/{name}" for name in ("stdout", "stderr", "exit_code")}


def sync(
    head: Head,
    spec: Spec,
    places: Places,
    listener: Listener,
    *,
    overwrite: bool,
    links: Links | None = None,
) -> SyncResult:
    """Bring a committed job's outputs and streams to this machine, those of `links` as links.

    Raises SettingsError if the job has no commit yet, SpecError for a result that holds what the
    job did not declare, StagingError (28) for a directory that differs, and whatever the store, the
    disk or the mounted bucket refuses.
    """
    commit = head.read_commit(spec.job_id)
    if commit is None:
        raise SettingsError(f"job {spec.job_id} has not ended", hint=f"s3runner wait {spec.job_id}")
    result = head.read_committed_result(spec.job_id, commit)
    meter = Meter()
    store = head.store.with_meter(meter)
    manifest = read_manifest(head, store, spec, result)
    linked = choose(head, spec.job_id, manifest, links) if links else ()
    apart = {entry.path for entry in linked}
    brought = [entry for entry in manifest.entries if entry.path not in apart]
    total = sum(entry.size for entry in brought)
    files = sum(entry.kind is Kind.FILE for entry in brought)
    meter.listener = lambda phase: listener.phase(SYNC, phase, total, files)
    with _disk_errors(places.into):
        refuse_shared_places(manifest, places)
        tops = list(_trees(replace(manifest, entries=tuple(brought))))
        trees = _to_be_placed(tops, places, overwrite=overwrite)
        beside = [Path(places(tree.entries[0].path)).parent for tree in tops]
        # without a result there may be nothing to bring, and no directory to make
        with landing(places.into, spec.job_id, beside) if result else contextlib.nullcontext():
            _place(store, trees, places, meter, spec.job_id)
            _remember(head, manifest.packs, brought, places)
            if links:
                make_links(linked, links, spec.job_id)
            streams = _write_result(result, places, spec.job_id)
            if result is None or result.manifest_digest is None:
                job = head.layout.job(spec.job_id)
                found = _write_segments(store, job, places, listener, spec.job_id)
                streams = found or streams
    outputs = tuple(describe_outputs(head, spec.job_id, commit, manifest))
    return SyncResult(outputs, meter.phase, places.into, streams)


@contextlib.contextmanager
def _disk_errors(into: Path) -> Iterator[None]:
    """Say what the disk refused, and what to do."""
    try:
        yield
    except OSError as error:
        path = os.fsdecode(error.filename2 or error.filename or into)
        raise _with_hint(local_error(error, path).during("sync")) from error
    except S3RunnerError as error:
        if isinstance(error, StagingError):
            for failure in error.failures:
                _with_hint(failure)
            error.hint = error.failures[0].hint
        else:
            _with_hint(error)
        raise


def _with_hint(error: S3RunnerError) -> S3RunnerError:
    error.hint = error.hint or _HINTS.get(type(error), "")
    return error


def read_manifest(head: Head, store: RetryingStore, spec: Spec, result: Result | None) -> Manifest:
    """Return the committed tree, checked; an empty one where there is none. Raises SpecError."""
    if result is None or result.manifest_digest is None:
        return Manifest()
    attempt = head.layout.job(spec.job_id).attempt(result.attempt)
    origin = head.config.uri(attempt.manifest)
    body = read_named(store, attempt.manifest, result.manifest_digest, origin)
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


def _to_be_placed(tops: Iterable[Manifest], places: Places, *, overwrite: bool) -> list[Manifest]:
    """Return the trees that are not there yet. Raises for those that cannot have their places."""
    trees = to_be_placed(tops, places, overwrite=overwrite)
    # of all together: to find out half-way would leave new results among old ones
    check_space((places(entry.path), entry.size) for tree in trees for entry in tree.entries)
    return trees


def _place(
    store: RetryingStore, trees: Iterable[Manifest], places: Places, meter: Meter, mark: str
) -> None:
    loose: list[Entry] = []
    packs: dict[str, Pack] = {}
    steps: list[Callable[[], None]] = []
    for tree in trees:
        if tree.entries[0].kind is Kind.DIR:
            steps.append(partial(_place_directory, store, tree, places, meter, mark))
        else:
            loose.extend(tree.entries)
            packs |= {pack.key: pack for pack in tree.packs}
    files = Manifest(tuple(loose), tuple(packs.values()))
    _take_all([*steps, partial(_place_files, store, files, places, meter, mark)])


def _take_all(steps: Iterable[Callable[[], None]]) -> None:
    """Take every step that has a chance. Raises StagingError with the failures of all."""
    failures: list[S3RunnerError] = []
    for step in steps:
        try:
            step()
        except S3RunnerError as error:  # noqa: PERF203 # a stage collects every failure
            failures += error.failures if isinstance(error, StagingError) else [error]
            if isinstance(failures[-1], HOPELESS):
                break
    if failures:
        raise StagingError("sync", failures)


def _place_files(
    store: RetryingStore, files: Manifest, places: Places, meter: Meter, mark: str
) -> None:
    """Put files and links in their places, each by rename."""
    with _set_aside(places(entry.path) for entry in files.entries):
        materialise(store, files, places, meter=meter, mark=mark)


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


def _place_directory(
    store: RetryingStore, tree: Manifest, places: Places, meter: Meter, mark: str
) -> None:
    """Fill a directory beside its place, then put it there by rename."""
    top = tree.entries[0].path
    target = Path(places(top))
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(temporary_beside(str(target), mark))
    try:
        with _named_by(target, scratch):
            scratch.mkdir(0o700)
            materialise(store, tree, lambda path: str(scratch) + path[len(top) :], meter=meter)
            with _set_aside([str(target)], files=True):
                scratch.rename(target)
    finally:
        remove(scratch)


@contextlib.contextmanager
def _named_by(target: Path, scratch: Path) -> Iterator[None]:
    """Let errors name the place of a directory, not the one where it is filled."""
    try:
        yield
    except OSError as error:
        raise local_error(error, str(target)) from error
    except StagingError as error:
        for failure in (error, *error.failures):
            failure.target = failure.target.replace(str(scratch), str(target), 1)
        raise


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
                # without a mark: nobody clears up what may be the user's only one
                aside = Path(f"{temporary_beside(place)}-old")
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
        remove(aside)


def _remember(head: Head, packs: Iterable[Pack], entries: Iterable[Entry], places: Places) -> None:
    """Note where the files came from: as inputs of another job they need no upload."""
    with head.cache.together():
        for pack in packs:
            head.cache.put_synced_pack(head.config.uri(pack.key), pack.size, parts_of(pack))
        for entry in entries:
            if entry.kind is Kind.FILE and entry.at is not None:
                identity = Identity.of(os.lstat(places(entry.path)))
                origin = SyncedFrom(head.config.uri(entry.at.key), entry.at.offset)
                head.cache.put_synced(identity, parts_of(entry), origin)


def _write_result(result: Result | None, places: Places, mark: str) -> Path | None:
    if result is None:
        return None
    return _write(places, "result.json", [result.dump()], mark)


def _write_segments(
    store: RetryingStore, job: JobLayout, places: Places, listener: Listener, mark: str
) -> Path | None:
    """Write what the newest attempt left of its streams, where no whole ones were committed."""
    attempts = attempts_with_segments(store, job)
    if not attempts:
        return None
    segments = Segments(store, job.attempt(attempts[-1]))
    for stream in LOG_STREAMS:
        _write(places, stream, segments.new(stream), mark)
        if segments.are_capped(stream):
            listener.warning(cap_note(stream))
    return places.into / STREAMS


def _write(places: Places, name: str, pieces: Iterable[bytes], mark: str) -> Path:
    """Write one file beside the outputs; return its directory."""
    directory = places.into / STREAMS
    directory.mkdir(parents=True, exist_ok=True)
    temporary = Path(temporary_beside(str(directory / name), mark))
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

"""Sending files to the store: stage-in by content, stage-out by name.

A part is compared with its expected digest before it leaves (stage-in), or hashed as it leaves
(stage-out); a file that changes meanwhile never becomes an object that looks whole.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timezone
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from s3runner.errors import (
    ObjectNotFoundError,
    S3RunnerError,
    StagingError,
    UnsupportedError,
)
from s3runner.model import Entry, Kind, Manifest, Pack, S3Uri, StoredAt
from s3runner.staging.digest import combine, listed, part_count, part_range, part_size, sha256_hex
from s3runner.staging.hashing import hash_inputs, pack_pieces
from s3runner.staging.layout import AttemptLayout, StoreLayout
from s3runner.staging.manifest import conflict
from s3runner.staging.pack import plan_pack, rechunk
from s3runner.staging.parallel import ByteBudget, run_all
from s3runner.staging.plan import (
    PackSource,
    Parts,
    StageInPlan,
    Upload,
    decide_upload,
    group_inputs,
    group_outputs,
    make_manifest,
    merged,
    plan_stage_in,
)
from s3runner.staging.reading import ChangedError, OpenFile, look_again
from s3runner.staging.scan import OutputScan, scan
from s3runner.staging.tree import LocalFile, Tree, without
from s3runner.store.meter import Meter
from s3runner.store.protocol import ObjectStore

if TYPE_CHECKING:  # it brings a database, which the stager does without
    from s3runner.staging.digest_cache import DigestCache

T = TypeVar("T")

TRIES = 3
"""How often a file that changes under staging is begun again."""

BLOB_TTL_S = 30 * 86400.0
"""How long gc leaves a blob alone, in seconds."""

_NOTHING = Manifest()

_PARTS_IN_FLIGHT = 4
"""The store's client holds so many parts of one upload at once."""


def stage_in(  # noqa: PLR0913 # one value for each thing that stage-in joins
    store: ObjectStore,
    layout: StoreLayout,
    trees: Sequence[Tree],
    cache: DigestCache,
    *,
    meter: Meter,
    blob_ttl_s: float = BLOB_TTL_S,
    foreign: Manifest = _NOTHING,
) -> Manifest:
    """Make every input an object of the store; return the tree that fetch lays out.

    What is in `foreign` lies in S3 already: the trees' entries of its paths are left out. Requests
    are counted by the store, payload by us. Raises StagingError; an input that changes three times
    while it is staged is InputError (21).
    """
    meter.start()
    present: set[str] = set()
    lying = {entry.path for entry in foreign.entries}
    for tries in count(1):
        trees = [without(tree, lying) for tree in trees]
        try:
            plan = _plan(layout, trees, cache)
            manifest = merged(plan.manifest, foreign)
            todo = [upload for upload in plan.uploads if upload.key not in present]
            _expect(meter, todo)
            _send_missing(store, todo, blob_ttl_s, meter, present)
        except StagingError as error:
            _prepare_another_try(error, cache, tries)
        else:
            return manifest
        trees = [scan(tree.path, tree.source) for tree in trees]
    raise AssertionError("unreachable: the loop ends by return or raise")


def _expect(meter: Meter, uploads: Sequence[Upload]) -> None:
    """Tell the meter what is to come, beside what an earlier try has sent."""
    sent = meter.phase
    meter.expect(
        sent.bytes + sum(upload.payload for upload in uploads) - (meter.expected_bytes or 0),
        sent.files + sum(upload.file_count for upload in uploads) - (meter.expected_files or 0),
    )


def _prepare_another_try(error: StagingError, cache: DigestCache, tries: int) -> None:
    """Forget what changed. Raises the error if it is about something else, or was the last."""
    changed = [failure for failure in error.failures if isinstance(failure, ChangedError)]
    for failure in changed:
        failure.tries = tries
        cache.forget(failure.file.identity)
    error.tries = error.failures[0].tries
    if tries == TRIES or len(changed) < len(error.failures):
        raise error


def _plan(layout: StoreLayout, trees: Sequence[Tree], cache: DigestCache) -> StageInPlan:
    grouping = group_inputs(trees)
    return plan_stage_in(trees, grouping, hash_inputs(grouping, cache), layout)


def survey(
    store: ObjectStore,
    layout: StoreLayout,
    trees: Sequence[Tree],
    cache: DigestCache,
    *,
    blob_ttl_s: float = BLOB_TTL_S,
) -> list[tuple[Upload, bool, str]]:
    """Say what stage-in would do, without doing it: (object, is it there already, why)."""
    uploads = _plan(layout, trees, cache).uploads
    tasks = [partial(is_needed, store, item.key, item.size, blob_ttl_s) for item in uploads]
    decisions = run_all("stage-in", tasks)
    return [
        (upload, not needed, reason)
        for upload, (needed, reason) in zip(uploads, decisions, strict=True)
    ]


def is_needed(store: ObjectStore, key: str, size: int, blob_ttl_s: float) -> tuple[bool, str]:
    """Decide whether a blob of `size` bytes must go up, and say why."""
    try:
        stored = store.head(key)
    except ObjectNotFoundError:
        stored = None
    # S3 refuses requests from a clock 15 minutes off, so ours is near enough to the store's
    return decide_upload(stored, size, datetime.now(timezone.utc), blob_ttl_s)


def _send_missing(
    store: ObjectStore,
    uploads: Sequence[Upload],
    blob_ttl_s: float,
    meter: Meter,
    present: set[str],
) -> None:
    """Send what the store lacks; note in `present` what is there afterwards."""
    budget = ByteBudget()

    def send(upload: Upload) -> None:
        needed, _ = is_needed(store, upload.key, upload.size, blob_ttl_s)
        if needed:
            progress = _Progress(meter)
            body = partial(_checked, upload, progress)
            with budget.holding(_held(upload.size)):
                _put(store, upload.key, upload.size, body)
            progress.end(upload.payload, upload.file_count)
        else:
            meter.expect(-upload.payload, -upload.file_count)
        present.add(upload.key)

    run_all("stage-in", [partial(send, upload) for upload in uploads])


def _held(size: int) -> int:
    """Return the bytes that are in memory while `size` bytes are sent."""
    return min(size, _PARTS_IN_FLIGHT * part_size(size))


def _put(store: ObjectStore, key: str, size: int, body: Callable[[], Iterator[bytes]]) -> None:
    try:
        store.put(key, body, size=size, part_size=part_size(size))
    except S3RunnerError as error:
        error.target = error.target or str(S3Uri(store.bucket, key))
        raise


class _Progress:
    """Payload bytes of one object, counted once although a try may begin it again."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._counted = 0

    def reach(self, position: int) -> None:
        """Note that the bytes before `position` have been taken."""
        if position > self._counted:
            self._meter.add(size=position - self._counted)
            self._counted = position

    def end(self, size: int, files: int) -> None:
        """Note that the object is there."""
        self.reach(size)
        self._meter.add(files=files)


def _checked(upload: Upload, progress: _Progress) -> Iterator[bytes]:
    """Yield the object's parts, each only if it is what was hashed. Raises ChangedError."""
    if isinstance(upload.source, PackSource):
        yield from _checked_pack(upload, upload.source)
        return
    with OpenFile(upload.source) as opened:
        for index, expected in enumerate(upload.parts):
            start, length = part_range(upload.size, index)
            part = opened.read(start, length)
            if sha256_hex(part) != expected:
                raise ChangedError(upload.source)
            progress.reach(start)
            yield part
            del part  # or the next part would be read while this one is still held


def _checked_pack(upload: Upload, source: PackSource) -> Iterator[bytes]:
    found: list[Parts] = []

    def compare(parts: Parts) -> None:
        if parts != upload.members[len(found)]:
            raise ChangedError(source.files[len(found)])
        found.append(parts)

    chunks = rechunk(pack_pieces(source, compare), part_size(upload.size))
    for chunk, expected in zip(chunks, upload.parts, strict=True):
        if sha256_hex(chunk) != expected:
            # all members before it were compared whole, so it is the one being read
            raise ChangedError(source.files[min(len(found), len(source.files) - 1)])
        yield chunk


def stage_out(
    store: ObjectStore,
    attempt: AttemptLayout,
    scan: OutputScan,
    *,
    declared_files: AbstractSet[str],
    meter: Meter,
) -> Manifest:
    """Send what `scan_outputs` found, each byte read once; return the tree that sync lays out.

    Small members of directories, and of globs with over 100 matches, go into packs unless
    `declared_files` names them. Raises UnsupportedError for outputs that clash, before anything is
    sent, and StagingError; a file that changes three times while it is sent is InputError (21).
    """
    meter.start()
    entries = {entry.path: entry for tree in scan.trees for entry in tree.entries}
    _refuse_clash(entries.values())
    packs, alone = group_outputs(scan.trees, declared_files)
    budget = ByteBudget()

    def send_file(path: str, file: LocalFile) -> tuple[Pack | None, tuple[Entry, ...]]:
        with budget.holding(_held(file.identity.size)):
            return None, (
                _steadily(partial(_send_output, store, attempt.out(path), path, file, meter)),
            )

    def send_pack(number: int, source: PackSource) -> tuple[Pack | None, tuple[Entry, ...]]:
        members = [
            (path, file.path, file.opened_from)
            for path, file in zip(source.paths, source.files, strict=True)
        ]
        with budget.holding(_held(source.plan.size)):
            return _steadily(partial(_send_pack, store, attempt.pack(number), members, meter))

    sent = run_all(
        "stage-out",
        [
            *(partial(send_pack, number, source) for number, source in enumerate(packs)),
            *(partial(send_file, path, file) for path, file in alone.items()),
        ],
    )
    entries |= {entry.path: entry for _, stored in sent for entry in stored}
    return make_manifest(entries.values(), [pack for pack, _ in sent if pack])


def _refuse_clash(entries: Iterable[Entry]) -> None:
    clash = conflict(sorted(entries, key=lambda entry: os.fsencode(entry.path)))
    if clash:
        raise UnsupportedError(
            f"two outputs clash: {clash}",
            operation="stage-out",
            hint="name each output by the path where it lies, not through a link",
        )


def _steadily(send: Callable[[], T]) -> T:
    """Begin again while what is sent changes. Raises ChangedError after TRIES tries."""
    for tries in count(1):
        try:
            return send()
        except ChangedError as error:
            error.tries = tries
            if tries == TRIES:
                raise
    raise AssertionError("unreachable: the loop ends by return or raise")


def _send_output(store: ObjectStore, key: str, path: str, file: LocalFile, meter: Meter) -> Entry:
    """Send one file, hashed as it goes."""
    file, found = look_again(file.path, file.opened_from)
    size = found.st_size
    parts: list[str] = []
    progress = _Progress(meter)

    def body() -> Iterator[bytes]:
        parts.clear()
        with OpenFile(file) as opened:
            for index in range(part_count(size)):
                start, length = part_range(size, index)
                part = opened.read(start, length)
                parts.append(sha256_hex(part))
                if start + length == size:
                    opened.check_unchanged()
                progress.reach(start)
                yield part
                del part  # or the next part would be read while this one is still held

    _put(store, key, size, body)
    progress.end(size, 1)
    return _stored_entry(path, found, tuple(parts), StoredAt(key))


def put_pack(
    store: ObjectStore, key: str, members: Sequence[tuple[str, str]], *, meter: Meter
) -> tuple[Pack, tuple[Entry, ...]]:
    """Send files (name, local path) of any size as one tar; return it and their entries.

    The path's directory is trusted, the file in it not: a link in its place is not followed.
    Raises InputError (missing, unreadable, changed three times), UnsupportedError (no file, or a
    name twice).
    """
    _refuse_clash(Entry(name, Kind.FILE, 0, 0) for name, _ in members)
    places = [(name, path, os.path.dirname(path)) for name, path in members]
    return _steadily(partial(_send_pack, store, key, places, meter))


def _send_pack(
    store: ObjectStore, key: str, members: Sequence[tuple[str, str, str]], meter: Meter
) -> tuple[Pack, tuple[Entry, ...]]:
    """Send files (name, local path, where it is opened from) as one tar, hashed as it goes."""
    looks = [look_again(path, root) for _, path, root in members]
    names = [name for name, *_ in members]
    plan = plan_pack((name, found.st_size) for name, (_, found) in zip(names, looks, strict=True))
    source = PackSource(plan, tuple(names), tuple(file for file, _ in looks))
    found_parts: list[Parts] = []
    pack_parts: list[str] = []

    def body() -> Iterator[bytes]:
        found_parts.clear()
        pack_parts.clear()
        for chunk in rechunk(pack_pieces(source, found_parts.append), part_size(plan.size)):
            pack_parts.append(sha256_hex(chunk))
            yield chunk

    _put(store, key, plan.size, body)
    meter.add(size=sum(member.size for member in plan.members), files=len(members))
    entries = tuple(
        _stored_entry(name, found, parts, StoredAt(key, member.offset))
        for name, (_, found), parts, member in zip(
            names, looks, found_parts, plan.members, strict=True
        )
    )
    return Pack(key, plan.size, combine(pack_parts), listed(pack_parts)), entries


def _stored_entry(path: str, found: os.stat_result, parts: Parts, at: StoredAt) -> Entry:
    return Entry(
        path,
        Kind.FILE,
        stat.S_IMODE(found.st_mode) & 0o777,
        found.st_mtime_ns,
        found.st_size,
        combine(parts),
        listed(parts),
        at=at,
    )

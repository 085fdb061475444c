"""Hashing what a stage-in needs, in threads, and only what the cache does not know.

Apart from uploading so that `plan` can name every object without sending one.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from s3runner.staging.digest import PartHasher, combine, part_count, part_range, part_size
from s3runner.staging.pack import Member
from s3runner.staging.parallel import run_all
from s3runner.staging.plan import Digests, Grouping, PackSource, Parts
from s3runner.staging.reading import OpenFile
from s3runner.staging.tree import LocalFile

if TYPE_CHECKING:  # it brings a database, which the stager does without
    from s3runner.staging.digest_cache import DigestCache


def hash_inputs(grouping: Grouping, cache: DigestCache) -> Digests:
    """Return the digests of every file and pack.

    Raises StagingError: InputError, or ChangedError for files that changed since the scan.
    """
    files = _hash_plain(grouping, cache)
    packs: list[Parts] = []
    tasks = [partial(_hash_pack, source, cache) for source in grouping.packs]
    for source, (members, parts) in zip(grouping.packs, run_all("stage-in", tasks), strict=True):
        files |= zip(source.paths, members, strict=True)
        packs.append(parts)
    return Digests(files, packs)


def _hash_plain(grouping: Grouping, cache: DigestCache) -> dict[str, Parts]:
    """Hash part by part, so that one large file keeps all threads busy."""
    known: dict[str, Parts] = {}
    unknown: dict[str, LocalFile] = {}
    for path, file in grouping.plain.items():
        cached = cache.get(file.identity)
        if cached is None:
            unknown[path] = file
        else:
            known[path] = cached.parts
    began_ns = cache.now_ns()
    tasks: list[Callable[[], str]] = [
        partial(parts.hash, index)
        for parts in map(_PartsOf, unknown.values())
        for index in range(part_count(parts.file.identity.size))
    ]
    hashes = iter(run_all("stage-in", tasks))
    with cache.together():
        for path, file in unknown.items():
            parts = tuple(next(hashes) for _ in range(part_count(file.identity.size)))
            known[path] = cache.put(file.identity, parts, began_ns).parts
    return known


class _PartsOf:
    """A file's parts, hashed by several threads; the first one that fails tells for all of them."""

    def __init__(self, file: LocalFile) -> None:
        self.file = file
        self._failed = False
        self._lock = threading.Lock()

    def hash(self, index: int) -> str:
        """Return one part's hash; nothing once another part has failed."""
        try:
            return "" if self._failed else _hash_part(self.file, index)
        except BaseException:
            with self._lock:
                first, self._failed = not self._failed, True
            if first:
                raise
            return ""


def hash_file(file: LocalFile) -> Parts:
    """Return a file's part digests. Raises InputError, or ChangedError if it changed."""
    return tuple(_hash_part(file, index) for index in range(part_count(file.identity.size)))


def _hash_part(file: LocalFile, index: int) -> str:
    digest = hashlib.sha256()
    with OpenFile(file) as opened:
        for piece in opened.pieces(*part_range(file.identity.size, index)):
            digest.update(piece)
        opened.check_unchanged()
    return digest.hexdigest()


def _hash_pack(source: PackSource, cache: DigestCache) -> tuple[tuple[Parts, ...], Parts]:
    """Return the parts of each member and of the pack itself."""
    cached = [cache.get(file.identity) for file in source.files]
    members = tuple(entry.parts for entry in cached if entry)
    if len(members) == len(cached):
        parts = cache.get_pack(_recipe(source, members))
        if parts is not None:
            return members, parts
    began_ns = cache.now_ns()
    found: list[Parts] = []
    whole = PartHasher(part_size(source.plan.size))
    for segment in pack_pieces(source, found.append):
        whole.update(segment)
    members, parts = tuple(found), whole.finish()
    with cache.together():
        for file, content in zip(source.files, members, strict=True):
            cache.put(file.identity, content, began_ns)
        cache.put_pack(_recipe(source, members), parts)
    return members, parts


def pack_pieces(source: PackSource, report: Callable[[Parts], None]) -> Iterator[bytes]:
    """Yield the pack's bytes as its files are read; report each file's parts, in their order.

    Raises ChangedError when a file is not the one that was scanned.
    """
    files = iter(source.files)
    for segment in source.plan.segments():
        if not isinstance(segment, Member):
            yield segment
            continue
        hasher = PartHasher(part_size(segment.size))
        with OpenFile(next(files)) as opened:
            for piece in opened.pieces(0, segment.size):
                hasher.update(piece)
                yield piece
            opened.check_unchanged()
        report(hasher.finish())


def _recipe(source: PackSource, members: Sequence[Parts]) -> str:
    """Name what a pack is made of: names and contents, in order."""
    made_of = [
        (os.fsencode(member.name).hex(), member.size, combine(parts))
        for member, parts in zip(source.plan.members, members, strict=True)
    ]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

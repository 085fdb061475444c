"""Reading a stored file from its beginning on, each part verified before it is given away.

Beside download because it makes no files: it feeds a pipe or a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from s3runner.errors import IntegrityError
from s3runner.model import Entry
from s3runner.staging.digest import part_count, part_range, parts_of, sha256_hex
from s3runner.store.protocol import Chunks, ObjectStore


def verified_pieces(store: ObjectStore, entry: Entry, start: int = 0) -> Iterator[bytes]:
    """Yield a file's bytes from `start`, one part (16 MiB, or more for huge files) at a time.

    An object that was never hashed by us is read with If-Match instead. Raises IntegrityError and
    the store's errors.
    """
    at = entry.at
    if at is None:
        return
    source = store if at.bucket in (None, store.bucket) else store.in_bucket(at.bucket)
    expected = parts_of(entry) or (None,) * part_count(entry.size)
    for index, digest in enumerate(expected):
        first, length = part_range(entry.size, index)
        if first + length > start:
            part = source.get(
                at.key,
                partial(_collected, expected=digest),
                start=first + (at.offset or 0),
                length=length,
                if_match=at.etag,
            )
            yield part[max(0, start - first) :]


def _collected(chunks: Chunks, expected: str | None) -> bytes:
    part = b"".join(chunks)
    if expected is not None and sha256_hex(part) != expected:
        raise IntegrityError("bytes arrived that are not the ones that were stored")
    return part

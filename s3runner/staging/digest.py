"""Names of content: part sizes, part digests, and the one digest they combine to.

Pure, and the only place that knows the rule, so that head and pod cut and name a file alike.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from s3runner.model import Entry, Pack

PART = 16 * 1024**2
"""The smallest part, in bytes."""

MAX_PARTS = 10_000
"""S3's limit for the parts of one upload."""

_SYNTAX = re.compile(r"sha256:([0-9a-f]{64})(?:-([1-9][0-9]{0,4}))?")


def part_size(size: int) -> int:
    """Return the part size in bytes of `size` bytes of content: a function of nothing else."""
    step = PART
    while step * MAX_PARTS < size:
        step *= 2
    return step


def part_count(size: int) -> int:
    """Return how many parts `size` bytes have; no bytes are one empty part."""
    return max(1, -(-size // part_size(size)))


def part_range(size: int, index: int) -> tuple[int, int]:
    """Return (first byte, length) of a part."""
    start = index * part_size(size)
    return start, min(part_size(size), size - start)


def sha256_hex(data: bytes | bytearray | memoryview) -> str:
    """Return the hex SHA-256 of one part."""
    return hashlib.sha256(data).hexdigest()


def combine(parts: Sequence[str]) -> str:
    """Return the digest of content with these part digests (hex).

    One part: its SHA-256. More: the SHA-256 of the part digests' bytes, and how many they are.
    """
    if len(parts) == 1:
        return f"sha256:{parts[0]}"
    return f"sha256:{sha256_hex(bytes.fromhex(''.join(parts)))}-{len(parts)}"


def listed(parts: Sequence[str]) -> tuple[str, ...]:
    """Return what a manifest lists beside the digest: nothing where the digest says it all."""
    return tuple(parts) if len(parts) > 1 else ()


def parts_of(item: Entry | Pack) -> tuple[str, ...]:
    """Return the hex digest of each part; nothing for a foreign file that was not read yet."""
    if item.parts or not item.digest:
        return item.parts
    return (item.digest.removeprefix("sha256:"),)


def digest_problem(digest: str, parts: Sequence[str], size: int) -> str:
    """Say what is wrong with the digest of `size` bytes and its listed parts; empty if nothing."""
    match = _SYNTAX.fullmatch(digest)
    if match is None:
        return f"not a digest: {digest!r}"
    count = int(match[2] or 1)
    if (match[2] == "1") or count != part_count(size):
        return f"{size} bytes have {part_count(size)} parts, not {match[2] or 1}"
    if len(parts) != (count if count > 1 else 0):
        return f"{len(parts)} part digests are listed for {count} parts"
    if not all(re.fullmatch("[0-9a-f]{64}", part) for part in parts):
        return "a part digest is not 64 hex digits"
    if parts and combine(parts) != digest:
        return "the part digests do not combine to the digest"
    return ""


class PartHasher:
    """Part digests of a stream, fed in chunks of any size.

    Args:
        part_size: bytes in each part but the last.
    """

    def __init__(self, part_size: int) -> None:
        self._part_size = part_size
        self._done: list[str] = []
        self._current = hashlib.sha256()
        self._filled = 0

    def update(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes of the stream."""
        view = memoryview(chunk)
        while view:
            if self._filled == self._part_size:
                self._close_part()
            piece = view[: self._part_size - self._filled]
            self._current.update(piece)
            self._filled += len(piece)
            view = view[len(piece) :]

    def _close_part(self) -> None:
        self._done.append(self._current.hexdigest())
        self._current = hashlib.sha256()
        self._filled = 0

    def finish(self) -> tuple[str, ...]:
        """Return the digests of all parts; an empty stream has one."""
        return (*self._done, self._current.hexdigest())

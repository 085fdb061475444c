"""Packs: a plain tar of many small files, so that a tree of them is one object.

Pure: it says where each byte goes; whoever has the files streams them through. A pack is a
function of names and content (sorted, no owner, no clock), so an unchanged tree makes the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SMALL = 1024**2
"""Files below this many bytes go into packs."""

MAX_PAYLOAD = 64 * 1024**2
"""Bytes of files in one pack; together with SMALL it bounds what a reader must fetch for one."""

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_NAME_LENGTH = 100
_OCTAL_LIMIT = 8**11
_REGULAR, _LONG_NAME = b"0", b"L"


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a pack: its name there, its size, and where its bytes begin (all in bytes)."""

    name: str
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class PackPlan:
    """A pack that could be made: members by offset, and the whole object's size in bytes."""

    members: tuple[Member, ...]
    size: int

    def segments(self) -> Iterator[bytes | Member]:
        """Yield the tar in order: bytes as they are, and members where their content stands."""
        for member in self.members:
            yield _header(member.name, member.size)
            yield member
            yield bytes(-member.size % _BLOCK)
        yield _END


def plan_packs(members: Iterable[tuple[str, int]]) -> list[PackPlan]:
    """Spread (name, size) over packs of at most MAX_PAYLOAD bytes, sorted by the names' bytes."""
    packs: list[PackPlan] = []
    batch: list[tuple[str, int]] = []
    payload = 0
    for name, size in sorted(members, key=lambda member: os.fsencode(member[0])):
        if batch and payload + size > MAX_PAYLOAD:
            packs.append(plan_pack(batch))
            batch, payload = [], 0
        batch.append((name, size))
        payload += size
    return [*packs, plan_pack(batch)] if batch else packs


def plan_pack(members: Iterable[tuple[str, int]]) -> PackPlan:
    """Lay (name, size) out in one pack, in the order given."""
    position = 0
    placed = []
    for name, size in members:
        offset = position + len(_header(name, size))
        placed.append(Member(name, size, offset))
        position = offset + size + -size % _BLOCK
    return PackPlan(tuple(placed), position + len(_END))


def rechunk(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes in chunks of exactly `size`, but the last; holds one at a time."""
    held: list[bytes] = []
    filled = 0
    for piece in pieces:
        rest = memoryview(piece)
        while filled + len(rest) >= size:
            yield b"".join((*held, rest[: size - filled]))
            rest = rest[size - filled :]
            held, filled = [], 0
        if rest:
            held.append(piece if len(rest) == len(piece) else bytes(rest))
            filled += len(rest)
    if held:
        yield b"".join(held)


def _header(name: str, size: int) -> bytes:
    """Return the GNU tar header of a file.

    Made here because `tarfile` takes ten times as long, and a tree of 10,000 small files needs
    20,000 headers to be staged.
    """
    raw = os.fsencode(name)
    if len(raw) <= _NAME_LENGTH:
        return _block(raw, size, _REGULAR)
    long_name = raw + b"\0"
    padding = bytes(-len(long_name) % _BLOCK)
    return b"".join(
        (
            _block(b"././@LongLink", len(long_name), _LONG_NAME),
            long_name,
            padding,
            _block(raw[:_NAME_LENGTH], size, _REGULAR),
        )
    )


def _block(name: bytes, size: int, kind: bytes) -> bytes:
    """Return one header block: mode 0644, owner 0, mtime 0."""
    octal = size < _OCTAL_LIMIT
    length = b"%011o\0" % size if octal else b"\x80" + size.to_bytes(11, "big")
    front = b"".join(
        (name.ljust(_NAME_LENGTH, b"\0"), b"0000644\0", b"0000000\0" * 2, length, b"0" * 11, b"\0")
    )
    # the checksum counts its own field as eight blanks
    total = sum(front) + 8 * 0x20 + sum(kind) + sum(b"ustar  ")
    rest = kind + bytes(_NAME_LENGTH) + b"ustar  \0"
    return (front + b"%06o\0 " % total + rest).ljust(_BLOCK, b"\0")

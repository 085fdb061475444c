"""What the head has hashed before: SQLite, shared by processes and threads, safe to delete.

Apart from hashing because it decides when a remembered digest may be believed. It never fails a
job: a database that is damaged or locked is a warning, and then everything is hashed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from s3runner.staging.tree import Identity

SETTLED_NS = 2 * 10**9
"""A file changed within this time of hashing may change again without its times showing it."""

LOCAL_KINDS = frozenset(
    {
        *("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs"),
        *("overlay", "ramfs", "reiserfs", "tmpfs", "xfs", "zfs"),
    }
)
"""File systems whose times and inode numbers can be believed; network and FUSE ones cannot."""

_VERSION = 2
_LOCK_TIMEOUT_S = 5.0
_SCHEMA = """
create table if not exists files (
    dev integer, ino integer, size integer, mtime_ns integer, ctime_ns integer,
    parts text not null, uri text, "offset" integer, racy integer not null, primary key (dev, ino)
) without rowid;
create table if not exists packs (recipe text primary key, parts text not null) without rowid;
create table if not exists synced_packs (
    uri text primary key, size integer not null, parts text not null
) without rowid;
"""


@dataclass(frozen=True, slots=True)
class SyncedFrom:
    """Where a synced output came from: an object's URI and, for a member of a pack, the offset."""

    uri: str
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Cached:
    """What is known of a file: the hex SHA-256 of its parts, and a synced output's origin."""

    parts: tuple[str, ...]
    origin: SyncedFrom | None = None


class DigestCache:
    """Digests by file identity.

    Args:
        path: the database; its directory is made. None remembers nothing.
        clock: nanoseconds since the epoch by the clock that file times come from.
        mountinfo: the kernel's list of mounts, in the format of /proc/self/mountinfo.
    """

    def __init__(
        self,
        path: Path | None,
        clock: Callable[[], int],
        mountinfo: Path = Path("/proc/self/mountinfo"),
    ) -> None:
        self.now_ns = clock
        self.warnings: list[str] = []
        self._path = path
        self._mounts = _Mounts(mountinfo)
        self._lock = threading.RLock()
        self._database = self._open(path) if path else None

    def _open(self, path: Path) -> sqlite3.Connection | None:
        database = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(
                path,
                timeout=_LOCK_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            # write-ahead logging needs memory shared by all that write: one machine
            local = self._mounts.are_local(path.parent.stat().st_dev)
            database.execute(f"pragma journal_mode = {'wal' if local else 'truncate'}")
            database.execute("pragma synchronous = normal")
            self._migrate(database)
        except (OSError, sqlite3.Error) as error:
            if database:
                database.close()
            self._warn(error)
            return None
        return database

    def _migrate(self, database: sqlite3.Connection) -> None:
        """Make the tables; what an older version remembered is dropped, a newer one's is kept."""
        if _version_of(database) == _VERSION:
            return
        # a lock first: another process may be at it, and the looser finds it done
        database.execute("begin immediate")
        found = _version_of(database)
        if found > _VERSION:
            raise sqlite3.DatabaseError(f"it is of version {found}, not {_VERSION}")
        dropped = "drop table if exists files; drop table if exists packs;"
        for statement in f"{dropped if found < _VERSION else ''}{_SCHEMA}".split(";"):
            database.execute(statement)
        database.execute(f"pragma user_version = {_VERSION}")
        database.execute("commit")

    def _warn(self, error: Exception) -> None:
        self.warnings.append(
            f"digest cache {self._path}: {error}: working without it, every file is hashed"
            " (the cache can be deleted at any time)"
        )

    def close(self) -> None:
        """Let the database go; afterwards nothing is remembered."""
        with self._lock:
            if self._database:
                self._database.close()
            self._database = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write all that is put inside at once: much faster than one by one, for many files."""
        with self._lock:
            # immediate: a transaction that begins as a reader may find itself unable to write
            self._query("begin immediate", ())
            try:
                yield
            finally:
                self._query("commit", ())

    def _query(self, statement: str, values: Sequence[object]) -> tuple[object, ...] | None:
        """Run one statement; return its first row. The first failure ends the cache's use."""
        with self._lock:
            if self._database is None:
                return None
            try:
                row: tuple[object, ...] | None = self._database.execute(
                    statement, values
                ).fetchone()
            except sqlite3.Error as error:
                self._warn(error)
                with suppress(sqlite3.Error):
                    self._database.close()
                self._database = None
                return None
        return row

    def get(self, identity: Identity) -> Cached | None:
        """Return what is known of the file; None if it must be hashed."""
        cached, racy = self._row(identity)
        return None if racy else cached

    def origin_of(self, identity: Identity) -> SyncedFrom | None:
        """Return where a synced output came from, if this file may still be it.

        Its bytes are to be hashed before that is believed: see `put_synced`.
        """
        cached, _ = self._row(identity)
        return cached.origin if cached is not None else None

    def has_synced(self) -> bool:
        """Tell whether any synced output is remembered."""
        return self._query("select 1 from files where uri is not null limit 1", ()) is not None

    def _row(self, identity: Identity) -> tuple[Cached | None, bool]:
        # a synced output that was moved, or had its mode changed, has another ctime: hashing it
        # shows whether it has other bytes, too
        row = self._query(
            'select parts, uri, "offset", racy or ctime_ns <> ?5 from files where dev = ?1'
            " and ino = ?2 and size = ?3 and mtime_ns = ?4 and (ctime_ns = ?5 or uri is not null)",
            _key(identity),
        )
        if row is None:
            return None, False
        parts, uri, offset, racy = row
        origin = None if uri is None else SyncedFrom(str(uri), _whole_number(offset))
        return Cached(tuple(str(parts).split()), origin), bool(racy)

    def put(self, identity: Identity, parts: Sequence[str], hashing_began_ns: int) -> Cached:
        """Remember what hashing found; return it with the origin, where one is known.

        Nothing is stored for a file whose mtime or ctime was not over 2 s old when hashing began,
        nor for one on a network or FUSE mount. A synced output's origin stays if the digest agrees.
        """
        known, racy = self._row(identity)
        agrees = known is not None and known.parts == tuple(parts)
        origin = known.origin if known and agrees else None
        newest = max(identity.mtime_ns, identity.ctime_ns)
        if hashing_began_ns - newest > SETTLED_NS and self._mounts.are_local(identity.dev):
            self._store(identity, parts, origin, racy=False)
        elif not (racy and agrees):
            self.forget(identity)
        return Cached(tuple(parts), origin)

    def put_synced(self, identity: Identity, parts: Sequence[str], origin: SyncedFrom) -> None:
        """Remember an output that has just been synced and where it came from.

        It is too young to be believed, so it is hashed at its first use; `put` then keeps the
        origin. A pack that it came from is remembered apart, by `put_synced_pack`.
        """
        if self._mounts.are_local(identity.dev):
            self._store(identity, parts, origin, racy=True)

    def put_synced_pack(self, uri: str, size: int, parts: Sequence[str]) -> None:
        """Remember the size and parts of a pack that synced outputs came from."""
        self._query(
            "insert or replace into synced_packs values (?, ?, ?)", (uri, size, _text(parts))
        )

    def get_synced_pack(self, uri: str) -> tuple[int, tuple[str, ...]] | None:
        """Return the size and parts of a pack that synced outputs came from."""
        row = self._query("select size, parts from synced_packs where uri = ?", (uri,))
        size = _whole_number(row[0]) if row else None
        return None if row is None or size is None else (size, tuple(str(row[1]).split()))

    def forget(self, identity: Identity) -> None:
        """Believe nothing of this file any more: its content was not what was remembered."""
        self._query(
            "delete from files where dev = ? and ino = ?", (identity.dev, _signed(identity.ino))
        )

    def get_pack(self, recipe: str) -> tuple[str, ...] | None:
        """Return the parts of the pack made by `recipe`, a digest of its names and contents."""
        row = self._query("select parts from packs where recipe = ?", (recipe,))
        return None if row is None else tuple(str(row[0]).split())

    def put_pack(self, recipe: str, parts: Sequence[str]) -> None:
        """Remember the parts of a pack; true for ever, as they follow from the recipe."""
        self._query("insert or replace into packs values (?, ?)", (recipe, _text(parts)))

    def _store(
        self, identity: Identity, parts: Sequence[str], origin: SyncedFrom | None, *, racy: bool
    ) -> None:
        uri, offset = (origin.uri, origin.offset) if origin else (None, None)
        self._query(
            "insert or replace into files values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*_key(identity), _text(parts), uri, offset, int(racy)),
        )


def _version_of(database: sqlite3.Connection) -> int:
    return int(database.execute("pragma user_version").fetchone()[0])


def _text(parts: Sequence[str]) -> str:
    return " ".join(parts)


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _key(identity: Identity) -> tuple[int, ...]:
    return (
        identity.dev,
        _signed(identity.ino),
        identity.size,
        identity.mtime_ns,
        identity.ctime_ns,
    )


def _signed(number: int) -> int:
    """Return an unsigned 64-bit number as the signed one that SQLite holds."""
    return number - 2**64 if number >= 2**63 else number


class _Mounts:
    """Which devices are local file systems, by the kernel's list of mounts."""

    def __init__(self, mountinfo: Path) -> None:
        self._mountinfo = mountinfo
        self._kinds: dict[int, str] = {}

    def are_local(self, dev: int) -> bool:
        """Whether files on this device can be remembered.

        A device that the list does not name is local: only btrfs subvolumes and overlays show
        another number in `stat` than there.
        """
        if dev not in self._kinds:
            self._kinds = {**self._read(), dev: self._read().get(dev, "overlay")}
        return self._kinds[dev] in LOCAL_KINDS

    def _read(self) -> dict[int, str]:
        kinds: dict[int, str] = {}
        try:
            lines = self._mountinfo.read_text(errors="surrogateescape").splitlines()
        except OSError:
            return kinds
        for line in lines:
            left, _, right = line.partition(" - ")
            fields = left.split()
            with suppress(ValueError, IndexError):
                major, minor = fields[2].split(":")
                kinds[os.makedev(int(major), int(minor))] = right.split()[0]
        return kinds

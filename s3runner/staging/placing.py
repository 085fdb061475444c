"""Making files, directories and links on this disk, whole or not at all.

Apart from `download`, which knows the store: here is what a full disk, a umask, a long name or
something in the way means.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress

from s3runner.errors import (
    LocalAccessError,
    NoSpaceError,
    OutputConflictError,
    S3RunnerError,
    UnsupportedError,
)
from s3runner.model import Entry, Kind

_OURS = 0o700
_TEMP_PREFIX = ".s3runner-"
"""Temporary names never derive from the file's own: that may have all 255 bytes."""

_UNNAMEABLE = (
    errno.EILSEQ, errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.ENOSYS, errno.EOPNOTSUPP,
)  # fmt: skip
_IN_THE_WAY = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def placed_mode(entry: Entry, *, widen: bool) -> int:
    """Return the permission bits that a file or directory gets here.

    Its own, but readable to its owner, or to everyone with `widen` (executable to everyone if to
    anyone), so that a tool that runs as another user can read its inputs.
    """
    if entry.kind is Kind.DIR:
        return entry.mode | (0o755 if widen else 0o500)
    executable = 0o111 if widen and entry.mode & 0o111 else 0
    return entry.mode | (0o444 if widen else 0o400) | executable


def local_error(error: OSError, path: str, needed: int = 0) -> S3RunnerError:
    """Return our error for a path that could not be written; `needed` is its size in bytes."""
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    if number == errno.ENOSPC:
        return no_space(path, needed)
    if number == errno.EDQUOT:
        # the disk itself may have any number of bytes free
        return NoSpaceError(f"the disk quota is used up{_more_than(needed)}", target=path)
    if number in _UNNAMEABLE:
        return UnsupportedError(
            f"the disk cannot hold this file or name ({reason})",
            target=path,
            hint="put it on a disk with another file system",
        )
    if number in _IN_THE_WAY:
        return OutputConflictError(f"something else is in its place ({reason})", target=path)
    if number in _DENIED:
        return LocalAccessError(f"cannot be written ({reason})", target=path)
    return S3RunnerError(f"cannot be written ({reason})", target=path)


def no_space(path: str, needed: int) -> NoSpaceError:
    """Return the error for a disk that cannot hold `needed` more bytes at `path`."""
    reason = f"the disk is full{_more_than(needed)}"
    with suppress(OSError):
        disk = os.statvfs(_directory_above(path))
        no_inodes = disk.f_files and not disk.f_ffree
        reason += ": no inodes free" if no_inodes else f": {_free_bytes(disk)} bytes free"
    return NoSpaceError(reason, target=path)


def _more_than(needed: int) -> str:
    return f" ({needed} bytes needed)" if needed else ""


def _directory_above(path: str) -> str:
    """Return the nearest directory that is there already."""
    above = os.path.dirname(path)
    while above not in ("", "/") and not os.path.isdir(above):
        above = os.path.dirname(above)
    return above or "."


def _free_bytes(disk: os.statvfs_result) -> int:
    blocks = disk.f_bavail if os.geteuid() else disk.f_bfree
    return blocks * disk.f_frsize


def check_space(places: Iterable[tuple[str, int]]) -> None:
    """Refuse (path, size) that cannot fit, before anything is made.

    Raises NoSpaceError naming the largest file of the disk that is too small.
    """
    disks: dict[str, int] = {}
    needs: dict[int, list[tuple[int, str]]] = {}
    for path, size in places:
        directory = os.path.dirname(path)
        if directory not in disks:
            disks[directory] = os.stat(_directory_above(path)).st_dev
        needs.setdefault(disks[directory], []).append((size, path))
    for sizes in needs.values():
        needed = sum(size for size, _ in sizes)
        path = max(sizes)[1]
        disk = os.statvfs(_directory_above(path))
        if needed > _free_bytes(disk):
            raise no_space(path, needed)
        if disk.f_files and len(sizes) > disk.f_ffree:
            raise NoSpaceError(
                f"the disk is full ({len(sizes)} inodes needed): {disk.f_ffree} free", target=path
            )


def make_directory(local: str, mode: int = _OURS, *, ours: bool = True) -> None:
    """Make a directory, ours alone until it is finished; a real one that is there serves.

    One that is there may be read-only, which is changed if it is `ours`. Raises OSError: a link to
    a directory is in the way of one.
    """
    try:
        os.mkdir(local, mode)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(local).st_mode):
            raise
        if not ours:
            return
    found = os.lstat(local)
    # the umask may take even our own bits
    if found.st_mode & _OURS != _OURS:
        os.chmod(local, stat.S_IMODE(found.st_mode) | _OURS)


def finish_directory(local: str, entry: Entry, mode: int) -> None:
    """Give a filled directory its own mode and time."""
    os.chmod(local, mode)
    os.utime(local, ns=(entry.mtime_ns, entry.mtime_ns))


def make_link(local: str, entry: Entry, mark: str = "") -> None:
    """Put a symbolic link in place, replacing a file or link. Raises OSError."""
    temporary = temporary_beside(local, mark)
    os.symlink(entry.target, temporary)
    try:
        os.utime(temporary, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
        os.replace(temporary, local)
    except BaseException:
        os.unlink(temporary)
        raise


def temporary_beside(local: str, mark: str = "") -> str:
    """Return a path in the same directory that nobody has; `beginning_of` a mark tells whose."""
    return os.path.join(os.path.dirname(local), f"{beginning_of(mark)}{os.urandom(8).hex()}")


def beginning_of(mark: str) -> str:
    """Return what the names of all temporaries of a mark begin with."""
    return f"{_TEMP_PREFIX}{mark}-" if mark else _TEMP_PREFIX


class IncomingFile:
    """A file on its way: bytes at any offset from any thread, then kept or discarded.

    Only `keep` gives it its name. Raises S3RunnerErrors for what the disk refuses.
    """

    def __init__(self, local: str, entry: Entry, mode: int, mark: str = "") -> None:
        self.local = local
        self._entry = entry
        self._mode = mode
        self._mark = mark
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._temporary = ""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store bytes; storing the same again is fine."""
        try:
            fd = self._open()
            view = memoryview(data)
            while view:
                written = os.pwrite(fd, view, offset)
                view = view[written:]
                offset += written
        except OSError as error:
            raise local_error(error, self.local, self._entry.size) from error

    def _open(self) -> int:
        with self._lock:
            if self._fd is None:
                temporary = temporary_beside(self.local, self._mark)
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                self._fd = os.open(temporary, flags, 0o600)
                self._temporary = temporary
            return self._fd

    def keep(self) -> None:
        """Give the file its mode, time and name; it replaces a file or link."""
        try:
            fd = self._open()
            os.fchmod(fd, self._mode)
            os.utime(fd, ns=(self._entry.mtime_ns, self._entry.mtime_ns))
            # a full network disk may say so only here
            self._close()
            os.replace(self._temporary, self.local)
            self._temporary = ""
        except OSError as error:
            raise local_error(error, self.local, self._entry.size) from error

    def _close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def discard(self) -> None:
        """Remove what was not kept; nothing happens after `keep`."""
        with suppress(OSError):
            self._close()
        if self._temporary:
            with suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = ""

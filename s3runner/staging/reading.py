"""Reading local files while someone may be changing them.

Apart from the scanner and the uploader because both, and hashing, need the same care: no link is
followed, no FIFO waited for, and a file that is not the one that was scanned is an error.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import NoReturn

from s3runner.errors import InputError, S3RunnerError, UnsupportedError
from s3runner.staging.tree import Identity, LocalFile

CHUNK = 1024**2
"""Bytes read at once where a whole part is not needed."""

_READ = os.O_RDONLY | os.O_NONBLOCK
_SEARCH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_UNNAMEABLE = (errno.ENAMETOOLONG, errno.EILSEQ)


class ChangedError(InputError):
    """A file changed between scan and end of reading; staging tries again with a new scan."""

    def __init__(self, file: LocalFile) -> None:
        super().__init__(
            "changed while it was staged",
            source=file.path,
            hint="wait until nothing writes to it any more",
        )
        self.file = file


def unreadable(error: OSError, path: str) -> S3RunnerError:
    """Return our error for a local path that could not be looked at or read."""
    if error.errno in _UNNAMEABLE:
        return UnsupportedError("the path is too long for this system", source=path)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return InputError("no such file or directory", source=path)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return InputError(f"cannot be read: {reason}", source=path)


def refuse_kind(
    mode: int, path: str, wanted: str = "a file, directory or link"
) -> UnsupportedError:
    """Return the error for something at `path` that is not what is wanted there."""
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a block device",
        stat.S_IFCHR: "a character device",
    }
    kind = kinds.get(stat.S_IFMT(mode), "of an unknown kind")
    return UnsupportedError(f"it is {kind}, not {wanted}", source=path)


def open_beneath(root: str, path: str, flags: int = _READ) -> int:
    """Open `path`, the directory `root` or something below it, through no link below `root`.

    Component by component, so that whoever may write below `root` cannot lead us out of it,
    however often they put links in place of what was there. Raises OSError, and UnsupportedError
    naming a link that stands in the way. With O_PATH a link at `path` itself is opened, not
    followed.
    """
    names = [name for name in path.removeprefix(root).split("/") if name] or ["."]
    here = os.open(root, _SEARCH)
    try:
        for depth, name in enumerate(names, 1):
            step = _SEARCH if depth < len(names) else flags | os.O_CLOEXEC
            try:
                below = os.open(name, step | os.O_NOFOLLOW, dir_fd=here)
            except OSError as error:
                _refuse_link(error, here, name, "/".join((root.rstrip("/"), *names[:depth])))
                raise
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


def _refuse_link(error: OSError, directory: int, name: str, path: str) -> None:
    """Raise UnsupportedError if what could not be opened is a link."""
    if error.errno not in (errno.ELOOP, errno.ENOTDIR):
        return
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        raise refuse_kind(found.st_mode, path, "a file or directory") from error


def stat_beneath(root: str, path: str) -> os.stat_result:
    """Look at `path`, without opening it, in the way of `open_beneath`."""
    fd = open_beneath(root, path, os.O_PATH)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


class OpenFile:
    """A scanned file, open for reading; a context manager.

    Raises ChangedError when it is not the file that was scanned, InputError when unreadable.
    """

    def __init__(self, file: LocalFile) -> None:
        self._file = file
        self._fd = -1

    def __enter__(self) -> OpenFile:  # noqa: PYI034 # typing.Self is Python 3.11
        try:
            self._fd = open_beneath(self._file.opened_from, self._file.path)
        except UnsupportedError as error:
            raise ChangedError(self._file) from error
        except OSError as error:
            if error.errno in _REPLACED:
                raise ChangedError(self._file) from error
            raise unreadable(error, self._file.path) from error
        try:
            self.check_unchanged()
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._fd)

    def check_unchanged(self) -> None:
        """Compare with the scan. Raises ChangedError."""
        found = os.fstat(self._fd)
        if Identity.of(found) != self._file.identity or not stat.S_ISREG(found.st_mode):
            raise ChangedError(self._file)
        if found.st_size == 0 and os.pread(self._fd, 1, 0):
            raise UnsupportedError(
                "the file has bytes but no size, as those of /proc and /sys have",
                source=self._file.path,
                hint="copy what it shows into a file, and name that one",
            )

    def read(self, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start`. Raises ChangedError where they end before."""
        pieces: list[bytes] = []
        while length:
            try:
                piece = os.pread(self._fd, length, start)
            except OSError as error:
                self._fail(error)
            if not piece:
                raise ChangedError(self._file)
            pieces.append(piece)
            start += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def pieces(self, start: int, length: int) -> Iterator[bytes]:
        """Yield `length` bytes from `start` in pieces of at most CHUNK bytes."""
        for position in range(start, start + length, CHUNK):
            yield self.read(position, min(CHUNK, start + length - position))

    def _fail(self, error: OSError) -> NoReturn:
        if error.errno == errno.ESTALE:
            raise ChangedError(self._file) from error
        raise unreadable(error, self._file.path) from error


def look_again(path: str, root: str) -> tuple[LocalFile, os.stat_result]:
    """Return the regular file at `path` as it is now, reached from `root` through no link.

    Raises InputError, UnsupportedError.
    """
    try:
        found = stat_beneath(root, path)
    except OSError as error:
        raise unreadable(error, path) from error
    if not stat.S_ISREG(found.st_mode):
        raise refuse_kind(found.st_mode, path, "a file")
    return LocalFile(path, Identity.of(found), root), found

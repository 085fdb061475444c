"""Looking at one directory tree: every entry by `lstat`, no link followed, no file opened.

Apart from `scan`, which decides what to look at.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from s3runner.errors import InputError, S3RunnerError, UnsupportedError
from s3runner.model import Entry, Kind
from s3runner.staging.links import escaping_links
from s3runner.staging.manifest import MAX_SIZE
from s3runner.staging.reading import open_beneath, refuse_kind, stat_beneath, unreadable
from s3runner.staging.tree import Identity, LocalFile

_SPECIAL_BITS = 0o7000
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_Directory = tuple[str, str, os.stat_result]
"""One that is to be listed: its path in the job, its path here, and what it was when seen."""


@dataclass
class Findings:
    """What a walk gathers: entries by their path in the job, files, and refusals."""

    entries: dict[str, Entry] = field(default_factory=dict)
    files: dict[str, LocalFile] = field(default_factory=dict)
    failures: list[S3RunnerError] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    _added: list[Entry] = field(default_factory=list)
    _root: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is left out of the copy without being an error."""
        if not self.special:
            return ()
        first, count = self.special[0], len(self.special)
        others = f" (and those of {count - 1} others)" if count > 1 else ""
        return (f"{first}: its setuid, setgid or sticky bit is dropped{others}",)

    def ordered(self) -> tuple[Entry, ...]:
        """Return the entries sorted by their paths' bytes: a directory before what is in it."""
        return tuple(sorted(self.entries.values(), key=lambda entry: os.fsencode(entry.path)))

    def add_tree(self, path: str, local: str, root: str) -> None:
        """Add the file or directory at `local`, and all below it, as `path`.

        `local` is the directory `root` or lies below it, and nothing is reached through a link
        below `root`. Links in the tree are checked against it.
        """
        self._added, self._root = [], root
        todo: list[_Directory] = []
        try:
            found = stat_beneath(root, local)
            if stat.S_ISLNK(found.st_mode):
                raise refuse_kind(found.st_mode, local, "a file or directory")
            if self._add(path, local, found, None):
                todo.append((path, local, found))
        except (OSError, UnsupportedError) as error:
            self._refuse(error, local)
        while todo:
            todo += self._add_content(todo.pop())
        for link in escaping_links(self._added):
            where = local + link.path[len(path) :]
            self.failures.append(
                UnsupportedError(
                    f"the link leads out of the directory ({link.target!r})",
                    source=where,
                    hint="name what it points to as an input or output of its own",
                )
            )

    def _add_content(self, directory: _Directory) -> list[_Directory]:
        """Add what is in a directory; return the directories among it."""
        path, local, seen = directory
        below: list[_Directory] = []
        try:
            fd = _open_directory(self._root, local, seen)
        except (OSError, UnsupportedError) as error:
            self._refuse(error, local)
            return []
        try:
            for name in os.listdir(fd):
                here, there = f"{path}/{name}", os.path.join(local, name)
                try:
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if self._add(here, there, found, fd):
                        below.append((here, there, found))
                except OSError as error:
                    self._refuse(error, there)
        except OSError as error:
            self._refuse(error, local)
        finally:
            os.close(fd)
        return below

    def _add(self, path: str, local: str, found: os.stat_result, directory: int | None) -> bool:
        """Add one entry, of an open directory or by itself; return whether it is a directory.

        Raises OSError.
        """
        mode = stat.S_IMODE(found.st_mode)
        name = local if directory is None else os.path.basename(local)
        if stat.S_ISLNK(found.st_mode):
            target = os.readlink(name, dir_fd=directory)
            self._put(Entry(path, Kind.SYMLINK, 0o777, found.st_mtime_ns, target=target))
            return False
        if stat.S_ISDIR(found.st_mode):
            # a pod's fsGroup sets setgid on its volumes, and each new directory inherits it
            self._note_special(mode & ~stat.S_ISGID, local)
            self._put(Entry(path, Kind.DIR, mode & 0o777, found.st_mtime_ns))
            return True
        if not stat.S_ISREG(found.st_mode):
            self.failures.append(refuse_kind(found.st_mode, local))
            return False
        effective = os.access in os.supports_effective_ids
        if not os.access(name, os.R_OK, dir_fd=directory, effective_ids=effective):
            self.failures.append(InputError("cannot be read: Permission denied", source=local))
            return False
        if found.st_size > MAX_SIZE:
            self.failures.append(_too_large(found.st_size, local))
            return False
        self._note_special(mode, local)
        entry = Entry(path, Kind.FILE, mode & 0o777, found.st_mtime_ns, found.st_size)
        if self._put(entry):
            self.files[path] = LocalFile(local, Identity.of(found), self._root)
        return False

    def _refuse(self, error: OSError | UnsupportedError, local: str) -> None:
        refusal = unreadable(error, local) if isinstance(error, OSError) else error
        self.failures.append(refusal)

    def _note_special(self, mode: int, local: str) -> None:
        if mode & _SPECIAL_BITS:
            self.special.append(local)

    def _put(self, entry: Entry) -> bool:
        """Add an entry unless its path is there already; return whether it was added."""
        if self.entries.setdefault(entry.path, entry) is not entry:
            return False
        self._added.append(entry)
        return True


def _too_large(size: int, local: str) -> UnsupportedError:
    return UnsupportedError(
        f"it has {size} bytes, and an object of S3 has {MAX_SIZE} at most",
        source=local,
        hint="split it",
    )


def _open_directory(root: str, local: str, seen: os.stat_result) -> int:
    """Open a directory that was seen below `root`; what else its path may lead to is not opened.

    Raises OSError, UnsupportedError.
    """
    fd = os.open(local, _LIST)
    if os.path.samestat(os.fstat(fd), seen):
        return fd
    os.close(fd)
    # a link above it, a rename, or a mount on demand; always to go this way is quadratic in depth
    return open_beneath(root, local, _LIST)

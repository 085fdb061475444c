"""Looking at one directory tree: every entry by `lstat`, nothing followed, nothing opened.

Apart from `scan`, which decides what to look at.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from s3runner.errors import InputError, S3RunnerError, UnsupportedError
from s3runner.model import Entry, Kind
from s3runner.staging.links import escaping_links
from s3runner.staging.reading import refuse_kind, unreadable
from s3runner.staging.tree import Identity, LocalFile

_SPECIAL_BITS = 0o7000


@dataclass
class Findings:
    """What a walk gathers: entries by their path in the job, files, and refusals."""

    entries: dict[str, Entry] = field(default_factory=dict)
    files: dict[str, LocalFile] = field(default_factory=dict)
    failures: list[S3RunnerError] = field(default_factory=list)
    special: list[str] = field(default_factory=list)

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

    def add_tree(self, path: str, local: str) -> None:
        """Add the file or directory at `local`, and all below it, as `path`.

        `local` itself is no link. Links below it are checked against it.
        """
        todo = [(path, local)]
        links: list[Entry] = []
        start = len(self.entries)
        while todo:
            here, there = todo.pop()
            try:
                found = os.lstat(there)
                names = self._add(here, there, found)
            except OSError as error:
                self.failures.append(unreadable(error, there))
                continue
            prefix = there if there.endswith("/") else f"{there}/"
            todo += [(f"{here}/{name}", f"{prefix}{name}") for name in names]
        links = list(self.entries.values())[start:]
        for link in escaping_links(links):
            where = local + link.path[len(path) :]
            self.failures.append(
                UnsupportedError(
                    f"the link leads out of the directory ({link.target!r})",
                    source=where,
                    hint="name what it points to as an input or output of its own",
                )
            )

    def _add(self, path: str, local: str, found: os.stat_result) -> list[str]:
        """Add one entry; return the names below it. Raises OSError."""
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            target = os.readlink(local)
            self._put(Entry(path, Kind.SYMLINK, 0o777, found.st_mtime_ns, target=target))
            return []
        if stat.S_ISDIR(found.st_mode):
            self._note_special(mode, local)
            self._put(Entry(path, Kind.DIR, mode & 0o777, found.st_mtime_ns))
            return os.listdir(local)
        if not stat.S_ISREG(found.st_mode):
            self.failures.append(refuse_kind(found.st_mode, local))
            return []
        if not os.access(local, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
            self.failures.append(InputError("cannot be read: Permission denied", source=local))
            return []
        self._note_special(mode, local)
        entry = Entry(path, Kind.FILE, mode & 0o777, found.st_mtime_ns, found.st_size)
        if self._put(entry):
            self.files[path] = LocalFile(local, Identity.of(found))
        return []

    def _note_special(self, mode: int, local: str) -> None:
        if mode & _SPECIAL_BITS:
            self.special.append(local)

    def _put(self, entry: Entry) -> bool:
        """Add an entry unless its path is there already; return whether it was added."""
        return self.entries.setdefault(entry.path, entry) is entry

"""What a scan found: entries, and the local files behind them.

Values only, so that planning can hold them without touching a disk.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from s3runner.model import Entry


@dataclass(frozen=True, slots=True)
class Identity:
    """What must stay the same for a local file to count as unchanged."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Identity:
        """Return the identity that `stat` tells."""
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file here, by its absolute path, as the scan saw it.

    It is opened from the directory `root` on, through no link; its own directory if none is named.
    """

    path: str
    identity: Identity
    root: str = ""

    @property
    def opened_from(self) -> str:
        """The directory whose path is taken as it is, links included."""
        return self.root or os.path.dirname(self.path)


@dataclass(frozen=True, slots=True)
class Tree:
    """One input or output: a file, a directory with all that is in it, or a glob's matches.

    `path` is the declared path (or pattern) in the job and `source` where it lies here. Entries
    have no digest and no place yet; `files` maps the path of each file's entry to the file.
    """

    path: str
    source: str
    entries: tuple[Entry, ...]
    files: Mapping[str, LocalFile]
    warnings: tuple[str, ...] = ()


def without(tree: Tree, paths: Container[str]) -> Tree:
    """Return a tree without some of its files."""
    return replace(
        tree,
        entries=tuple(entry for entry in tree.entries if entry.path not in paths),
        files={path: file for path, file in tree.files.items() if path not in paths},
    )

"""Whether a local directory already is what a manifest says, before anything replaces it.

Apart from `download` because it only looks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from s3runner.errors import S3RunnerError
from s3runner.model import Entry, Kind, Manifest
from s3runner.staging.digest import PartHasher, combine, part_size
from s3runner.staging.placing import placed_mode
from s3runner.staging.reading import OpenFile
from s3runner.staging.tree import Identity, LocalFile


def differences(manifest: Manifest, place: Callable[[str], str]) -> list[str]:
    """Say how what lies here differs from the manifest: local path and reason; empty if equal.

    Compared are kind, size, mode, content, link target, and names that only one side has; not
    times. A file that cannot be read differs.
    """
    found: list[str] = []
    names: dict[str, set[str]] = {
        entry.path: set() for entry in manifest.entries if entry.kind is Kind.DIR
    }
    for entry in manifest.entries:
        above, _, name = entry.path.rpartition("/")
        if above in names:
            names[above].add(name)
    for entry in manifest.entries:
        local = place(entry.path)
        reason = _difference(entry, local)
        if reason:
            found.append(f"{local}: {reason}")
        elif entry.kind is Kind.DIR:
            extra = set(os.listdir(local)) - names[entry.path]
            found += [f"{os.path.join(local, name)}: not in the output" for name in sorted(extra)]
    return found


def _difference(entry: Entry, local: str) -> str:
    try:
        here = os.lstat(local)
    except OSError:
        return "is not there"
    kinds = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIR, stat.S_IFLNK: Kind.SYMLINK}
    if kinds.get(stat.S_IFMT(here.st_mode)) is not entry.kind:
        return f"is no {entry.kind.value}"
    if entry.kind is Kind.SYMLINK:
        return "" if os.readlink(local) == entry.target else "points elsewhere"
    return _inode_difference(entry, local, here)


def _inode_difference(entry: Entry, local: str, here: os.stat_result) -> str:
    """Compare two files or two directories."""
    if stat.S_IMODE(here.st_mode) & 0o777 != placed_mode(entry, widen=False):
        return f"has other permissions ({stat.S_IMODE(here.st_mode):o})"
    if entry.kind is Kind.DIR:
        return ""
    if here.st_size != entry.size:
        return f"has another size ({here.st_size} bytes)"
    return (
        "" if _digest(LocalFile(local, Identity.of(here))) == entry.digest else "has other content"
    )


def _digest(file: LocalFile) -> str:
    """Return the file's digest; nothing if it cannot be read."""
    hasher = PartHasher(part_size(file.identity.size))
    try:
        with OpenFile(file) as opened:
            for piece in opened.pieces(0, file.identity.size):
                hasher.update(piece)
    except S3RunnerError:
        return ""
    return combine(hasher.finish())

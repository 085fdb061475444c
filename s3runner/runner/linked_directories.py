"""Directories with links into the bucket: how gc knows them again, and what they lead to.

Apart from gc, which only asks the store: here is the other end of a link, on some disk.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from s3runner.errors import SettingsError
from s3runner.staging.placing import temporary_beside

MARK = ".s3runner-links"
"""A file in each such directory, with its id: a path may be another directory elsewhere."""

_JOB = re.compile(r"/jobs/([^/]+)/attempts/")
_BLOB = re.compile(r"/blobs/([0-9a-f]{2})/(\1[0-9a-f]{62}(?:-[1-9][0-9]*)?)")


@dataclass(frozen=True, slots=True)
class Linked:
    """What links lead to: `directories` are the ids of those that were searched, all of each."""

    directories: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()
    blobs: frozenset[str] = frozenset()


def id_of(directory: str) -> str:
    """Return a directory's id. Raises SettingsError where there is none."""
    try:
        return Path(directory, MARK).read_text().strip()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise SettingsError(
            f"{directory}: no links were made in it: {MARK}: {why}",
            hint="name the directories of Galaxy's object store, where it runs",
        ) from error


def give_ids(directories: Iterable[str]) -> Mapping[str, str]:
    """Return each directory's id, made where there is none yet. Raises OSError."""
    return {directory: _give_id(directory) for directory in directories}


def _give_id(directory: str) -> str:
    place = Path(directory, MARK)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        # several processes may be at it: the first one's counts, whole
        temporary = Path(temporary_beside(str(place)))
        temporary.write_text(f"{uuid.uuid4()}\n")
        with suppress(FileExistsError):
            os.link(temporary, place)
        temporary.unlink()
    return id_of(directory)


def find_links(directories: Iterable[str]) -> Linked:
    """Search directories for links. Raises SettingsError for one without an id, or unreadable."""
    ids = {directory: id_of(directory) for directory in directories}
    jobs: set[str] = set()
    blobs: set[str] = set()
    for directory in ids:
        for above, names in _walk(directory):
            for target in _targets(above, names):
                jobs.update(_JOB.findall(target))
                blobs.update(name for _, name in _BLOB.findall(target))
    return Linked(frozenset(ids.values()), frozenset(jobs), frozenset(blobs))


def _walk(directory: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each directory with the names in it, those behind links to directories, too.

    Part of a store may lie elsewhere; what is overlooked there would count as linked by nobody.
    """
    seen: set[tuple[int, int]] = set()
    for above, below, names in os.walk(directory, onerror=_refuse, followlinks=True):
        yield above, [*below, *names]
        below[:] = [name for name in below if _is_new(Path(above, name), seen)]


def _is_new(directory: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        found = directory.stat()
    except OSError as error:
        _refuse(error)
        return False
    identity = (found.st_dev, found.st_ino)
    is_new = identity not in seen
    seen.add(identity)
    return is_new


def _targets(above: str, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        path = Path(above, name)
        if path.is_symlink():
            # what is not there any more leads nowhere
            with suppress(FileNotFoundError):
                yield str(path.readlink())


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise SettingsError(f"{error.filename}: {os.strerror(error.errno or 0)}") from error

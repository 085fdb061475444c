"""Where results land on this machine, and what must not stand in their way.

Apart from sync because it is asked twice: before a job runs, for what can be known then, and again
when its results are there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from s3runner.errors import OutputConflictError, S3RunnerError, StagingError, UnsupportedError
from s3runner.model import Kind, Manifest, Output
from s3runner.runner.folding import indistinct
from s3runner.staging.compare import differences
from s3runner.staging.globs import has_wildcard

STREAMS = ".s3runner"
"""Below the place of the outputs: stdout, stderr, exit_code and result.json."""


@dataclass(frozen=True)
class Places:
    """Where outputs land: relative ones below `into`, absolute ones at their own path.

    When the user named a directory on the command line, absolute ones are gathered below it too.
    """

    into: Path
    gather_absolute: bool

    def __call__(self, path: str) -> str:
        """Return the local path of an output's path in the job."""
        if not path.startswith("/"):
            return str(self.into / path)
        return str(self.into / path.lstrip("/")) if self.gather_absolute else path


def check_places(outputs: Iterable[Output], places: Places, *, overwrite: bool) -> None:
    """Refuse before anything runs what sync would refuse afterwards, as far as it can be known.

    Raises StagingError of OutputConflictError (28): a literal output whose place is a directory
    with something in it (unless `overwrite`), a file where a directory is needed, two outputs in
    one place.
    """
    literal = [output.path for output in outputs if not has_wildcard(output.path)]
    conflicts: list[S3RunnerError] = [*_shared_places(literal, places)]
    for path in (".", *literal):
        place = Path(places(path))
        # in the directory of the results there are always the streams
        blocker = _file_above(place / STREAMS if path == "." else place)
        if blocker is not None:
            conflicts.append(_conflict(path, str(place), f"{blocker} is no directory"))
        elif path != "." and not overwrite and _holds_something(place):
            conflicts.append(_conflict(path, str(place), "a directory is there already"))
    _raise(conflicts)


def to_be_placed(trees: Iterable[Manifest], places: Places, *, overwrite: bool) -> list[Manifest]:
    """Return the trees without the directories that are here already as they should be.

    Raises StagingError of OutputConflictError (28) for directories that would be replaced by
    something that differs, unless `overwrite`.
    """
    needed: list[Manifest] = []
    conflicts: list[OutputConflictError] = []
    for tree in trees:
        reason = _obstacle(tree, places)
        if reason is None:
            continue
        needed.append(tree)
        if reason and not overwrite:
            top = tree.entries[0].path
            conflicts.append(_conflict(top, places(top), reason))
    _raise(conflicts)
    return needed


def _obstacle(tree: Manifest, places: Places) -> str | None:
    """Say what would be lost if the tree were placed; None if it is there already."""
    top = tree.entries[0]
    place = places(top.path)
    if top.kind is not Kind.DIR:
        return "a directory stands in its place" if is_directory(place) else ""
    if not os.path.lexists(place):
        return ""
    found = differences(tree, places)
    if not found:
        return None
    empty = is_directory(place) and not _holds_something(Path(place))
    return "" if empty else f"the directory differs: {found[0]}"


def refuse_shared_places(manifest: Manifest, places: Places) -> None:
    """Refuse results of which two would land in one place, or under one name of the disk."""
    _raise(_shared_places((entry.path for entry in manifest.entries), places))


def is_directory(place: str) -> bool:
    """Tell whether there is a real directory, not a link to one."""
    path = Path(place)
    return path.is_dir() and not path.is_symlink()


def _shared_places(paths: Iterable[str], places: Places) -> Iterator[S3RunnerError]:
    taken: dict[str, str] = {}
    for path in paths:
        place = places(path)
        other = taken.setdefault(place, path)
        if other != path:
            yield _conflict(path, place, f"{other} would land there too")
    for one, two in indistinct(taken):
        yield UnsupportedError(
            f"the disk takes it and {taken[one]} for one name",
            operation="sync",
            source=taken[two],
            target=two,
            hint="name a directory on a disk with another file system with --into",
        )


def _holds_something(place: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return is_directory(str(place)) and any(place.iterdir())
    return False


def _file_above(place: Path) -> Path | None:
    """Return what stands where one of the directories above `place` must be."""
    nearest = next((above for above in place.parents if os.path.lexists(above)), None)
    return nearest if nearest is not None and not nearest.is_dir() else None


def _conflict(path: str, place: str, reason: str) -> OutputConflictError:
    return OutputConflictError(
        reason,
        operation="sync",
        source=path,
        target=place,
        hint="--overwrite replaces a directory, --into DIR puts the outputs elsewhere",
    )


def _raise(conflicts: Iterable[S3RunnerError]) -> None:
    found = list(conflicts)
    if found:
        raise StagingError("sync", found)

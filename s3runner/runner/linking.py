"""Results that stay where they are: links into a directory through which the bucket is seen.

Apart from sync, which brings bytes: here nothing is linked that gc could take, or that the mounted
directory does not show.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from s3runner.errors import IntegrityError, StoreUnavailableError
from s3runner.model import Entry, Kind, Manifest
from s3runner.runner.head import Head
from s3runner.runner.report import SYNC
from s3runner.staging.digest import part_count, part_range, parts_of
from s3runner.staging.keeping import Keeping
from s3runner.staging.parallel import run_all
from s3runner.staging.placing import local_error, make_link
from s3runner.staging.reading import CHUNK

_LONGEST_NAME = 255


class NotShownError(StoreUnavailableError):
    """The mounted bucket does not show what the store has: it is away, or what it knows is old."""


@dataclass(frozen=True)
class Links:
    """Where results may be links, and into which directory.

    `mount` shows the bucket, from its root on; `directories` maps those that the links end up in
    to their ids (`linked_directories`). `place_of` says where the link to a file is to be, None for
    one that may not be a link; it is asked with paths in the job for results, here for inputs.
    """

    mount: str
    directories: Mapping[str, str]
    place_of: Callable[[str], str | None]

    def path_of(self, key: str) -> str:
        """Return where a key is seen."""
        return f"{self.mount.rstrip('/')}/{key}"


def choose(head: Head, job_id: str, manifest: Manifest, links: Links) -> tuple[Entry, ...]:
    """Return the outputs that are to be links, once their job is kept.

    Not among them: what is empty, in a directory, or in a pack, has a key that no file system can
    hold, or may not be a link; and nothing of a job that cannot be kept.
    """
    directories = {entry.path for entry in manifest.entries if entry.kind is Kind.DIR}
    chosen = tuple(
        entry
        for entry in manifest.entries
        if _may_be_link(entry, links)
        and directories.isdisjoint(map(str, PurePosixPath(entry.path).parents))
    )
    keeping = Keeping(head.store, head.layout, head.lifetimes)
    return chosen if chosen and keeping.keep_job(job_id, links.directories.values()) else ()


def _may_be_link(entry: Entry, links: Links) -> bool:
    at = entry.at
    if entry.kind is not Kind.FILE or not entry.size or at is None or at.offset is not None:
        return False
    names = at.key.split("/")
    nameable = all(len(os.fsencode(name)) <= _LONGEST_NAME for name in names)
    return nameable and links.place_of(entry.path) is not None


def make_links(entries: Sequence[Entry], links: Links, mark: str) -> None:
    """Put links in the outputs' places, after all of them were seen through the mount.

    Raises StagingError of NotShownError or IntegrityError, and before the first link is made;
    or what the disk refuses.
    """
    run_all(SYNC, [partial(_see, entry, links) for entry in entries])
    for entry in entries:
        place = Path(links.place_of(entry.path) or entry.path)
        target = links.path_of(entry.at.key if entry.at else "")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            make_link(str(place), replace(entry, kind=Kind.SYMLINK, target=target), mark)
        except OSError as error:
            raise local_error(error, str(place)).during(SYNC) from error


def _see(entry: Entry, links: Links) -> None:
    """Compare size and last part with what was staged out; the whole would go through the head."""
    last = part_count(entry.size) - 1
    check_seen(links.path_of(entry.at.key if entry.at else ""), entry, range(last, last + 1))


def check_seen(path: str, entry: Entry, parts: Sequence[int] | None = None) -> None:
    """Read an object through the mount, or some of its parts, and compare it with its digests.

    Raises NotShownError and IntegrityError, both worth another try.
    """
    digests = parts_of(entry)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _not_shown(path, os.strerror(error.errno or 0)) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
            raise _not_shown(path, f"it shows {found.st_size} bytes of {entry.size}")
        for index in range(len(digests)) if parts is None else parts:
            if _hash(fd, *part_range(entry.size, index)) != digests[index]:
                raise IntegrityError("the mount shows other bytes than were stored", source=path)
    except OSError as error:
        raise _not_shown(path, os.strerror(error.errno or 0)) from error
    finally:
        os.close(fd)


def _hash(fd: int, start: int, length: int) -> str:
    digest = hashlib.sha256()
    while length:
        piece = os.pread(fd, min(CHUNK, length), start)
        if not piece:
            break
        digest.update(piece)
        start, length = start + len(piece), length - len(piece)
    return digest.hexdigest()


def _not_shown(path: str, reason: str) -> NotShownError:
    return NotShownError(
        f"the mounted bucket does not show it ({reason})",
        source=path,
        hint="mount the bucket there; the results are in the store",
    )


def require_mount(mount: str) -> None:
    """Raise NotShownError with a sentence if the bucket cannot be seen in a directory.

    It has to be on a read-only file system: nobody may change through it what jobs have stored.
    """
    try:
        is_directory = stat.S_ISDIR(Path(mount).stat().st_mode)
        flags = os.statvfs(mount).f_flag
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    else:
        if is_directory and flags & os.ST_RDONLY:
            return
        reason = "nothing is mounted there read-only" if is_directory else "it is no directory"
    raise NotShownError(
        f"the bucket is not seen in {mount}: {reason}", hint="mount the bucket there, read-only"
    )

"""Local inputs that give way to links: the store keeps their bytes, this machine the name.

The only place where s3runner takes a file away, and only on request. Apart from sync because a
mistake here loses data: a path leads to the same bytes at every moment, whatever ends us when.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from s3runner.errors import S3RunnerError
from s3runner.model import Entry, Kind
from s3runner.runner.head import Head
from s3runner.runner.linking import Links, check_seen
from s3runner.runner.report import Listener
from s3runner.runner.restaging import read_inputs
from s3runner.staging.digest import parts_of
from s3runner.staging.expiry import job_of
from s3runner.staging.hashing import hash_file
from s3runner.staging.keeping import Keeping, Kept
from s3runner.staging.placing import make_link
from s3runner.staging.records import Spec
from s3runner.staging.tree import Identity, LocalFile


@dataclass(frozen=True, slots=True)
class _Input:
    """A local file, and the object that it was staged as."""

    path: str
    entry: Entry
    key: str


def hand_over(head: Head, spec: Spec, links: Links, listener: Listener) -> None:
    """Put links in the places of a job's inputs where `links` allows it; the others stay.

    An input that cannot be handed over is a warning, and none for the next one.
    """
    for found in _inputs(head, spec, links):
        try:
            why = _hand_over(head, found, links)
        except (OSError, S3RunnerError) as error:
            why = str(error)
        if why:
            listener.warning(f"{found.path} stays on this machine: {why}")
        else:
            listener.note(f"{found.path} is a link to {head.config.uri(found.key)} now")


def _inputs(head: Head, spec: Spec, links: Links) -> Iterator[_Input]:
    """Yield the inputs that are single files here and single objects in our bucket."""
    for entry in read_inputs(head, spec).entries:
        path, at = spec.sources.get(entry.path), entry.at
        if path is None or at is None or entry.kind is not Kind.FILE:
            continue
        is_ours = at.offset is None and not (at.bucket or at.url or at.etag)
        if is_ours and entry.size and links.place_of(path) and not Path(path).is_symlink():
            yield _Input(path, entry, at.key)


def _hand_over(head: Head, found: _Input, links: Links) -> str:
    """Replace one file; return why not, or nothing."""
    identity = _alone(found.path)
    if identity is None:
        return "it is no regular file, or has other names (hard links)"
    cached = head.cache.get(identity)
    parts = cached.parts if cached else hash_file(LocalFile(found.path, identity))
    if identity.size != found.entry.size or parts != parts_of(found.entry):
        return "it is not what was staged in any more"
    if not _is_kept(head, found, links):
        return "what was staged in is too old to rely upon"
    target = links.path_of(found.key)
    check_seen(target, found.entry)
    if _alone(found.path) != identity:
        return "it changed meanwhile"
    # one rename: whoever opens the path gets the file or, from then on, what the link leads to
    make_link(found.path, replace(found.entry, kind=Kind.SYMLINK, target=target))
    return ""


def _alone(path: str) -> Identity | None:
    """Return the identity of a regular file that has this one name, None for anything else."""
    found = os.lstat(path)
    is_alone = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    return Identity.of(found) if is_alone else None


def _is_kept(head: Head, found: _Input, links: Links) -> bool:
    """See to it that gc leaves the object alone, before anything relies on it."""
    keeping = Keeping(head.store, head.layout, head.lifetimes)
    job_id = job_of(found.key, head.layout)
    if job_id is not None:
        return keeping.keep_job(job_id, links.directories.values())
    if not found.key.startswith(head.layout.blobs_prefix):
        return False
    directory = next(
        mark for place, mark in links.directories.items() if found.path.startswith(f"{place}/")
    )
    kept = Kept(found.entry.size, parts_of(found.entry), directory)
    return keeping.keep_blob(found.key, kept)

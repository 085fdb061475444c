"""What gc may take, decided from listings and documents without touching anything.

Pure, so that every row of the rule can be tested. Ages are by the store's clock on both sides: its
`modified` against its own idea of now.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from s3runner.model import Manifest
from s3runner.staging.layout import JobLayout, StoreLayout
from s3runner.store.protocol import StoredObject

DAY_S = 86400.0

_BLOB = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}(-[1-9][0-9]*)?")
_MARK = re.compile(r"([0-9a-f]{2})/((?:\1)[0-9a-f]{62}(?:-[1-9][0-9]*)?)/([^/]+)\.json")
_PROBE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long gc leaves things alone, in seconds.

    `leftover_s` is for what a crash left behind: probes, and uploads that nobody goes on with.
    """

    blob_s: float
    job_s: float
    leftover_s: float = DAY_S


DEFAULT_LIFETIMES = Lifetimes(blob_s=30 * DAY_S, job_s=90 * DAY_S)


@dataclass(frozen=True, slots=True)
class StoredJob:
    """What a listing says of one job. `committed` is the age of its commit, None without one.

    `unlinked`: it is kept for links, and none of them is left.
    """

    job_id: str
    objects: int = 0
    size: int = 0
    has_spec: bool = False
    kept: bool = False
    unlinked: bool = False
    committed: datetime | None = None


def is_older(then: datetime, now: datetime, seconds: float) -> bool:
    """Tell whether more than `seconds` lie between the two."""
    return now - then > timedelta(seconds=seconds)


def is_near_its_end(then: datetime, now: datetime, ttl_s: float) -> bool:
    """Tell whether stage-in relies on it no more: a third of its time is over.

    The other two thirds are how long one stage-in may take until its spec protects what it names.
    """
    return is_older(then, now, ttl_s / 3)


def old_blobs(
    found: Iterable[StoredObject], layout: StoreLayout, now: datetime, ttl_s: float
) -> list[StoredObject]:
    """Return the blobs whose time is over; whatever else lies there is not ours to judge."""
    return _old(found, layout.blobs_prefix, _BLOB, now - timedelta(seconds=ttl_s))


def old_probes(
    found: Iterable[StoredObject], layout: StoreLayout, now: datetime, ttl_s: float
) -> list[StoredObject]:
    """Return the probes that a crash left behind."""
    return _old(found, layout.probes_prefix, _PROBE, now - timedelta(seconds=ttl_s))


def _old(
    found: Iterable[StoredObject], prefix: str, name: re.Pattern[str], before: datetime
) -> list[StoredObject]:
    return [
        item
        for item in found
        if item.modified < before and name.fullmatch(item.key.removeprefix(prefix))
    ]


def jobs_in(found: Iterable[StoredObject], layout: StoreLayout) -> dict[str, StoredJob]:
    """Sum up a listing of all jobs, by job id."""
    jobs: dict[str, StoredJob] = {}
    for item in found:
        job_id = job_of(item.key, layout)
        if job_id is None:
            continue
        job, keys = jobs.get(job_id) or StoredJob(job_id), layout.job(job_id)
        jobs[job_id] = replace(
            job,
            objects=job.objects + 1,
            size=job.size + item.size,
            has_spec=job.has_spec or item.key == keys.spec,
            kept=job.kept or item.key == keys.keep,
            committed=item.modified if item.key == keys.commit else job.committed,
        )
    return jobs


def job_of(key: str, layout: StoreLayout) -> str | None:
    """Return the job below whose prefix a key lies."""
    if not key.startswith(layout.jobs_prefix):
        return None
    job_id, slash, rest = key[len(layout.jobs_prefix) :].partition("/")
    return job_id if job_id and slash and rest else None


def expired_jobs(jobs: Mapping[str, StoredJob], now: datetime, ttl_s: float) -> Iterator[StoredJob]:
    """Yield the jobs that may go unless another one needs them.

    | commit.json | keep.json | may go |
    |---|---|---|
    | none | | never: the job has not ended |
    | any | yes | no, unless it is for links of which none is left: as without it |
    | younger than the time | no | not yet |
    | older | no | yes |
    """
    for job in jobs.values():
        stays = job.committed is None or (job.kept and not job.unlinked)
        if not stays and _has_ended_before(job, now, ttl_s):
            yield job


def old_kept_jobs(
    jobs: Mapping[str, StoredJob], now: datetime, ttl_s: float
) -> Iterator[StoredJob]:
    """Yield the jobs that are there only because they are kept."""
    for job in jobs.values():
        if job.kept and _has_ended_before(job, now, ttl_s):
            yield job


def _has_ended_before(job: StoredJob, now: datetime, ttl_s: float) -> bool:
    return job.committed is not None and is_older(job.committed, now, ttl_s)


@dataclass(frozen=True, slots=True)
class Mark:
    """What keeps a blob for links in one directory, which is named by its id."""

    stored: StoredObject
    blob: str
    directory: str


def marks_in(found: Iterable[StoredObject], layout: StoreLayout) -> Iterator[Mark]:
    """Yield the marks of kept blobs; whatever else lies there is not ours to judge."""
    for item in found:
        match = _MARK.fullmatch(item.key.removeprefix(layout.kept_prefix))
        if match:
            yield Mark(item, layout.blob(match[2]), match[3])


def unlinked_marks(
    marks: Iterable[Mark], directories: Container[str], blobs: Container[str], before: datetime
) -> Iterator[Mark]:
    """Yield those for links in these directories, where none leads to the blob.

    `blobs` are the names that links lead to. What is younger may be of a link that was not there
    yet when the directories were searched.
    """
    for mark in marks:
        is_linked = mark.blob.rpartition("/")[2] in blobs
        if mark.directory in directories and not is_linked and mark.stored.modified < before:
            yield mark


def keys_named(manifest: Manifest, bucket: str) -> set[str]:
    """Return the keys of our own bucket that a job's inputs lie at."""
    places = [entry.at for entry in manifest.entries if entry.at is not None]
    keys = {at.key for at in places if at.bucket in (None, bucket) and at.url is None}
    return keys | {pack.key for pack in manifest.packs}


def removal_steps(keys: JobLayout, found: Iterable[str]) -> list[list[str]]:
    """Put a job's keys in the order of their removal: each list is gone before the next begins.

    1. `spec.json`: no head takes the job up any more ("there is no job").
    2. Results and manifests: no later job can take an output that is about to go.
    3. All the rest.
    4. `commit.json`: whatever stops gc before this leaves a job that has still ended and is still
       expired, so the next gc goes on. Without its commit it would count as running, for ever.
    """
    steps: list[list[str]] = [[], [], [], []]
    documents = re.compile(re.escape(keys.attempts_prefix) + r"[^/]+/(result|manifest)\.json")
    for key in found:
        if key == keys.spec:
            steps[0].append(key)
        elif documents.fullmatch(key):
            steps[1].append(key)
        else:
            steps[3 if key == keys.commit else 2].append(key)
    return steps

"""Taking away what nobody needs any more: old blobs, expired jobs, what crashes left behind.

It stands apart from the verbs on a job because it needs no cluster, and no destination. The order
of its listings is the rule: jobs are listed again after everything that may go.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from s3runner.errors import (
    IntegrityError,
    ObjectNotFoundError,
    S3RunnerError,
    SpecError,
    StagingError,
)
from s3runner.model import Manifest, StoreConfig
from s3runner.runner.linked_directories import Linked
from s3runner.staging.expiry import (
    Lifetimes,
    StoredJob,
    expired_jobs,
    job_of,
    jobs_in,
    keys_named,
    marks_in,
    old_blobs,
    old_kept_jobs,
    old_probes,
    removal_steps,
    unlinked_marks,
)
from s3runner.staging.keeping import directories_in
from s3runner.staging.layout import StoreLayout
from s3runner.staging.manifest import load_manifest, parse_document
from s3runner.staging.named import read_named
from s3runner.staging.parallel import run_all
from s3runner.staging.records import Commit, ExternalManifest, Spec
from s3runner.store.protocol import OpenUpload, StoreControl, StoredObject
from s3runner.store.retrying import Retry, RetryingStore, read

_BATCH = 10_000
"""Objects that are asked for together: there may be a million."""

_TOGETHER = 1000
"""Objects of small jobs that go together."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """What is to go, or has gone. Sizes are in bytes. `marks` are what blobs were kept by."""

    jobs: tuple[StoredJob, ...] = ()
    blobs: tuple[StoredObject, ...] = ()
    uploads: tuple[OpenUpload, ...] = ()
    probes: tuple[StoredObject, ...] = ()
    marks: tuple[StoredObject, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        objects = sum(item.size for item in (*self.blobs, *self.probes, *self.marks))
        return objects + sum(job.size for job in self.jobs) + sum(up.size for up in self.uploads)


@dataclass(frozen=True)
class Collector:
    """Finds garbage below one prefix, and removes it. Safe to stop anywhere, and to run twice.

    What is kept for links in directories that were searched for them (`linked`) is kept no longer
    once none of them is left.
    """

    store: RetryingStore
    control: StoreControl
    config: StoreConfig
    lifetimes: Lifetimes
    retry: Retry = field(default_factory=Retry)
    linked: Linked = field(default_factory=Linked)

    def collect(self, *, dry_run: bool) -> Garbage:
        """Remove what nobody needs any more; return what went, or with `dry_run` would go.

        Raises StagingError, naming each, if a job that has not ended cannot be read: what it needs
        is not known, so nothing is removed then.
        """
        try:
            found = self._find()
            return found if dry_run else self._remove(found)
        except S3RunnerError as error:
            error.during("gc")
            raise

    @property
    def _layout(self) -> StoreLayout:
        return StoreLayout(self.config.prefix)

    def _find(self) -> Garbage:
        now, times, layout = self.retry.call(self.control.now), self.lifetimes, self._layout
        stale = now - timedelta(seconds=times.leftover_s)
        jobs = jobs_in(self.store.list(layout.jobs_prefix), layout)
        jobs |= self._unlinked(tuple(old_kept_jobs(jobs, now, times.job_s)))
        expired = tuple(expired_jobs(jobs, now, times.job_s))
        undecided = {job.job_id for job in expired if not self._has_commit(job)}
        blobs = old_blobs(self.store.list(layout.blobs_prefix), layout, now, times.blob_s)
        kept, marks = self._marks(now - timedelta(seconds=times.blob_s))
        found = Garbage(
            jobs=tuple(job for job in expired if job.job_id not in undecided),
            blobs=tuple(item for item in blobs if item.key not in kept),
            uploads=self._idle_uploads(stale),
            probes=tuple(
                old_probes(self.store.list(layout.probes_prefix), layout, now, times.leftover_s)
            ),
            marks=marks,
        )
        if not (found.jobs or found.blobs or found.uploads):
            return found
        return self._without_needed(found, undecided)

    def _unlinked(self, kept: Sequence[StoredJob]) -> dict[str, StoredJob]:
        """Return the kept jobs that no link in the directories that they are kept for leads to."""
        if not self.linked.directories:
            return {}
        lonely = [job for job in kept if job.job_id not in self.linked.jobs]
        answers = run_all("gc", [partial(self._directories_of, job) for job in lonely])
        return {
            job.job_id: replace(job, unlinked=True)
            for job, directories in zip(lonely, answers, strict=True)
            if directories is not None and directories <= self.linked.directories
        }

    def _directories_of(self, job: StoredJob) -> frozenset[str] | None:
        key = self._layout.job(job.job_id).keep
        try:
            return directories_in(read(self.store, key), self.config.uri(key))
        except (ObjectNotFoundError, SpecError):
            return None

    def _marks(self, before: datetime) -> tuple[set[str], tuple[StoredObject, ...]]:
        """Return the blobs that are kept, and the marks that are no longer for anything."""
        linked = self.linked
        marks = list(marks_in(self.store.list(self._layout.kept_prefix), self._layout))
        gone = set(unlinked_marks(marks, linked.directories, linked.blobs, before))
        kept = {mark.blob for mark in marks if mark not in gone}
        return kept, tuple(mark.stored for mark in gone)

    def _has_commit(self, job: StoredJob) -> bool:
        """Tell whether the commit is one: a damaged one decides nothing."""
        key = self._layout.job(job.job_id).commit
        try:
            Commit.load(read(self.store, key), self.config.uri(key))
        except ObjectNotFoundError:
            # another gc has just ended what a third one began
            return True
        except SpecError:
            return False
        return True

    def _idle_uploads(self, before: datetime) -> tuple[OpenUpload, ...]:
        """Return the uploads that nobody goes on with, where we put files and nowhere else."""
        prefixes = (self._layout.blobs_prefix, self._layout.jobs_prefix)
        asked = (partial(self.control.idle_uploads, prefix, before) for prefix in prefixes)
        return tuple(upload for ask in asked for upload in self.retry.call(ask))

    def _without_needed(self, found: Garbage, undecided: AbstractSet[str]) -> Garbage:
        """Return the part that no job needs, by a listing that is younger than all of it."""
        layout = self._layout
        jobs = jobs_in(self.store.list(layout.jobs_prefix), layout).values()
        open_jobs = [job for job in jobs if job.committed is None or job.job_id in undecided]
        blobs, ended = {item.key for item in found.blobs}, {job.job_id for job in found.jobs}
        needs = run_all(
            "gc", [partial(self._needs_of, job, blobs, ended) for job in open_jobs if job.has_spec]
        )
        needed = set[str]().union(*needs)
        unlinked = {job.job_id for job in found.jobs if job.unlinked}
        kept = (job for job in jobs if job.kept and job.job_id not in unlinked)
        spared = {job.job_id for job in (*open_jobs, *kept)}
        sources = spared | {job_of(key, layout) for key in needed}
        return Garbage(
            jobs=tuple(job for job in found.jobs if job.job_id not in sources),
            blobs=tuple(item for item in found.blobs if item.key not in needed),
            uploads=tuple(item for item in found.uploads if job_of(item.key, layout) not in spared),
            probes=found.probes,
            marks=found.marks,
        )

    def _needs_of(self, job: StoredJob, blobs: Collection[str], jobs: Collection[str]) -> set[str]:
        """Return the keys that a job's inputs lie at, as far as they are about to go."""
        try:
            named = keys_named(self._inputs_of(job), self.config.bucket)
        except (IntegrityError, SpecError) as error:
            where = self.config.uri(f"{self._layout.job(job.job_id).root}/")
            error.hint = (
                f"{error.hint}; " if error.hint else ""
            ) + f"while it cannot be read gc removes nothing; if nobody needs it, delete {where}"
            raise
        return {key for key in named if key in blobs or job_of(key, self._layout) in jobs}

    def _inputs_of(self, job: StoredJob) -> Manifest:
        key = self._layout.job(job.job_id).spec
        try:
            spec = Spec.load(read(self.store, key), self.config.uri(key))
        except ObjectNotFoundError:
            return Manifest()  # somebody removed the job meanwhile
        if not isinstance(spec.inputs, ExternalManifest):
            return spec.inputs
        origin = self.config.uri(spec.inputs.key)
        try:
            body = read_named(self.store, spec.inputs.key, spec.inputs.digest, origin)
        except ObjectNotFoundError as error:
            raise SpecError("the job's input manifest is missing", source=origin) from error
        return load_manifest(parse_document(body, origin), origin)

    def _remove(self, found: Garbage) -> Garbage:
        """Remove it; what the store does not let go hinders nothing else and is told at the end."""
        removal = _Removal(self.control, self.retry, self._layout)
        for job in found.jobs:
            keys = self._layout.job(job.job_id)
            objects = [item.key for item in self.store.list(f"{keys.root}/")]
            # somebody may have asked to keep it meanwhile
            if keys.keep not in objects or job.unlinked:
                removal.add(job, objects)
        removal.carry_out()
        gone = self._delete_unrenewed((*found.blobs, *found.probes, *found.marks))
        self.retry.call(lambda: self.control.abort(found.uploads))
        if removal.failures:
            raise StagingError("gc", removal.failures)
        return Garbage(
            jobs=tuple(removal.gone),
            blobs=tuple(item for item in found.blobs if item.key in gone),
            uploads=found.uploads,
            probes=tuple(item for item in found.probes if item.key in gone),
            marks=tuple(item for item in found.marks if item.key in gone),
        )

    def _delete_unrenewed(self, found: Sequence[StoredObject]) -> set[str]:
        """Delete what has not been put again since it was found; return the keys that are gone.

        One by one, so that between the look at an object and its end lies one request.
        """
        gone: set[str] = set()
        for start in range(0, len(found), _BATCH):
            batch = found[start : start + _BATCH]
            tasks = [partial(self.store.delete_unless_renewed, item) for item in batch]
            done = run_all("gc", tasks)
            gone |= {item.key for item, is_gone in zip(batch, done, strict=True) if is_gone}
        return gone


class _Removal:
    """Jobs on their way out, many in one request: nothing below them is put again."""

    def __init__(self, control: StoreControl, retry: Retry, layout: StoreLayout) -> None:
        self.gone: list[StoredJob] = []
        self.failures: list[S3RunnerError] = []
        self._control = control
        self._retry = retry
        self._layout = layout
        self._waiting: list[tuple[StoredJob, list[list[str]]]] = []
        self._keys = 0

    def add(self, job: StoredJob, objects: Collection[str]) -> None:
        """Remove a job with these objects, at once or with the next ones."""
        self._waiting.append((job, removal_steps(self._layout.job(job.job_id), objects)))
        self._keys += len(objects)
        if self._keys >= _TOGETHER:
            self.carry_out()

    def carry_out(self) -> None:
        """Remove what waits: a step of all jobs is over before the next one of any begins."""
        for step in range(max((len(steps) for _, steps in self._waiting), default=0)):
            keys = [key for _, steps in self._waiting for key in steps[step]]
            failed = self._delete(keys)
            # what is left of such a job has ended and is expired: the next gc goes on
            self._waiting = [item for item in self._waiting if item[0].job_id not in failed]
        self.gone += [job for job, _ in self._waiting]
        self._waiting, self._keys = [], 0

    def _delete(self, keys: Sequence[str]) -> set[str | None]:
        """Delete; return the jobs of which something would not go."""
        left: dict[str, S3RunnerError] = {}
        for start in range(0, len(keys), _BATCH):
            left |= self._delete_batch(keys[start : start + _BATCH])
        self.failures += left.values()
        return {job_of(key, self._layout) for key in left}

    def _delete_batch(self, keys: Sequence[str]) -> Mapping[str, S3RunnerError]:
        def attempt() -> Mapping[str, S3RunnerError]:
            left = self._control.delete(keys)
            for error in left.values():
                if error.temporary:
                    raise error
            return left

        return self._retry.call(attempt)

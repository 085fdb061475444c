"""What is known of jobs without waiting for them: read in the store, and seen at the cluster.

It stands apart from following because it decides nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from s3runner.cluster.outcome import count_pods, is_over, reason_of, since_of, state_of
from s3runner.cluster.protocol import Observation
from s3runner.errors import (
    ClusterUnavailableError,
    ObjectNotFoundError,
    S3RunnerError,
    SettingsError,
    SpecError,
)
from s3runner.runner.creation import newest_with_note
from s3runner.runner.decide import count_causes, evictions_so_far
from s3runner.runner.ending import describe
from s3runner.runner.head import Head
from s3runner.runner.job_status import JobRow, JobStatus, Wanted, born, read_time
from s3runner.runner.turns import Room, count_active
from s3runner.staging.parallel import run_all
from s3runner.staging.records import Commit, Generation, Spec

_NOTHING_SEEN = Observation(None)


def list_jobs(head: Head, wanted: Wanted) -> list[JobRow]:
    """Return the jobs below this store's prefix, the newest first.

    One listing of names, whatever lies below them, then two to four requests for each job that the
    time in its id does not rule out. A job whose documents cannot be read is in the list unless a
    state was asked for, or a name where the spec is what cannot be read; one whose cluster does not
    answer may be in any state. What is no job at all is never in the list.
    """
    found = head.store.list_folders(head.layout.jobs_prefix)
    ids = [job_id for job_id in found if _may_be_of_age(job_id, wanted)]
    known = [job for job in run_all("list", [_Look(head, i, wanted) for i in ids]) if job]
    known, seen = _observe(head, known)
    settled = run_all("list", [_Settle(head, job, seen.get(job.job_id)) for job in known])
    rows = [_row(*item) for item in settled]
    shown = [row for row in rows if wanted.takes_state(row.state) or _is_unseen(row.problem)]
    epoch = datetime.fromtimestamp(0, timezone.utc)
    return sorted(shown, key=lambda row: (row.created or epoch, row.job_id), reverse=True)


def look_up(head: Head, job_ids: Sequence[str]) -> list[JobStatus]:
    """Return what is known of these jobs, in this order.

    Of jobs whose cluster does not answer that is what the store has, and the `problem`. Raises
    SettingsError that names every unknown id, SpecError or StagingError for documents that cannot
    be read.
    """
    found = run_all("status", [_Find(head, job_id) for job_id in job_ids])
    unknown = [job for job in found if isinstance(job, SettingsError)]
    if unknown:
        raise SettingsError("\n".join(error.reason for error in unknown))
    known = [job for job in found if isinstance(job, _Known)]
    known, seen = _observe(head, known)
    away = next((job.problem for job in known if job.problem), None)
    asks = [_Describe(head, job, seen.get(job.job_id), away) for job in known]
    return run_all("status", asks)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store has of a job. `here` tells whether this head's cluster runs it, and shows it.

    `is_made` tells whether the generation's Job was known to be made before the cluster was asked:
    of one that is made later it may show nothing. `spec` is kept of jobs that somebody named: a
    list may be of very many.
    """

    job_id: str
    name: str | None = None
    created: datetime | None = None
    here: bool = False
    commit: Commit | None = None
    generation: Generation | None = None
    is_made: bool = False
    problem: S3RunnerError | None = None
    spec: Spec | None = None

    @classmethod
    def of(cls, head: Head, spec: Spec) -> _Known:
        """Return a job as its spec alone shows it."""
        created = born(spec.job_id) or read_time(spec.created)
        return cls(spec.job_id, spec.name, created, head.runs(spec))

    def unseen(self, error: S3RunnerError) -> _Known:
        """Return the job as it is known when its cluster does not answer."""
        return replace(self, here=False, problem=error)


@dataclass(frozen=True, slots=True)
class _Look:
    """A look at what may be a job; None if it is none, or not wanted."""

    head: Head
    job_id: str
    wanted: Wanted

    def __call__(self) -> _Known | None:
        job = None
        try:
            job = _Known.of(self.head, self.head.read_spec(self.job_id)[0])
            if not (self.wanted.takes_name(job.name or "") and self.wanted.takes_age(job.created)):
                return None
            return self._with_records(job)
        except (SettingsError, ObjectNotFoundError):
            # never was a job, or is being deleted
            return None
        except SpecError as error:
            if job is not None:
                return replace(job, here=False, problem=error)
            if self.wanted.name is not None:
                return None
            return _Known(self.job_id, created=born(self.job_id), problem=error)

    def _with_records(self, job: _Known) -> _Known:
        commit = self.head.read_commit(self.job_id)
        if commit is not None:
            return replace(job, commit=commit)
        generation, is_made = newest_with_note(self.head, self.job_id)
        return replace(job, generation=generation, is_made=is_made)


@dataclass(frozen=True, slots=True)
class _Find:
    """A look at a job that somebody named; the error where there is none."""

    head: Head
    job_id: str

    def __call__(self) -> _Known | SettingsError:
        try:
            spec, _ = self.head.read_spec(self.job_id)
        except SettingsError as error:
            return error
        generation, is_made = newest_with_note(self.head, self.job_id)
        return replace(
            _Known.of(self.head, spec),
            spec=spec,
            generation=generation,
            is_made=is_made,
            commit=self.head.read_commit(self.job_id),
        )


@dataclass(frozen=True, slots=True)
class _Settle:
    """A job with its state. The commit is read again after a wait in vain, or the Job's end."""

    head: Head
    job: _Known
    seen: Observation | None

    def __call__(self) -> tuple[_Known, str | None]:
        job = self.job
        is_over_here = self.seen is not None and is_over(self.seen)
        if job.commit is None and (is_over_here or _is_unseen(job.problem)):
            job = replace(job, commit=self.head.read_commit(job.job_id))
        return job, self._state(job)

    def _state(self, job: _Known) -> str | None:
        if job.commit is not None:
            return "ended"
        if not job.here:
            return None
        if job.generation is None:
            return "staged"
        if self.seen is None:
            # its record says how it ends, and only the commit is missing
            return "ended"
        if self.seen.job is None and not job.is_made:
            return "staged"
        return state_of(self.seen)


@dataclass(frozen=True, slots=True)
class _Describe:
    """A job's status, with the requests that only one job's details are worth."""

    head: Head
    job: _Known
    seen: Observation | None
    away: S3RunnerError | None

    def __call__(self) -> JobStatus:
        job, state = _Settle(self.head, self.job, self.seen)()
        room = None
        if state == "staged":
            job, room = self._find_room(job)
        keys = self.head.layout.job(job.job_id)
        record, commit = job.generation, job.commit
        seen = self.seen or _NOTHING_SEEN
        since, end = self._since(state), None
        if commit is not None:
            since = self.head.store.head(keys.commit).modified
            result = self.head.read_committed_result(job.job_id, commit)
            end = describe(self.head, job.job_id, commit, result, record)
        return JobStatus(
            row=_row(job, state),
            since=since,
            end=end,
            attempts=end.attempts if end is not None else self._count_so_far(seen),
            generation=_number(commit, record),
            spent=count_causes(record.spent, evictions_so_far(seen)) if record is not None else {},
            room=room,
            reason=reason_of(seen) if state in ("queued", "pending") else None,
        )

    def _find_room(self, job: _Known) -> tuple[_Known, Room | None]:
        """Ask how full the job's destination is, unless the cluster was asked in vain just now."""
        if job.spec is None or job.spec.destination.max_active is None:
            return job, None
        if self.away is not None:
            return replace(job, problem=self.away), None
        try:
            return job, count_active(self.head, job.spec)
        except ClusterUnavailableError as error:
            return replace(job, problem=error), None

    def _count_so_far(self, seen: Observation) -> int:
        """Return how many pods the cluster shows or counts, and how many have stored something."""
        record, keys = self.job.generation, self.head.layout.job(self.job.job_id)
        traces = set(self.head.store.list_folders(keys.attempts_prefix))
        pods = {str(pod["metadata"]["uid"]) for pod in seen.pods}
        return max(len(traces | pods), record.attempts + count_pods(seen) if record else 0)

    def _since(self, state: str | None) -> datetime | None:
        if state == "staged":
            return self.job.created
        return read_time(since_of(self.seen)) if self.seen is not None else None


def _number(commit: Commit | None, record: Generation | None) -> int:
    if commit is not None:
        return commit.generation
    if record is None:
        return 0
    return record.end.generation if record.end is not None else record.number


def _observe(head: Head, jobs: list[_Known]) -> tuple[list[_Known], dict[str, Observation]]:
    """Ask the cluster once for all jobs that it may still run; return what it shows of them.

    If it does not answer, the jobs come back with that as the problem of those it was asked for.
    """
    names = {
        job.job_id: job.generation.job_name
        for job in jobs
        if job.here and job.commit is None and job.generation and job.generation.end is None
    }
    try:
        seen = head.cluster.observe(list(names.values())) if names else {}
    except ClusterUnavailableError as error:
        return [job.unseen(error) if job.job_id in names else job for job in jobs], {}
    return jobs, {job_id: seen[name] for job_id, name in names.items()}


def _is_unseen(problem: S3RunnerError | None) -> bool:
    return isinstance(problem, ClusterUnavailableError)


def _row(job: _Known, state: str | None) -> JobRow:
    if job.commit is None:
        return JobRow(job.job_id, job.name, state, None, job.created, job.problem)
    return JobRow(job.job_id, job.name, state, job.commit.outcome, job.created)


def _may_be_of_age(job_id: str, wanted: Wanted) -> bool:
    created = born(job_id)
    return created is None or wanted.takes_age(created)

"""Following a job to its end: observe the cluster, read the commit, decide where no pod did.

The cluster tells when to look; only the commit tells what happened.
"""

from __future__ import annotations

from dataclasses import replace

from s3runner.cluster.outcome import is_over, state_of
from s3runner.cluster.protocol import Observation
from s3runner.errors import ObjectNotFoundError, S3RunnerError, SettingsError
from s3runner.model import Outcome, code_of
from s3runner.runner.decide import StoredResult, decide_end
from s3runner.runner.head import Head
from s3runner.runner.report import PHASES, STAGE_IN, JobEnd, Listener
from s3runner.staging.manifest import document_digest
from s3runner.staging.records import Commit, Generation, Result, Spec
from s3runner.store.retrying import read

_LOOK_EVERY_S = 10.0
"""How long the head may go without asking the cluster or, for another's job, the store."""

_GENERATION = 1


class _OurJob:
    """A job of this head's cluster, while it is followed."""

    def __init__(self, head: Head, job_id: str) -> None:
        self.head = head
        self.keys = head.layout.job(job_id)
        self.name = self.keys.job_name(_GENERATION)

    def observe(self) -> Observation:
        return self.head.cluster.observe([self.name])[self.name]

    def results(self) -> list[StoredResult]:
        """Return what this job's attempts left, oldest first."""
        store, found = self.head.store, []
        for item in store.list(self.keys.attempts_prefix):
            if item.key.endswith("/result.json") and item.key.count("/") == self._depth:
                body = read(store, item.key)
                result = Result.load(body, self.head.config.uri(item.key))
                found.append((item.modified, StoredResult(result, document_digest(body))))
        return [stored for _, stored in sorted(found, key=lambda pair: pair[0])]

    @property
    def _depth(self) -> int:
        return self.keys.attempt("uid").result.count("/")

    def decide(self, observation: Observation) -> Commit:
        """Record the end as the next generation, then commit it; return the commit that stands."""
        commit = decide_end(observation, self.results(), _GENERATION)
        store = self.head.store
        record = Generation(
            number=_GENERATION + 1,
            job_name="",
            spec_digest="",
            previous=commit.outcome.value,
            end=commit.outcome,
        )
        store.put_if_absent(self.keys.generation(record.number), record.dump())
        agreed = Generation.load(
            read(store, self.keys.generation(record.number)), self.keys.generation(record.number)
        )
        if agreed.end is not None and agreed.end is not commit.outcome:
            commit = replace(commit, outcome=agreed.end)
        store.put_if_absent(self.keys.commit, commit.dump())
        there = self.head.read_commit(self.keys.job_id)
        return there or commit


def wait(head: Head, job_id: str, listener: Listener) -> JobEnd:
    """Follow a job until it has a commit, and return how it ended.

    A job of another cluster is only waited for. Raises SettingsError for an unknown job id.
    """
    try:
        spec, _ = head.read_spec(job_id)
    except ObjectNotFoundError as error:
        raise SettingsError(f"there is no job {job_id}", source=head.config.uri("")) from error
    job = _OurJob(head, job_id)
    if dict(spec.cluster) != dict(head.cluster.identity):
        commit, attempts = _await_commit(head, job_id), 1
        listener.state("ended")
    else:
        commit, attempts = _follow(job, listener)
        head.cluster.delete(job.name)
    return _describe(head, spec, commit, attempts)


def _await_commit(head: Head, job_id: str) -> Commit:
    while True:
        commit = head.read_commit(job_id)
        if commit is not None:
            return commit
        head.cluster.wait([], _LOOK_EVERY_S)


def _follow(job: _OurJob, listener: Listener) -> tuple[Commit, int]:
    state = ""
    while True:
        observation = job.observe()
        if state_of(observation) != state:
            state = state_of(observation)
            listener.state(state)
        if is_over(observation):
            commit = job.head.read_commit(job.keys.job_id) or job.decide(observation)
            return commit, max(1, len(observation.pods))
        job.head.cluster.wait([job.name], _LOOK_EVERY_S)


def _describe(head: Head, spec: Spec, commit: Commit, attempts: int) -> JobEnd:
    result = head.read_committed_result(spec.job_id, commit)
    first = head.layout.job(spec.job_id).generation(_GENERATION)
    generation = Generation.load(read(head.store, first), head.config.uri(first))
    phases = dict.fromkeys(PHASES) | {STAGE_IN: generation.stage_in}
    if result is not None:
        phases |= {name: cost for name, cost in result.phases.items() if name in phases}
    return JobEnd(
        outcome=commit.outcome,
        code=code_of(commit.outcome),
        tool_exit_code=result.tool_exit_code if result else None,
        attempts=attempts,
        generation=commit.generation,
        attempt=commit.attempt,
        error=_explain(commit, result),
        phases=phases,
    )


def _explain(commit: Commit, result: Result | None) -> dict[str, object] | None:
    """Return the error object of an end that is ours to explain; a tool's own failure has none."""
    if commit.outcome in (Outcome.SUCCEEDED, Outcome.TOOL_FAILED):
        return None
    if result is not None and result.error is not None and result.outcome is commit.outcome:
        return dict(result.error)
    seen = (commit.observation or {}).get("detail") or (commit.observation or {}).get("job")
    reason = f"the job ended as {commit.outcome.value}" + (f" ({seen})" if seen else "")
    return S3RunnerError(reason, operation="run", source=f"job {commit.generation}").to_json()

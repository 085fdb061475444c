"""Following a job to its end: observe the cluster, read the commit, decide where no pod did.

The cluster tells when to look; only the commit tells what happened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from s3runner.cluster.outcome import container_ended, is_over, state_of
from s3runner.cluster.protocol import Observation
from s3runner.errors import ObjectNotFoundError, S3RunnerError, SpecError
from s3runner.model import Outcome, Phase, code_of
from s3runner.runner.creation import (
    create_job,
    newest_generation,
    record_generation,
    was_created,
)
from s3runner.runner.decide import StoredResult, first_generation, next_generation
from s3runner.runner.head import Head
from s3runner.runner.report import PHASES, STAGE_IN, JobEnd, Listener
from s3runner.staging.manifest import document_digest
from s3runner.staging.records import Commit, Generation, Result, Spec
from s3runner.store.retrying import read

_LOOK_EVERY_S = 10.0
"""How long the head may go without asking the cluster or, for another's job, the store."""


def wait(head: Head, job_id: str, listener: Listener) -> JobEnd:
    """Follow a job until it has a commit, and return how it ended.

    A job of another cluster is only waited for. Raises SettingsError for an unknown job id.
    """
    spec, digest = head.read_spec(job_id)
    if dict(spec.cluster) != dict(head.cluster.identity):
        commit, attempts = _await_commit(head, job_id), 1
        listener.state("ended")
    else:
        commit, attempts = _Follower(head, spec, digest, listener).follow()
    result = head.read_committed_result(job_id, commit)
    for warning in result.warnings if result is not None else ():
        listener.warning(warning)
    return describe(head, job_id, commit, result, attempts)


def _await_commit(head: Head, job_id: str) -> Commit:
    while True:
        commit = head.read_commit(job_id)
        if commit is not None:
            return commit
        head.cluster.wait([], _LOOK_EVERY_S)


class _Follower:
    """A job of this head's cluster, while it is followed through its generations."""

    def __init__(self, head: Head, spec: Spec, spec_digest: str, listener: Listener) -> None:
        self._head = head
        self._spec = spec
        self._listener = listener
        self._keys = head.layout.job(spec.job_id)
        self._current = newest_generation(head, spec.job_id) or record_generation(
            head, spec.job_id, first_generation(spec, spec_digest, self._keys.job_name(1))
        )
        self._state = ""
        self._stager_gone_at: float | None = None

    def follow(self) -> tuple[Commit, int]:
        """Return the job's commit, and how many pods it took; no Job of it is left."""
        while True:
            if self._current.end is not None:
                self._tell("ended")
                commit = self._commit(self._current.end)
                self._head.cluster.delete(self._keys.job_name(self._current.number - 1))
                return commit, self._current.attempts
            name = self._current.job_name
            observation = self._head.cluster.observe([name])[name]
            found = self._look(observation)
            if found is not None:
                self._tell("ended")
                self._head.cluster.delete(name)
                return found, self._current.attempts + max(1, len(observation.pods))
            if self._current.job_name == name:
                self._head.cluster.wait([name], _LOOK_EVERY_S)

    def _look(self, observation: Observation) -> Commit | None:
        """Return the commit if there is one; else do what is for the head to do now."""
        job_id = self._spec.job_id
        if is_over(observation):
            commit = self._head.read_commit(job_id)
            if commit is not None:
                return commit
            gone = observation.job is None
            if gone and not was_created(self._head, job_id, self._current.number):
                # the head that recorded it died before it could: see creation
                create_job(self._head, self._spec, self._current)
            else:
                self._go_on(observation)
            return None
        self._tell(state_of(observation))
        if not container_ended(observation, "stager"):
            self._stager_gone_at = None
            return None
        return self._look_after_stager(observation)

    def _look_after_stager(self, observation: Observation) -> Commit | None:
        """Do not wait for a tool that lives on beside a stager that has ended."""
        commit = self._head.read_commit(self._spec.job_id)
        if self._stager_gone_at is None:
            self._stager_gone_at = time.monotonic()
        patience = self._spec.destination.grace_s
        if commit is None and time.monotonic() > self._stager_gone_at + patience:
            self._go_on(observation)
        return commit

    def _tell(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._listener.state(state)

    def _go_on(self, observation: Observation) -> None:
        """Record what follows this generation, and make it so; another head's record counts."""
        results = list(self._results(observation))
        following = record_generation(
            self._head,
            self._spec.job_id,
            next_generation(observation, results, self._current, self._spec),
        )
        ended, self._current = self._current, following
        self._stager_gone_at = None
        if following.end is None:
            self._head.cluster.delete(ended.job_name)
            self._listener.warning(
                f"generation {following.number - 1} ended as {following.previous}; "
                f"trying again as generation {following.number}"
            )
            create_job(self._head, self._spec, following)

    def _commit(self, decision: Commit) -> Commit:
        if self._head.store.put_if_absent(self._keys.commit, decision.dump()):
            return decision
        return self._head.read_commit(self._spec.job_id) or decision

    def _results(self, observation: Observation) -> Iterator[StoredResult]:
        """Yield what this generation's attempts left, oldest first; damaged ones left out."""
        for key in self._result_keys(observation):
            try:
                body = read(self._head.store, key)
                result = Result.load(body, self._head.config.uri(key))
            except (ObjectNotFoundError, SpecError):
                continue
            ours = self._keys.attempt(result.attempt).result == key
            if ours and result.generation == self._current.number:
                yield StoredResult(result, document_digest(body))

    def _result_keys(self, observation: Observation) -> list[str]:
        if observation.pods:
            pods = sorted(observation.pods, key=lambda pod: pod["metadata"]["creationTimestamp"])
            return [self._keys.attempt(pod["metadata"]["uid"]).result for pod in pods]
        depth = self._keys.attempt("uid").result.count("/")
        found = [
            item
            for item in self._head.store.list(self._keys.attempts_prefix)
            if item.key.endswith("/result.json") and item.key.count("/") == depth
        ]
        return [item.key for item in sorted(found, key=lambda item: item.modified)]


def describe(
    head: Head, job_id: str, commit: Commit, result: Result | None, attempts: int
) -> JobEnd:
    """Return a job's end in full: its commit, that one's result, and what stage-in cost."""
    phases = dict.fromkeys(PHASES) | {STAGE_IN: _stage_in_cost(head, job_id)}
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


def _stage_in_cost(head: Head, job_id: str) -> Phase | None:
    key = head.layout.job(job_id).generation(1)
    try:
        return Generation.load(read(head.store, key), head.config.uri(key)).stage_in
    except ObjectNotFoundError:
        return None


def _explain(commit: Commit, result: Result | None) -> dict[str, object] | None:
    """Return the error object of an end that is ours to explain; a tool's own failure has none."""
    if commit.outcome in (Outcome.SUCCEEDED, Outcome.TOOL_FAILED):
        return None
    if result is not None and result.error is not None and result.outcome is commit.outcome:
        return dict(result.error)
    seen = (commit.observation or {}).get("detail") or (commit.observation or {}).get("job")
    reason = f"the job ended as {commit.outcome.value}" + (f" ({seen})" if seen else "")
    return S3RunnerError(reason, operation="run").to_json()

"""Following a job to its end: observe the cluster, read the commit, decide where no pod did.

The cluster tells when to look; only the commit tells what happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from s3runner.cluster.outcome import (
    container_ended,
    count_pods,
    patience_of,
    pods_in_order,
    state_of,
)
from s3runner.cluster.protocol import Observation
from s3runner.errors import ObjectNotFoundError, S3RunnerError, SpecError
from s3runner.model import Outcome, Phase, code_of
from s3runner.runner.creation import newest_generation, record_generation, was_created
from s3runner.runner.decide import StoredResult, first_generation, next_generation
from s3runner.runner.head import Head
from s3runner.runner.holdup import Holdup, describe_attempt, describe_holdup
from s3runner.runner.report import PHASES, STAGE_IN, JobEnd, Listener
from s3runner.runner.restaging import replace_lost_blobs
from s3runner.runner.turns import make_job
from s3runner.staging.manifest import document_digest
from s3runner.staging.records import Commit, Generation, Result, Spec
from s3runner.store.retrying import read

_HINTS = {
    Outcome.NO_SPACE: "ask for more with resources.disk; "
    "retry.disk_cap is the most that a retry asks for",
    Outcome.IMAGE_PULL_FAILED: "check the image's name and tag, and image_pull_secrets",
    Outcome.CONFIG_ERROR: "change what it names, in the job, the destination or the namespace",
    Outcome.UNSCHEDULABLE: "compare resources, node_selector and tolerations with the nodes; "
    "pending_timeout is how long a pod may wait for one",
    Outcome.CLUSTER_REFUSED: "ask the cluster's administrator, or use another namespace",
    Outcome.BUDGETS_SPENT: "spot.max_evictions and spot.then say how often and where it goes on",
    Outcome.DELETED: "submit the job again",
}
"""What to do about the ends that only a head can tell."""

_LOOK_EVERY_S = 10.0
"""How long the head may go without asking the cluster or, for another's job, the store."""


def wait(
    head: Head, job_id: str, listener: Listener, clock: Callable[[], float] = time.monotonic
) -> JobEnd:
    """Follow a job until it has a commit, and return how it ended.

    A job of another cluster is only waited for. Raises SettingsError for an unknown job id.
    """
    follower = Follower(head, job_id, listener, clock)
    while True:
        end = follower.step()
        if end is not None:
            return end
        follower.pause()


class Follower:
    """A job that is followed step by step, by one thread at a time.

    Raises SettingsError for an unknown job id.
    """

    def __init__(
        self,
        head: Head,
        job_id: str,
        listener: Listener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        spec, digest = head.read_spec(job_id)
        self._head = head
        self._job_id = job_id
        self._listener = listener
        ours = dict(spec.cluster) == dict(head.cluster.identity)
        self._generations = _Generations(head, spec, digest, listener, clock) if ours else None

    def step(self) -> JobEnd | None:
        """Look once and do what is for the head to do now; return the job's end if it has one.

        May be taken again after an error: what is done already is found done.
        """
        found = self._generations.look() if self._generations else self._find_commit()
        if found is None:
            return None
        commit, attempts = found
        result = self._head.read_committed_result(self._job_id, commit)
        for warning in result.warnings if result is not None else ():
            self._listener.warning(warning)
        return describe(self._head, self._job_id, commit, result, attempts)

    def pause(self) -> None:
        """Return when another step may find more than the last one."""
        awaited = self._generations.awaited if self._generations else ()
        if awaited is not None:
            self._head.cluster.wait(awaited, _LOOK_EVERY_S)

    def _find_commit(self) -> tuple[Commit, int] | None:
        commit = self._head.read_commit(self._job_id)
        if commit is None:
            return None
        self._listener.state("ended")
        return commit, 1


class _Generations:
    """A job of this head's cluster, while it is followed through its generations."""

    def __init__(
        self,
        head: Head,
        spec: Spec,
        spec_digest: str,
        listener: Listener,
        clock: Callable[[], float],
    ) -> None:
        self._head = head
        self._spec = spec
        self._listener = listener
        self._keys = head.layout.job(spec.job_id)
        self._current = newest_generation(head, spec.job_id) or record_generation(
            head, spec.job_id, first_generation(spec, spec_digest, self._keys.job_name(1))
        )
        self._state = ""
        self._told: set[str] = set()
        self._pods_seen = 1
        self._holdup = Holdup(spec.destination, clock)
        # the Jobs that take the room this one waits for
        self._before: tuple[str, ...] | None = None
        # the Jobs whose change calls for the next look; None calls for it now
        self.awaited: tuple[str, ...] | None = None

    def look(self) -> tuple[Commit, int] | None:
        """Return the job's commit and how many pods it took, if it has one; no Job is left then."""
        if self._current.end is not None:
            self._tell("ended")
            commit = self._commit(self._current.end)
            self._head.cluster.delete(self._keys.job_name(self._current.number - 1))
            return commit, self._current.attempts
        number, name = self._current.number, self._current.job_name
        if self._waits_for_room():
            found = self._start_unless_ended()
            made = 0
        else:
            observation = self._head.cluster.observe([name])[name]
            made = max(1, count_pods(observation))
            found = self._look(observation)
        if found is not None:
            self._tell("ended")
            self._head.cluster.delete(name)
            return found, self._current.attempts + made
        has_changed = self._current.number != number
        self.awaited = None if has_changed else (name, *(self._before or ()))
        return None

    def _waits_for_room(self) -> bool:
        """Tell whether the Job is still to be made: then the cluster need not be asked for it."""
        if self._before is None:
            return False
        if was_created(self._head, self._spec.job_id, self._current.number):
            self._before = None
        return self._before is not None

    def _start_unless_ended(self) -> Commit | None:
        commit = self._head.read_commit(self._spec.job_id)
        if commit is None:
            self._start()
        return commit

    def _look(self, observation: Observation) -> Commit | None:
        """Return the commit if there is one; else do what is for the head to do now."""
        job_id = self._spec.job_id
        patience = patience_of(observation)
        is_due = self._holdup.is_over(observation, patience)
        if is_due or container_ended(observation, "stager"):
            commit = self._head.read_commit(job_id)
            if commit is not None:
                return commit
        if not is_due:
            self._tell_progress(observation)
            return None
        gone = observation.job is None and not observation.pods
        if gone and not was_created(self._head, job_id, self._current.number):
            self._start()
        else:
            self._go_on(observation)
        return None

    def _start(self) -> None:
        """Make the recorded generation's Job, or let those that are `_before` it wake us."""
        room = make_job(self._head, self._spec, self._current)
        self._before = room.active if room is not None else None
        if room is not None and self._state != "staged":
            self._tell("staged")
            self._listener.note(f"waiting: {room}")

    def _tell_progress(self, observation: Observation) -> None:
        """Tell of the state, of what holds it up, and of each pod after the first."""
        if observation.job is None:
            return
        for line in describe_attempt(observation, self._pods_seen, self._current, self._spec):
            self._listener.warning(line)
        self._pods_seen = max(self._pods_seen, len(observation.pods))
        self._tell(state_of(observation))
        for key, line in describe_holdup(observation):
            if key not in self._told:
                self._told.add(key)
                self._listener.note(line)

    def _tell(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._listener.state(state)

    def _go_on(self, observation: Observation) -> None:
        """Record what follows this generation, and make it so; another head's record counts."""
        head, spec, results = self._head, self._spec, list(self._results(observation))
        decided = next_generation(observation, results, self._current, spec)
        decided = replace_lost_blobs(head, spec, decided, results, self._listener)
        following = record_generation(head, spec.job_id, decided)
        ended, self._current = self._current, following
        self._holdup.forget()
        self._pods_seen = 1
        if following.end is None:
            self._head.cluster.delete(ended.job_name)
            elsewhere = " on other nodes" if following.placement != ended.placement else ""
            self._listener.warning(
                f"generation {following.number - 1} ended as {following.previous}; "
                f"trying again as generation {following.number}{elsewhere}"
            )
            self._start()

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
            pods = pods_in_order(observation)
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
    evidence = commit.observation or {}
    if evidence.get("error"):
        return dict(evidence["error"])
    if result is not None and result.error is not None and result.outcome is commit.outcome:
        return dict(result.error)
    seen = evidence.get("detail") or evidence.get("job")
    reason = f"the job ended as {commit.outcome.value}" + (f" ({seen})" if seen else "")
    hint = _HINTS.get(commit.outcome, "")
    return S3RunnerError(reason, operation="run", hint=hint).to_json()

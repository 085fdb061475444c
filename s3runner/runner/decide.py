"""Deciding how a job goes on when no pod has decided it: a pure function of what is known.

It stands apart so that every row of its tables can be tested without a store or a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from s3runner.cluster.job_rules import is_terminal
from s3runner.cluster.outcome import (
    BACKOFF_LIMIT,
    DEADLINE,
    count_pods,
    failing_reason,
    finished_reason,
    last_pod_end,
    newest_pod,
    pod_end,
    pods_in_order,
)
from s3runner.cluster.pod_end import PodEnd
from s3runner.cluster.pod_resources import effective_resources
from s3runner.cluster.protocol import Observation
from s3runner.cluster.quantity import grown
from s3runner.model import (
    MAX_GENERATIONS,
    POD_FINAL,
    Destination,
    Outcome,
    Quantity,
    Resources,
    Retry,
)
from s3runner.staging.layout import job_name
from s3runner.staging.records import Commit, Generation, Result, Spec


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result as it lies in the store, with its document's digest."""

    result: Result
    digest: str


_DISRUPTED = (Outcome.EVICTED, Outcome.INTERRUPTED)
_ELSEWHERE = (*_DISRUPTED, Outcome.UNSCHEDULABLE)
"""Causes that lie in the nodes: others may do better."""

_SEEN_OF_AN_EVICTION = (Outcome.INTERRUPTED, Outcome.TOOL_VANISHED)
"""What a stager can tell of its pod's eviction."""

_CLUSTER_KNOWS = (Outcome.OUT_OF_MEMORY, Outcome.NO_SPACE)
"""Why a pod was killed, where its own result can only tell that it was."""

_ONCE_MORE = (
    Outcome.INTEGRITY_FAILED,
    Outcome.STORAGE_UNAVAILABLE,
    Outcome.TOOL_VANISHED,
    Outcome.INTERNAL_ERROR,
)
"""Causes without a budget of their own that a new pod may not meet again."""


def first_generation(spec: Spec, spec_digest: str, job_name: str) -> Generation:
    """Return the record that a job begins with."""
    return Generation(
        number=1,
        job_name=job_name,
        spec_digest=spec_digest,
        resources=spec.resources,
        final=_final(spec.retry, 0),
    )


def next_generation(
    observation: Observation,
    results: Sequence[StoredResult],
    current: Generation,
    spec: Spec,
) -> Generation:
    """Return the record that follows one that has ended without a commit.

    It makes another Job, or ends the job (`end`). `results` are the current generation's, oldest
    first.

    | why it ended (`_cause_of`)                 | budget left          | then                  |
    |--------------------------------------------|----------------------|-----------------------|
    | any                                        | 10 generations spent | end                   |
    | evicted or interrupted, the Job's count    | a place in spot.then | again, there          |
    | the same, not counted by the Job           | max_evictions        | again, in its place   |
    | unschedulable                              | a place in spot.then | again, there          |
    | out_of_memory                              | limit below the cap  | again, memory grown   |
    | no_space                                   | limit below the cap  | again, disk grown     |
    | tool_failed                                | retry.tool           | again                 |
    | integrity, storage, vanished, our own bug  | 1 each               | again                 |
    | access_denied, and not a word from the pod | 1                    | again                 |
    | anything else                              |                      | end                   |
    """
    cause = _cause_of(observation, results)
    following = replace(
        current,
        number=current.number + 1,
        spent=count_causes(current.spent, [*evictions_before(observation), cause.outcome]),
        attempts=current.attempts + max(1, count_pods(observation)),
        previous=cause.outcome.value,
        stage_in=None,
    )
    again = _again(cause, following, observation, spec)
    if again is None or following.number > MAX_GENERATIONS:
        return replace(following, job_name="", end=_commit_of(cause, observation, current.number))
    return repeated(again, spec)


def closing_record(commit: Commit, observation: Observation, current: Generation) -> Generation:
    """Return the record that follows one which a pod has ended: that end, and the pods it took."""
    return replace(
        current,
        number=current.number + 1,
        job_name="",
        spent=count_causes(current.spent, evictions_before(observation)),
        attempts=current.attempts + max(1, count_pods(observation)),
        previous=commit.outcome.value,
        stage_in=None,
        end=commit,
    )


def count_causes(spent: Mapping[str, int], causes: Sequence[Outcome]) -> dict[str, int]:
    """Return the counters with these causes added."""
    counted = dict(spent)
    for cause in causes:
        counted[cause.value] = counted.get(cause.value, 0) + 1
    return counted


def evictions_before(observation: Observation) -> list[Outcome]:
    """Return by cause how often a pod that is not the newest was ended from outside."""
    ends = [pod_end(observation, pod) for pod in pods_in_order(observation)[:-1]]
    return [end.outcome for end in ends if end.outcome in _DISRUPTED]


def evictions_so_far(observation: Observation) -> list[Outcome]:
    """Return by cause how often a pod was ended from outside, the newest too if it has ended."""
    pod, end = newest_pod(observation), last_pod_end(observation)
    if pod is None or end is None or end.outcome not in _DISRUPTED:
        return evictions_before(observation)
    has_ended = is_terminal(pod) or end.uid in observation.vanished
    return [*evictions_before(observation), *[end.outcome] * has_ended]


def most_attempts(current: Generation, spec: Spec) -> int:
    """Return how many pods there may be by the end of this generation."""
    return current.attempts + _evictions_allowed(spec.destination, current.placement) + 1


def _again(
    cause: _Cause, following: Generation, observation: Observation, spec: Spec
) -> Generation | None:
    """Return the record changed for another try, None if there is nothing more to try."""
    if cause.outcome in _ELSEWHERE:
        placement = _placement_after(cause.outcome, following, observation, spec.destination)
        return None if placement is None else replace(following, placement=placement)
    times = following.spent[cause.outcome.value]
    if _was_locked_out(cause) and times == 1:
        return following
    resources = _resources_for(cause.outcome, times, following.resources, spec.retry)
    return None if resources is None else replace(following, resources=resources)


def _placement_after(
    cause: Outcome, following: Generation, observation: Observation, where: Destination
) -> int | None:
    """Return which nodes come next, None if all were tried or the Job's time is over.

    The Job counts its pods itself; pods that it does not get to count (of a node that is lost, or
    killed with their tool) are counted here, over all generations.
    """
    reason = failing_reason(observation.job or {})
    if reason == DEADLINE and cause is not Outcome.UNSCHEDULABLE:
        return None
    here = following.placement
    ended = sum(following.spent.get(one.value, 0) for one in _DISRUPTED)
    allowed = sum(_evictions_allowed(where, place) + 1 for place in range(here + 1)) - 1
    if cause in _DISRUPTED and reason != BACKOFF_LIMIT and ended <= allowed:
        return here
    places = len(where.kubernetes.then) if where.kubernetes is not None else 0
    return here + 1 if here < places else None


def _evictions_allowed(where: Destination, placement: int) -> int:
    then = where.kubernetes.then if where.kubernetes is not None else ()
    own = then[placement - 1].max_evictions if 0 < placement <= len(then) else None
    return where.max_evictions if own is None else own


def _was_locked_out(cause: _Cause) -> bool:
    """Tell whether the pod's keys were refused for everything: they may have ended before it did.

    The head, whose keys are good, hands the next pod new ones. A pod that could say what it was
    denied has met a policy, which stays.
    """
    return cause.outcome is Outcome.ACCESS_DENIED and cause.stored is None


def may_repeat(following: Generation) -> bool:
    """Tell whether a job may go on once its end's cause, seen for the first time, is removed."""
    return following.number <= MAX_GENERATIONS and following.spent[following.previous or ""] == 1


def repeated(following: Generation, spec: Spec) -> Generation:
    """Return a record that makes another Job, whatever it was to be."""
    return replace(
        following,
        end=None,
        job_name=job_name(spec.job_id, following.number),
        final=_final(spec.retry, following.spent.get(Outcome.TOOL_FAILED.value, 0)),
    )


def _final(retry: Retry, failed: int) -> tuple[Outcome, ...]:
    """Return what a pod may commit: a failed tool only when it will not run again."""
    if failed >= retry.tool:
        return POD_FINAL
    return tuple(outcome for outcome in POD_FINAL if outcome is not Outcome.TOOL_FAILED)


def _resources_for(cause: Outcome, times: int, now: Resources, retry: Retry) -> Resources | None:
    """Return what to try again with; None if there is nothing more to try."""
    if cause is Outcome.OUT_OF_MEMORY:
        memory = _grown(effective_resources(now).memory, retry.memory_factor, retry.memory_cap)
        return None if memory is None else replace(now, memory=memory)
    if cause is Outcome.NO_SPACE:
        disk = _grown(now.disk, retry.disk_factor, retry.disk_cap)
        return None if disk is None else replace(now, disk=disk)
    budget = retry.tool if cause is Outcome.TOOL_FAILED else int(cause in _ONCE_MORE)
    return now if times <= budget else None


def _grown(quantity: Quantity, factor: float, cap: str) -> Quantity | None:
    """Let request and limit grow together; None at the cap, or where there is nothing to grow."""
    most = quantity.limit or quantity.request
    larger = None if most is None else grown(most, factor, cap)
    if larger is None:
        return None
    return Quantity(request=larger, limit=larger if quantity.limit else None)


def decide_end(
    observation: Observation, results: Sequence[StoredResult], generation: int
) -> Commit:
    """Return the head's commit for a generation that has ended without one and gets no other."""
    return _commit_of(_cause_of(observation, results), observation, generation)


@dataclass(frozen=True, slots=True)
class _Cause:
    """Why a generation ended: the outcome, the result that says so, and what was seen."""

    outcome: Outcome
    stored: StoredResult | None
    detail: str | None


def _cause_of(observation: Observation, results: Sequence[StoredResult]) -> _Cause:
    """Return why a generation ended.

    | newest pod        | its result               | cause                                   |
    |-------------------|--------------------------|-----------------------------------------|
    | OOMKilled         | any, or none             | out_of_memory                           |
    | over a disk limit | any, or none             | no_space                                |
    | evicted           | interrupted, or vanished | evicted                                 |
    | any, or gone      | another                  | the result's                            |
    | ended, or stuck   | none                     | what it shows (`end_of_pod`)            |
    | none              | none                     | evicted (BackoffLimitExceeded: pods     |
    |                   |                          | that left no trace), else budgets_spent |

    Where the Job is gone, a pod that was ended from outside or had not ended makes it deleted.
    """
    end = last_pod_end(observation)
    stored = _result_of(end.uid if end else None, results)
    detail = end.detail if end else None
    if end is not None and (end.outcome in _CLUSTER_KNOWS or _explains(end, stored)):
        outcome = end.outcome
    elif stored is not None:
        outcome = stored.result.outcome
    elif end is not None:
        outcome = end.outcome
    else:
        counted = failing_reason(observation.job or {}) == BACKOFF_LIMIT
        outcome = Outcome.EVICTED if counted else Outcome.BUDGETS_SPENT
    if observation.job is None and (outcome in _DISRUPTED or not _has_word(observation, stored)):
        outcome = Outcome.DELETED
    return _Cause(outcome, stored, detail)


def _explains(end: PodEnd, stored: StoredResult | None) -> bool:
    """Tell whether a pod's eviction is why its stager saw the tool go, or was told to end."""
    outcome = stored.result.outcome if stored is not None else None
    return end.outcome is Outcome.EVICTED and outcome in _SEEN_OF_AN_EVICTION


def _has_word(observation: Observation, stored: StoredResult | None) -> bool:
    """Tell whether a result, or a pod that ended by itself, says how it was."""
    pod = newest_pod(observation)
    return stored is not None or (pod is not None and is_terminal(pod))


def _commit_of(cause: _Cause, observation: Observation, generation: int) -> Commit:
    """Return the head's commit; a cause that lies outside of the pod has spent its budget."""
    stored = cause.stored
    spent = cause.outcome in _DISRUPTED
    return Commit(
        by="head",
        outcome=Outcome.BUDGETS_SPENT if spent else cause.outcome,
        attempt=stored.result.attempt if stored else None,
        result_digest=stored.digest if stored else None,
        generation=generation,
        observation=_evidence(observation, cause.detail),
    )


def _result_of(uid: str | None, results: Sequence[StoredResult]) -> StoredResult | None:
    """Return the newest pod's result, or the newest result where no pod can be seen."""
    if not uid:
        return results[-1] if results else None
    return next((stored for stored in results if stored.result.attempt == uid), None)


def _evidence(observation: Observation, detail: str | None) -> Mapping[str, Any]:
    job = observation.job
    reason = "gone" if job is None else finished_reason(job) or failing_reason(job)
    return {"job": reason, "pods": count_pods(observation), "detail": detail}

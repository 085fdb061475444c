"""Deciding how a job goes on when no pod has decided it: a pure function of what is known.

It stands apart so that every row of its tables can be tested without a store or a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from s3runner.cluster.job_object import effective_resources
from s3runner.cluster.outcome import finished_reason, last_pod_end
from s3runner.cluster.protocol import Observation
from s3runner.cluster.quantity import grown
from s3runner.model import MAX_GENERATIONS, POD_FINAL, Outcome, Quantity, Resources, Retry
from s3runner.staging.records import Commit, Generation, Result, Spec


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result as it lies in the store, with its document's digest."""

    result: Result
    digest: str


_DISRUPTED = (Outcome.EVICTED, Outcome.INTERRUPTED)

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
    """Return the record that follows one whose Job is over without a commit.

    It makes another Job, or ends the job (`end`). `results` are the current generation's, oldest
    first.

    | why it ended (`decide_end`)                | budget left          | then                  |
    |--------------------------------------------|----------------------|-----------------------|
    | any                                        | 10 generations spent | end                   |
    | out_of_memory                              | limit below the cap  | again, memory grown   |
    | no_space                                   | limit below the cap  | again, disk grown     |
    | tool_failed                                | retry.tool           | again                 |
    | integrity, storage, vanished, our own bug  | 1 each               | again                 |
    | anything else                              |                      | end                   |
    """
    end = decide_end(observation, results, current.number)
    cause = end.outcome.value
    spent = {**current.spent, cause: current.spent.get(cause, 0) + 1}
    following = replace(
        current,
        number=current.number + 1,
        spent=spent,
        attempts=current.attempts + max(1, len(observation.pods)),
        previous=cause,
        stage_in=None,
    )
    resources = _resources_for(end.outcome, spent[cause], current.resources, spec.retry)
    if resources is None or following.number > MAX_GENERATIONS:
        return replace(following, job_name="", end=end)
    return replace(
        following,
        job_name=f"{spec.job_id}-g{following.number}",
        resources=resources,
        final=_final(spec.retry, spent.get(Outcome.TOOL_FAILED.value, 0)),
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
    """Return the head's commit for a Job that is over without one.

    | newest pod        | its result          | outcome                                   |
    |-------------------|---------------------|-------------------------------------------|
    | OOMKilled         | any, or none        | out_of_memory                             |
    | any, or gone      | evicted/interrupted | budgets_spent (the cluster tried again)   |
    | any, or gone      | another             | the result's                              |
    | evicted           | none                | budgets_spent                             |
    | ended otherwise   | none                | what its containers say                   |
    | none, Job is gone | none                | deleted                                   |
    | none, Job failed  | none                | budgets_spent (deadline: never scheduled) |
    """
    pod = last_pod_end(observation)
    stored = _result_of(pod.uid if pod else None, results)
    if pod is not None and pod.outcome is Outcome.OUT_OF_MEMORY:
        outcome = Outcome.OUT_OF_MEMORY
    elif stored is not None:
        outcome = stored.result.outcome
    elif pod is not None:
        outcome = pod.outcome
    else:
        outcome = Outcome.DELETED if observation.job is None else Outcome.BUDGETS_SPENT
    if outcome in _DISRUPTED:
        outcome = Outcome.BUDGETS_SPENT
    return Commit(
        by="head",
        outcome=outcome,
        attempt=stored.result.attempt if stored else None,
        result_digest=stored.digest if stored else None,
        generation=generation,
        observation=_evidence(observation, pod.detail if pod else None),
    )


def _result_of(uid: str | None, results: Sequence[StoredResult]) -> StoredResult | None:
    """Return the newest pod's result, or the newest result where no pod can be seen."""
    if uid is None:
        return results[-1] if results else None
    return next((stored for stored in results if stored.result.attempt == uid), None)


def _evidence(observation: Observation, detail: str | None) -> Mapping[str, Any]:
    reason = "gone" if observation.job is None else finished_reason(observation.job)
    return {"job": reason, "pods": len(observation.pods), "detail": detail}

"""Deciding how a job ends when no pod has decided it: a pure function of what is known.

It stands apart so that every row of its table can be tested without a store or a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3runner.cluster.outcome import finished_reason, last_pod_end
from s3runner.cluster.protocol import Observation
from s3runner.model import Outcome
from s3runner.staging.records import Commit, Result


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result as it lies in the store, with its document's digest."""

    result: Result
    digest: str


_RETRIED_BY_THE_CLUSTER = (Outcome.EVICTED, Outcome.INTERRUPTED)


def decide_end(
    observation: Observation, results: Sequence[StoredResult], generation: int
) -> Commit:
    """Return the head's commit for a Job that is over without one.

    `results` are this generation's, oldest first.

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
    if outcome in _RETRIED_BY_THE_CLUSTER:
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

"""What an observation of a Job says: is it over, what is it doing, why did its last pod end.

Pure. Never the job's outcome by itself: that is the commit's (docs/protocol.md); this tells the
head when to look, and what to commit when no attempt left a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from s3runner.cluster.protocol import JobObject, Observation
from s3runner.model import Outcome, outcome_of

_CAUSES = {"OOMKilled": Outcome.OUT_OF_MEMORY, "StartError": Outcome.CONFIG_ERROR}


@dataclass(frozen=True, slots=True)
class PodEnd:
    """Why a pod ended: the outcome to commit if it left no result, and a sentence of evidence."""

    uid: str
    outcome: Outcome
    detail: str


def is_over(observation: Observation) -> bool:
    """Tell whether the Job makes no more pods: Complete, Failed, or gone.

    Never from counters: between a failed pod and the next one they read like the end.
    """
    return observation.job is None or finished_reason(observation.job) is not None


def finished_reason(job: JobObject) -> str | None:
    """Return the reason of the condition that ended the Job, None while it goes on."""
    for condition in job.get("status", {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return str(condition.get("reason") or condition["type"])
    return None


def state_of(observation: Observation) -> str:
    """Return what the job is doing, one of `runner.report.STATES`."""
    if is_over(observation):
        return "ended"
    pod = newest_pod(observation)
    if pod is None:
        return "queued"
    running = {name for name, state in _containers(pod) if "running" in state}
    ended = {name for name, state in _containers(pod) if "terminated" in state}
    if "tool" in running:
        return "running"
    if "tool" in ended:
        return "staging_out"
    return "fetching" if "fetch" in running or "fetch" in ended else "pending"


def since_of(observation: Observation) -> str | None:
    """Return when the state that `state_of` names began, in Kubernetes' form; None if untold."""
    job, pod = observation.job or {}, newest_pod(observation) or {}
    containers = dict(_containers(pod))
    tool, fetch = containers.get("tool", {}), containers.get("fetch", {})
    begun = {
        "ended": _ended_at(job),
        "queued": job.get("metadata", {}).get("creationTimestamp"),
        "pending": pod.get("metadata", {}).get("creationTimestamp"),
        "fetching": (fetch.get("running") or fetch.get("terminated") or {}).get("startedAt"),
        "running": tool.get("running", {}).get("startedAt"),
        "staging_out": tool.get("terminated", {}).get("finishedAt"),
    }
    found = begun[state_of(observation)]
    return None if found is None else str(found)


def _ended_at(job: JobObject) -> object:
    for condition in job.get("status", {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return condition.get("lastTransitionTime")
    return None


def container_ended(observation: Observation, name: str) -> bool:
    """Tell whether a container of the newest pod has ended."""
    pod = newest_pod(observation)
    return pod is not None and any(
        container == name and "terminated" in state for container, state in _containers(pod)
    )


def newest_pod(observation: Observation) -> JobObject | None:
    """Return the pod that was created last."""
    pods = observation.pods
    return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"]) if pods else None


def last_pod_end(observation: Observation) -> PodEnd | None:
    """Return why the newest pod ended; None when there is no pod to tell.

    | the pod shows                              | outcome            |
    |--------------------------------------------|--------------------|
    | condition DisruptionTarget                 | evicted            |
    | a container with reason OOMKilled          | out_of_memory      |
    | a container with reason StartError         | config_error       |
    | fetch or stager ended with a code of ours  | that code's        |
    | none of these                              | internal_error     |
    """
    pod = newest_pod(observation)
    if pod is None:
        return None
    uid = str(pod["metadata"]["uid"])
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return PodEnd(uid, Outcome.EVICTED, f"pod disrupted: {condition.get('reason')}")
    ended = [(n, s["terminated"]) for n, s in _containers(pod) if "terminated" in s]
    for name, terminated in ended:
        reason = terminated.get("reason")
        if reason in _CAUSES:
            detail = f"container {name}: {reason} {terminated.get('message') or ''}".rstrip()
            return PodEnd(uid, _CAUSES[reason], detail)
    for name, terminated in ended:
        code = terminated["exitCode"]
        if name in ("fetch", "stager") and code != 0:
            return PodEnd(uid, outcome_of(code), f"container {name} exited with {code}")
    return PodEnd(uid, Outcome.INTERNAL_ERROR, "the pod ended without a result")


def _containers(pod: JobObject) -> Iterator[tuple[str, dict[str, Any]]]:
    status = pod.get("status", {})
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or ():
            yield container["name"], container.get("state") or {}

"""What an observation of a Job says: is it over, what is it doing, may the head go on waiting.

Pure. Never the job's outcome by itself: that is the commit's (docs/protocol.md); this tells the
head when to look, and what to commit when no attempt left a word.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from s3runner.cluster.job_rules import finished_condition, is_terminal, match_failure_policy
from s3runner.cluster.pod_end import Patience, PodEnd, containers_of, end_of_pod
from s3runner.cluster.protocol import JobObject, Observation
from s3runner.model import Outcome

DEADLINE = "DeadlineExceeded"
BACKOFF_LIMIT = "BackoffLimitExceeded"

_TEMPORARY = "exceeded quota"
"""In the API's refusal of a pod: room may come. All other refusals are rules, which stay."""

_STUCK = (Outcome.IMAGE_PULL_FAILED, Outcome.CONFIG_ERROR)
_STARTING = (Outcome.TOOL_NEVER_STARTED, Outcome.INTERNAL_ERROR)
"""What a pod that is merely about to start reads as; only its duration tells."""


def is_over(observation: Observation) -> bool:
    """Tell whether the Job makes no more pods: Complete, Failed, or gone.

    Never from counters: between a failed pod and the next one they read like the end.
    """
    return observation.job is None or finished_reason(observation.job) is not None


def finished_reason(job: JobObject) -> str | None:
    """Return the reason of the condition that ended the Job, None while it goes on."""
    told = finished_condition(job)
    return None if told is None else str(told.get("reason") or told["type"])


def failing_reason(job: JobObject) -> str | None:
    """Return why the Job fails or has failed: also before its last pod has ended."""
    for told in job.get("status", {}).get("conditions") or ():
        if told["type"] in ("Failed", "FailureTarget") and told["status"] == "True":
            return str(told.get("reason") or told["type"])
    return None


def patience_of(observation: Observation) -> Patience:
    """Return how long the head is to wait before it decides how this generation ended.

    | the Job                | its pods                                  | patience             |
    |------------------------|-------------------------------------------|----------------------|
    | Complete or Failed     | any                                       | none                 |
    | gone                   | one has not ended: it may still commit    | the grace and 120 s  |
    | gone                   | none, or all have ended                   | none                 |
    | goes on                | the newest                                | see `end_of_pod`     |
    | goes on                | none, and the API refuses to make one     | see `_of_complaints` |
    | goes on, or suspended  | none                                      | the Job's            |
    """
    if observation.job is None:
        alive = not all(is_terminal(pod) for pod in observation.pods)
        return Patience.TERMINATION if alive else Patience.NONE
    if finished_reason(observation.job) is not None:
        return Patience.NONE
    end = last_pod_end(observation)
    return Patience.JOB if end is None else end.patience


def last_pod_end(observation: Observation) -> PodEnd | None:
    """Return why the newest pod ended or is stuck, or why there is none; None if nothing tells."""
    pod = newest_pod(observation)
    return _of_complaints(observation) if pod is None else pod_end(observation, pod)


def pod_end(observation: Observation, pod: JobObject) -> PodEnd:
    """Return why one of the pods ended or does not start; see `end_of_pod`."""
    uid = pod["metadata"]["uid"]
    end = end_of_pod(pod, vanished=uid in observation.vanished)
    told = _complaint_of(observation, uid)
    if end.outcome is not Outcome.TOOL_NEVER_STARTED or told is None:
        return end
    return replace(end, detail=f"no container has started: {told}")


def is_silent(observation: Observation) -> bool:
    """Tell whether only an event can say why the Job does not go on."""
    if observation.job is None or is_over(observation):
        return False
    pod = newest_pod(observation)
    return pod is None or pod_end(observation, pod).outcome is Outcome.TOOL_NEVER_STARTED


def _complaint_of(observation: Observation, uid: str) -> str | None:
    """Return the last warning about a pod."""
    warnings = [
        str(event.get("message") or event.get("reason")).strip()
        for event in observation.events
        if event.get("type") == "Warning" and event.get("involvedObject", {}).get("uid") == uid
    ]
    return warnings[-1] if warnings else None


def _of_complaints(observation: Observation) -> PodEnd | None:
    """Read why the API refuses the Job's pods: for want of quota, or by a rule that stays."""
    refusals = [event for event in observation.events if event.get("reason") == "FailedCreate"]
    if not refusals or _is_suspended(observation):
        return None
    said = str(refusals[-1].get("message") or "no pod can be made").strip()
    patience = Patience.PENDING if _TEMPORARY in said else Patience.IMAGE_PULL
    return PodEnd("", Outcome.CLUSTER_REFUSED, said, patience)


def state_of(observation: Observation) -> str:
    """Return what the job is doing, one of `runner.report.STATES`.

    Between two pods it is pending: the Job's next pod is to come.
    """
    if is_over(observation):
        return "ended"
    pod = newest_pod(observation)
    if pod is None or _is_suspended(observation) or _is_gated(pod):
        return "queued"
    running = {name for name, state in containers_of(pod) if "running" in state}
    ended = {name for name, state in containers_of(pod) if "terminated" in state}
    if _another_follows(observation, pod) or pod_end(observation, pod).outcome in _STUCK:
        return "pending"
    if "tool" in running:
        return "running"
    if "tool" in ended:
        return "staging_out"
    return "fetching" if "fetch" in running or "fetch" in ended else "pending"


def since_of(observation: Observation) -> str | None:
    """Return when the state that `state_of` names began, in Kubernetes' form; None if untold."""
    job, pod = observation.job or {}, newest_pod(observation) or {}
    containers = dict(containers_of(pod))
    tool, fetch = containers.get("tool", {}), containers.get("fetch", {})
    begun = {
        "ended": (finished_condition(job) or {}).get("lastTransitionTime"),
        "queued": job.get("metadata", {}).get("creationTimestamp"),
        "pending": _ended_at(pod) or pod.get("metadata", {}).get("creationTimestamp"),
        "fetching": (fetch.get("running") or fetch.get("terminated") or {}).get("startedAt"),
        "running": tool.get("running", {}).get("startedAt"),
        "staging_out": tool.get("terminated", {}).get("finishedAt"),
    }
    found = begun[state_of(observation)]
    return None if found is None else str(found)


def reason_of(observation: Observation) -> str | None:
    """Return why a job that is queued or pending does not go on; None where nothing tells."""
    if state_of(observation) not in ("queued", "pending"):
        return None
    if _is_suspended(observation):
        return "the Job is suspended: its queue has not admitted it"
    pod, end = newest_pod(observation), last_pod_end(observation)
    if end is None or (pod is not None and _is_gated(pod)):
        return None
    if pod is not None and _another_follows(observation, pod):
        return f"the next pod is to come; the last one: {end}"
    is_told = pod is not None and _complaint_of(observation, pod["metadata"]["uid"]) is not None
    return None if end.outcome in _STARTING and not is_told else end.detail


def container_ended(observation: Observation, name: str) -> bool:
    """Tell whether a container of the newest pod has ended."""
    pod = newest_pod(observation)
    return pod is not None and any(
        container == name and "terminated" in state for container, state in containers_of(pod)
    )


def newest_pod(observation: Observation) -> JobObject | None:
    """Return the pod that was created last."""
    ordered = pods_in_order(observation)
    return ordered[-1] if ordered else None


def pods_in_order(observation: Observation) -> list[JobObject]:
    """Return the pods, the oldest first; of two made in one second the living one is last."""

    def age(pod: JobObject) -> tuple[str, bool]:
        metadata = pod["metadata"]
        gone = metadata["uid"] in observation.vanished or is_terminal(pod)
        return metadata["creationTimestamp"], not gone

    return sorted(observation.pods, key=age)


def count_pods(observation: Observation) -> int:
    """Return how many pods the Job has made: those that can be seen, or that it has counted."""
    job = observation.job or {}
    status, counts = job.get("status", {}), ["active", "succeeded", "failed"]
    if failing_reason(job) is None:  # a Job that fails counts a pod that is still ending as failed
        counts.append("terminating")
    return max(len(observation.pods), sum(int(status.get(name) or 0) for name in counts))


def _another_follows(observation: Observation, pod: JobObject) -> bool:
    """Tell whether the newest pod has failed in a way that the Job answers with another pod."""
    job = observation.job or {}
    if pod["metadata"]["uid"] in observation.vanished and not is_terminal(pod):
        return True
    if pod.get("status", {}).get("phase") != "Failed" or failing_reason(job) is not None:
        return False
    return match_failure_policy({"spec": {}, **job}, pod).action != "FailJob"


def _ended_at(pod: JobObject) -> object:
    """Return when a pod's last container ended, if the pod has."""
    moments = [
        state["terminated"].get("finishedAt")
        for _, state in containers_of(pod)
        if is_terminal(pod) and "terminated" in state
    ]
    return max(filter(None, moments), default=None)


def _is_suspended(observation: Observation) -> bool:
    spec: dict[str, Any] = (observation.job or {}).get("spec") or {}
    return bool(spec.get("suspend"))


def _is_gated(pod: JobObject) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(told.get("reason") == "SchedulingGated" for told in conditions)

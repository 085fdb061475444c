"""The Job controller's rules: what a Job's status is, and what to do next, as one pure function.

They exist once, for the local cluster's supervisor and for the tests' API server. They follow
Kubernetes 1.36 (pkg/controller/job) for what s3runner asks of a Job: completions = parallelism = 1,
restartPolicy Never. Not modelled: indexed Jobs, successPolicy, FailIndex.

Only plain modules are imported: the supervisor's start is part of every job's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

FIRST_BACKOFF_S = 10.0
LONGEST_BACKOFF_S = 600.0
_DEFAULT_BACKOFF_LIMIT = 6

CREATE_POD = "create_pod"
END_PODS = "end_pods"
NOTHING = "nothing"

KubernetesObject = dict[str, Any]


class Step(NamedTuple):
    """What follows from a Job and its pods now.

    `status` is the Job's new status. `action` is CREATE_POD, END_PODS (delete those that are not
    terminal) or NOTHING. `again_at_s` (epoch seconds) is when to ask again although nothing
    happened: the end of a back-off, or the deadline.
    """

    status: KubernetesObject
    action: str
    again_at_s: float | None = None


class _Verdict(NamedTuple):
    """Why a Job ends: the condition it will have."""

    kind: str
    reason: str
    message: str


def next_step(
    job: KubernetesObject,
    pods: Sequence[KubernetesObject],
    now_s: float,
    first_backoff_s: float = FIRST_BACKOFF_S,
) -> Step:
    """Return the Job's status and the next action; `now_s` is in epoch seconds.

    `pods` are all that the Job ever had, also those that are gone from the cluster (their last
    state): counts are taken from them and not from the old status. Only a pod that was ended by the
    Job's suspension is left out once it has ended: the controller takes its finalizer off such a
    pod before it deletes it, and then neither counts nor judges it.

    | the Job has | status becomes | action |
    |---|---|---|
    | condition Complete or Failed | as it was | nothing |
    | no pod | startTime | create pod |
    | an active pod | active 1 | nothing; again at the deadline |
    | a pod Succeeded, also one with DisruptionTarget | Complete | nothing |
    | a failed pod that a rule FailJob matches | Failed, PodFailurePolicy | nothing |
    | a failed pod that a rule Ignore matches | failed as it was | create pod after the back-off |
    | a failed pod that Count or no rule matches | failed + 1 | create pod after the back-off |
    | failed > backoffLimit | Failed, BackoffLimitExceeded | nothing |
    | startTime + activeDeadlineSeconds passed | Failed, DeadlineExceeded | nothing |
    | one of these three, and a pod that is not terminal | FailureTarget, then Failed | end pods |
    | FailureTarget, and a pod that is being deleted | terminating 1, failed + 1 | end pods |
    | a pod that is being deleted, policy Failed | terminating 1 | nothing |
    | the same, policy TerminatingOrFailed | failed + 1 | create pod after the back-off |
    | spec.suspend | Suspended, without a start time | end pods |
    | Suspended, and no longer spec.suspend | Suspended False, startTime now | as without it |
    | metadata.deletionTimestamp | as it was | end pods |

    The back-off is 10 s x 2^(n-1) after the n-th failed pod, ignored ones too, 10 minutes at most,
    and runs from that pod's end.
    """
    if finished_condition(job) is not None:
        return Step(job["status"], NOTHING)
    status = _count(job, pods, now_s)
    if "deletionTimestamp" in job["metadata"]:
        return Step(status, END_PODS if any(map(_is_running_or_ending, pods)) else NOTHING)
    verdict = _judge(job, pods, status, now_s)
    if verdict is not None:
        return _end(_count_ending(job, pods, status, verdict), verdict, pods, now_s)
    deadline_s = _deadline_s(job, status)
    waiting = status.get("terminating", 0) if _replaces_only_failed(job) else 0
    if status.get("active", 0) or waiting or _is_suspended(job):
        is_to_stop = _is_suspended(job) and status.get("active", 0)
        return Step(status, END_PODS if is_to_stop else NOTHING, deadline_s)
    ready_s = _backoff_end_s(job, pods, first_backoff_s)
    if ready_s <= now_s:
        return Step(status, CREATE_POD, deadline_s)
    return Step(status, NOTHING, ready_s if deadline_s is None else min(ready_s, deadline_s))


def finished_condition(job: KubernetesObject) -> KubernetesObject | None:
    """Return the condition Complete or Failed, None while the Job goes on."""
    return _condition(job.get("status", {}), ("Complete", "Failed"))


def is_terminal(pod: KubernetesObject) -> bool:
    """Tell whether a pod has ended: a pod that is being deleted has not until its phase says so."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def pod_of(job: KubernetesObject, uid: str, suffix: str, now_s: float) -> KubernetesObject:
    """Return a new pod of this Job, phase Pending, named `<job>-<suffix>`."""
    metadata, template = job["metadata"], job["spec"]["template"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    labels = {
        **template.get("metadata", {}).get("labels", {}),
        "batch.kubernetes.io/job-name": metadata["name"],
        "batch.kubernetes.io/controller-uid": metadata["uid"],
        "job-name": metadata["name"],
        "controller-uid": metadata["uid"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name']}-{suffix}",
            "namespace": metadata.get("namespace", "default"),
            "uid": uid,
            "creationTimestamp": timestamp(now_s),
            "labels": labels,
            "annotations": dict(template.get("metadata", {}).get("annotations", {})),
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
        "status": {"phase": "Pending"},
    }


def timestamp(epoch_s: float) -> str:
    """Write a time as Kubernetes does: UTC, whole seconds."""
    return datetime.fromtimestamp(epoch_s, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch_s(text: str) -> float:
    """Read a time as Kubernetes writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _condition(status: KubernetesObject, kinds: Sequence[str]) -> KubernetesObject | None:
    return next(
        (
            condition
            for condition in status.get("conditions", [])
            if condition["type"] in kinds and condition["status"] == "True"
        ),
        None,
    )


def _replaces_only_failed(job: KubernetesObject) -> bool:
    spec = job["spec"]
    default = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    return bool(spec.get("podReplacementPolicy", default) == "Failed")


def _is_suspended(job: KubernetesObject) -> bool:
    return bool(job["spec"].get("suspend", False))


def _is_running_or_ending(pod: KubernetesObject) -> bool:
    return not is_terminal(pod)


def _is_active(pod: KubernetesObject) -> bool:
    return not is_terminal(pod) and "deletionTimestamp" not in pod["metadata"]


def _is_failed(job: KubernetesObject, pod: KubernetesObject) -> bool:
    if is_terminal(pod):
        return bool(pod["status"]["phase"] == "Failed")
    return "deletionTimestamp" in pod["metadata"] and not _replaces_only_failed(job)


def _count(
    job: KubernetesObject, pods: Sequence[KubernetesObject], now_s: float
) -> KubernetesObject:
    """Return the status with its counts; like Kubernetes, it leaves out those that are 0."""
    old = job.get("status", {})
    failed = [pod for pod in pods if _is_failed(job, pod)]
    counts = {
        "active": sum(map(_is_active, pods)),
        "terminating": sum(
            not is_terminal(pod) and "deletionTimestamp" in pod["metadata"] for pod in pods
        ),
        "succeeded": sum(pod.get("status", {}).get("phase") == "Succeeded" for pod in pods),
        "failed": sum(match_failure_policy(job, pod).action != "Ignore" for pod in failed),
    }
    status = {
        **{name: value for name, value in old.items() if name not in counts},
        **{name: count for name, count in counts.items() if count},
    }
    return _suspend_or_start(job, status, now_s)


def _count_ending(
    job: KubernetesObject,
    pods: Sequence[KubernetesObject],
    status: KubernetesObject,
    verdict: _Verdict,
) -> KubernetesObject:
    """Count a pod that a failing Job deletes as failed from then on: it is terminating as well."""
    leaving = [
        pod
        for pod in pods
        if verdict.kind == "Failed"
        and "deletionTimestamp" in pod["metadata"]
        and not is_terminal(pod)
        and not _is_failed(job, pod)
        and match_failure_policy(job, pod).action != "Ignore"
    ]
    return {**status, "failed": status.get("failed", 0) + len(leaving)} if leaving else status


def _suspend_or_start(
    job: KubernetesObject, status: KubernetesObject, now_s: float
) -> KubernetesObject:
    """Say in the status whether the Job is suspended; what is resumed starts anew."""
    conditions = status.get("conditions", [])
    before = _condition(status, ("Suspended",))
    if _is_suspended(job) == (before is not None):
        return status if before else {"startTime": timestamp(now_s), **status}
    others = [condition for condition in conditions if condition["type"] != "Suspended"]
    if before is None:
        told = _new_condition("Suspended", "True", "JobSuspended", "Job suspended", now_s)
        return {**status, "conditions": [*others, told]}
    told = _new_condition("Suspended", "False", "JobResumed", "Job resumed", now_s)
    return {**status, "startTime": timestamp(now_s), "conditions": [*others, told]}


def _new_condition(
    kind: str, status: str, reason: str, message: str, now_s: float
) -> KubernetesObject:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastProbeTime": timestamp(now_s),
        "lastTransitionTime": timestamp(now_s),
    }


def _judge(
    job: KubernetesObject,
    pods: Sequence[KubernetesObject],
    status: KubernetesObject,
    now_s: float,
) -> _Verdict | None:
    """Return why the Job ends, in the controller's order; None while it goes on."""
    told = _condition(status, ("FailureTarget",))
    if told is not None:
        return _Verdict("Failed", told["reason"], told["message"])
    matches = (match_failure_policy(job, pod) for pod in pods if _is_failed(job, pod))
    fatal = next((match for match in matches if match.action == "FailJob"), None)
    if fatal is not None:
        return _Verdict("Failed", "PodFailurePolicy", fatal.message)
    if status.get("failed", 0) > job["spec"].get("backoffLimit", _DEFAULT_BACKOFF_LIMIT):
        message = "Job has reached the specified backoff limit"
        return _Verdict("Failed", "BackoffLimitExceeded", message)
    if status.get("succeeded", 0):
        return _Verdict(
            "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
        )
    deadline_s = _deadline_s(job, status)
    if deadline_s is not None and now_s >= deadline_s:
        message = "Job was active longer than specified deadline"
        return _Verdict("Failed", "DeadlineExceeded", message)
    return None


def _end(
    status: KubernetesObject, verdict: _Verdict, pods: Sequence[KubernetesObject], now_s: float
) -> Step:
    """Announce the end while a pod is not terminal; after that, say it."""
    interim = "FailureTarget" if verdict.kind == "Failed" else "SuccessCriteriaMet"
    running = any(map(_is_running_or_ending, pods))
    conditions = list(status.get("conditions", []))
    for kind in [interim] if running else [interim, verdict.kind]:
        if _condition({"conditions": conditions}, (kind,)) is None:
            told = _new_condition(kind, "True", verdict.reason, verdict.message, now_s)
            conditions.append(told)
    status = {**status, "conditions": conditions}
    if verdict.kind == "Complete" and not running:
        status["completionTime"] = timestamp(now_s)
    return Step(status, END_PODS if running else NOTHING)


def _deadline_s(job: KubernetesObject, status: KubernetesObject) -> float | None:
    seconds = job["spec"].get("activeDeadlineSeconds")
    if seconds is None or _is_suspended(job):
        return None
    return epoch_s(status["startTime"]) + float(seconds)


def _backoff_end_s(
    job: KubernetesObject, pods: Sequence[KubernetesObject], first_backoff_s: float
) -> float:
    ends = [_ended_s(pod) for pod in pods if _is_failed(job, pod)]
    if not ends:
        return 0.0
    return max(ends) + min(first_backoff_s * 2.0 ** (len(ends) - 1), LONGEST_BACKOFF_S)


def _ended_s(pod: KubernetesObject) -> float:
    """Return when a pod ended: the last thing known of it, else its deletion or creation."""
    metadata, status = pod["metadata"], pod.get("status", {})
    known = [
        container["state"]["terminated"].get("finishedAt")
        for container in _container_statuses(pod)
        if "terminated" in container.get("state", {})
    ]
    known += [condition.get("lastTransitionTime") for condition in status.get("conditions", [])]
    fallback = metadata.get("deletionTimestamp") or metadata["creationTimestamp"]
    return max(epoch_s(moment) for moment in [*filter(None, known)] or [fallback])


def _container_statuses(pod: KubernetesObject) -> Iterable[KubernetesObject]:
    status = pod.get("status", {})
    yield from status.get("containerStatuses", [])
    yield from status.get("initContainerStatuses", [])


class PolicyMatch(NamedTuple):
    """What the podFailurePolicy says of a failed pod; the message is the Job condition's."""

    action: str
    message: str = ""


def match_failure_policy(job: KubernetesObject, pod: KubernetesObject) -> PolicyMatch:
    """Return the action of the first rule that matches a failed pod, Count where none does.

    | rule | matches |
    |---|---|
    | onExitCodes In / NotIn | a terminated container or init container whose code is not 0 |
    | with containerName | only that one |
    | onPodConditions | a condition of that type and status (default True) |
    """
    rules = job["spec"].get("podFailurePolicy", {}).get("rules", [])
    for index, rule in enumerate(rules):
        what = _match_rule(rule, pod)
        if what:
            message = f"{what} matching {rule['action']} rule at index {index}"
            return PolicyMatch(rule["action"], message)
    return PolicyMatch("Count")


def _match_rule(rule: KubernetesObject, pod: KubernetesObject) -> str:
    """Return what matched, in the controller's words; nothing for no match."""
    name = f"{pod['metadata'].get('namespace', 'default')}/{pod['metadata']['name']}"
    if "onExitCodes" in rule:
        found = _match_exit_code(rule["onExitCodes"], pod)
        return (
            f"Container {found[0]} for pod {name} failed with exit code {found[1]}" if found else ""
        )
    for pattern in rule.get("onPodConditions", []):
        for condition in pod.get("status", {}).get("conditions", []):
            same_kind = condition["type"] == pattern["type"]
            if same_kind and condition["status"] == pattern.get("status", "True"):
                return f"Pod {name} has condition {condition['type']}"
    return ""


def _match_exit_code(
    requirement: KubernetesObject, pod: KubernetesObject
) -> tuple[str, int] | None:
    for status in _container_statuses(pod):
        code = status.get("state", {}).get("terminated", {}).get("exitCode", 0)
        named = requirement.get("containerName") in (None, status["name"])
        listed = code in requirement["values"]
        if code != 0 and named and listed == (requirement["operator"] == "In"):
            return status["name"], code
    return None

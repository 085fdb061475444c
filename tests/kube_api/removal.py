"""How objects leave: gracefully, at once, with or without what they own.

It stands apart because a request, the controller and the kubelet all end pods by the same rules.
"""

from __future__ import annotations

from typing import Any

from kube_api.objects import JOBS, PODS, Objects, with_changes
from s3runner.cluster.job_rules import is_terminal, timestamp

KubernetesObject = dict[str, Any]

TRACKING = "batch.kubernetes.io/job-tracking"
FOREGROUND = "foregroundDeletion"
_DEFAULT_GRACE_S = 30


def begin_pod_end(
    objects: Objects, pod: KubernetesObject, now_s: float, grace_s: int | None = None
) -> KubernetesObject:
    """Let a pod be deleted within its grace, or a shorter one; return it as it is then."""
    metadata = pod["metadata"]
    own = int(pod["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S))
    grace = own if grace_s is None else grace_s
    if "deletionTimestamp" in metadata and metadata["deletionGracePeriodSeconds"] <= grace:
        return pod
    dying = with_changes(
        pod,
        metadata={
            "deletionTimestamp": timestamp(now_s + grace),
            "deletionGracePeriodSeconds": grace,
        },
    )
    stored = objects.put(PODS, dying)
    leave_if_done(objects, stored)
    return stored


def leave_if_done(objects: Objects, pod: KubernetesObject) -> None:
    """Remove a deleted pod that nobody holds: ended or never begun, or without any grace."""
    metadata = pod["metadata"]
    done = is_terminal(pod) or metadata.get("deletionGracePeriodSeconds") == 0
    if "deletionTimestamp" in metadata and done and not metadata.get("finalizers"):
        objects.remove(PODS, pod)


def release(objects: Objects, pod: KubernetesObject) -> None:
    """Take the Job controller's finalizer off a pod, which may be the pod's end."""
    metadata = pod["metadata"]
    if TRACKING not in metadata.get("finalizers", ()):
        return
    free = {name: value for name, value in metadata.items() if name != "finalizers"}
    stored = objects.put(PODS, {**pod, "metadata": free})
    leave_if_done(objects, stored)


def delete_job(objects: Objects, job: KubernetesObject, policy: str, now_s: float) -> bool:
    """Delete a Job; its pods follow (Background), go first (Foreground), or stay (Orphan).

    Returns whether it is gone. A Job without a policy orphans its pods, as batch/v1 does.
    """
    if policy == "Foreground":
        dying = {
            "deletionTimestamp": timestamp(now_s),
            "deletionGracePeriodSeconds": 0,
            "finalizers": [FOREGROUND],
        }
        objects.put(JOBS, with_changes(job, metadata=dying))
        return False
    with objects.changed:
        if policy == "Orphan":
            _disown(objects, job)
        objects.remove(JOBS, job)
    return True


def _disown(objects: Objects, job: KubernetesObject) -> None:
    for pod in objects.of(PODS, job["metadata"]["namespace"]):
        if owner_of(pod) == job["metadata"]["uid"]:
            free = with_changes(pod, metadata={"ownerReferences": [], "finalizers": []})
            objects.put(PODS, free)


def owner_of(pod: KubernetesObject) -> str:
    """Return the UID of the Job that a pod belongs to, nothing for none."""
    references = pod["metadata"].get("ownerReferences") or [{}]
    return str(references[0].get("uid", ""))

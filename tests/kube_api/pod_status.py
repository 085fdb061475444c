"""A pod's status as a kubelet writes it, made from what the pod's run knows.

Pure, and apart from the run because the local cluster has no reader for most of it.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

KubernetesObject = dict[str, Any]


def as_kubelet_shows(
    pod: KubernetesObject, run_status: KubernetesObject, moment: str
) -> KubernetesObject:
    """Return the whole status: the run's, what the API was told before, and the kubelet's own."""
    before = pod.get("status", {})
    status = copy.deepcopy(run_status)
    conditions = status.pop("conditions", [])
    status["conditions"] = copy.deepcopy(before.get("conditions", []))
    ran = {condition["type"]: condition for condition in conditions}
    mains = status.get("containerStatuses", [])
    if status["phase"] == "Running" and any("waiting" in one["state"] for one in mains):
        status["phase"] = "Pending"
    phase = status["phase"]
    started = any(_is_past_the_sandbox(one["state"]) for one in _all(status))
    initialized = "True" if "Initialized" in ran else "False"
    ready = "True" if mains and all("running" in one["state"] for one in mains) else "False"
    ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "ContainersNotReady")
    why = "" if ready == "True" else ended
    holds = "True" if started and phase in ("Pending", "Running") else "False"
    set_condition(status, "PodReadyToStartContainers", holds, moment)
    wait = "" if initialized == "True" else "ContainersNotInitialized"
    set_condition(status, "Initialized", initialized, moment, wait)
    set_condition(status, "Ready", ready, moment, why)
    set_condition(status, "ContainersReady", ready, moment, why)
    set_condition(status, "PodScheduled", "True", moment)
    status.update(
        qosClass="Burstable",
        hostIP="10.0.0.1",
        hostIPs=[{"ip": "10.0.0.1"}],
        podIP="10.244.0.7",
        podIPs=[{"ip": "10.244.0.7"}],
        observedGeneration=1,
    )
    if not status.get("initContainerStatuses"):
        status.pop("initContainerStatuses", None)
    for container in _all(status):
        _complete(container, pod["metadata"]["uid"])
    return status


def set_condition(
    status: KubernetesObject, kind: str, value: str, moment: str, reason: str = "", text: str = ""
) -> None:
    """Set one condition; its transition time moves only when its status does."""
    conditions = status.setdefault("conditions", [])
    before = next((c for c in conditions if c["type"] == kind), None)
    since = before["lastTransitionTime"] if before and before["status"] == value else moment
    told = {"reason": reason, "message": text}
    condition = {
        "type": kind,
        "status": value,
        "lastProbeTime": None,
        "lastTransitionTime": since,
        "observedGeneration": 1,
        **{name: word for name, word in told.items() if word},
    }
    if before is None:
        conditions.append(condition)
    else:
        conditions[conditions.index(before)] = condition


def _all(status: KubernetesObject) -> list[KubernetesObject]:
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _is_past_the_sandbox(state: KubernetesObject) -> bool:
    """Tell whether a container runs, has ended, or waits for something of its own."""
    return "waiting" not in state or state["waiting"]["reason"] != "PodInitializing"


def _complete(container: KubernetesObject, uid: str) -> None:
    """Add what a container has once it was made."""
    state = container["state"]
    if "waiting" in state or state.get("terminated", {}).get("reason") == "ContainerStatusUnknown":
        return
    name = hashlib.sha256(f"{uid}/{container['name']}".encode()).hexdigest()
    container["containerID"] = f"containerd://{name}"
    container["imageID"] = f"{container['image']}@sha256:{name}"
    if "terminated" in state:
        state["terminated"]["containerID"] = container["containerID"]
        if state["terminated"]["reason"] == "StartError":
            state["terminated"]["startedAt"] = "1970-01-01T00:00:00Z"

"""Why a pod ended, or will not get any further: one pure table over what its status shows.

It stands apart from `outcome`, which reads the Job around it. The words are Kubernetes' own
(pkg/kubelet, pkg/controller, 1.36); tests/observed has each row as a cluster leaves it, most of
them recorded from a real one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from s3runner.cluster.job_rules import is_terminal
from s3runner.cluster.protocol import JobObject
from s3runner.model import Outcome, code_of, outcome_of

OURS = ("fetch", "tool", "stager")

_CANNOT_START = ("StartError", "ContainerCannotRun")
_NO_SUCH_IMAGE = ("InvalidImageName", "ErrImageNeverPull")
_NO_IMAGE_YET = (
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
_BAD_CONFIG = (
    "CreateContainerConfigError",
    "CreateContainerError",
    "PreCreateHookError",
    "RunContainerError",
)
_LOST = "ContainerStatusUnknown"

_OVER_A_LIMIT = (
    "Usage of EmptyDir volume",
    "Pod ephemeral local storage usage exceeds",
    "exceeded its local ephemeral storage limit",
)
"""How a kubelet tells an eviction for the pod's own use of disk from one for the node's want of it.

https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/eviction/helpers.go
"""

_REJECTED = "Pod was rejected: "
"""What every refusal of a kubelet begins with.

https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/kubelet.go (rejectPod)
"""


class Patience(enum.Enum):
    """How long the head leaves things to the cluster before it decides how a generation ended."""

    JOB = "wait for the Job"
    NONE = "decide"
    GRACE = "decide after the grace"
    TERMINATION = "decide after the grace and 120 s"
    IMAGE_PULL = "decide after image_pull_timeout"
    PENDING = "decide after pending_timeout"


@dataclass(frozen=True, slots=True)
class PodEnd:
    """Why a pod ended or is stuck: the outcome if it left no result, and a sentence of evidence.

    `patience` is for as long as the Job goes on; with JOB the Job's controller does what is to do.
    """

    uid: str
    outcome: Outcome
    detail: str
    patience: Patience = Patience.JOB
    node: str | None = None

    def __str__(self) -> str:
        """Say it to the user."""
        went = "from" if self.outcome is Outcome.EVICTED else "on"
        where = f" {went} node {self.node}" if self.node else ""
        return f"{self.outcome.value}{where}: {self.detail}"


def end_of_pod(pod: JobObject, *, vanished: bool = False) -> PodEnd:
    """Return why a pod ended, or what keeps it. The first row that fits counts.

    | the pod shows                                        | outcome            | patience    |
    |------------------------------------------------------|--------------------|-------------|
    | Failed, Evicted, over a disk limit of its own        | no_space           | none        |
    | condition DisruptionTarget; evicted for another cause | evicted           | the Job's   |
    | Failed, rejected by a kubelet that began anew        | evicted            | the Job's   |
    | fetch, tool or stager OOMKilled, and not Succeeded   | out_of_memory      | the Job's   |
    | an init container OOMKilled with code 0              | out_of_memory      | the grace   |
    | a container with StartError                          | config_error       | none        |
    | InvalidImageName, ErrImageNeverPull                  | image_pull_failed  | none        |
    | ErrImagePull, ImagePullBackOff and their like        | image_pull_failed  | image pull  |
    | CreateContainerConfigError and its like              | config_error       | image pull  |
    | the scheduler's sentence                             | unschedulable      | pending     |
    | fetch or stager ended with a code of ours            | that code's        | the Job's   |
    | an init container of the user's ended, not with 0    | config_error       | the Job's   |
    | NodeLost, ContainerStatusUnknown, phase Unknown      | evicted            | the Job's   |
    | it was deleted, or is gone                           | evicted            | the Job's   |
    | Failed, and no container ever started                | evicted            | the Job's   |
    | it has a node, and no container has started yet      | tool_never_started | pending     |
    | none of these                                        | internal_error     | the Job's   |

    Whatever it shows: being deleted for longer than its grace and 120 s it is given up, and so is a
    pod whose tool runs for longer than the grace after the stager has ended.
    """
    rows = (_of_disruption, _of_kill, _of_wait, _of_codes, _of_loss, _of_start)
    found = next((end for row in rows if (end := row(pod))), None)
    if found is None:
        found = _end(pod, Outcome.INTERNAL_ERROR, f"no committed result ({_codes(pod)})")
    if is_terminal(pod):
        # what would end the next pod too is not left to the Job
        would_repeat = _is_over_a_limit(pod)
        return found if would_repeat else replace(found, patience=Patience.JOB)
    if vanished:
        untold = found.outcome in (Outcome.INTERNAL_ERROR, Outcome.TOOL_NEVER_STARTED)
        gone = _end(pod, Outcome.EVICTED, "the pod is gone")
        return gone if untold else replace(found, patience=Patience.JOB)
    if _is_leaving(pod):
        return replace(found, patience=Patience.TERMINATION)
    if found.patience is Patience.JOB and _has_ended(pod, "stager"):
        return replace(found, patience=Patience.GRACE)
    return found


def containers_of(pod: JobObject) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each container's name and state, init containers first."""
    status = pod.get("status", {})
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or ():
            yield container["name"], container.get("state") or {}


def _end(
    pod: JobObject, outcome: Outcome, detail: str, patience: Patience = Patience.JOB
) -> PodEnd:
    node = (pod.get("spec") or {}).get("nodeName")
    return PodEnd(str(pod["metadata"]["uid"]), outcome, detail.strip(), patience, node)


def _of_disruption(pod: JobObject) -> PodEnd | None:
    message = _message(pod)
    if _is_over_a_limit(pod):
        return _end(pod, Outcome.NO_SPACE, f"pod evicted: {message}", Patience.NONE)
    told = _condition(pod, "DisruptionTarget")
    if told is not None and told["status"] == "True":
        why = ": ".join(filter(None, (told.get("reason"), told.get("message") or message)))
        return _end(pod, Outcome.EVICTED, f"pod disrupted: {why}")
    if _was_evicted(pod):
        return _end(pod, Outcome.EVICTED, f"pod evicted: {message}")
    if _was_rejected(pod):
        return _end(pod, Outcome.EVICTED, f"{pod['status'].get('reason')}: {message}")
    return None


def _of_kill(pod: JobObject) -> PodEnd | None:
    if pod.get("status", {}).get("phase") == "Succeeded":
        return None  # some runtimes mark a container of which any process was killed
    initializing = _is_initializing(pod)
    for name, ended in _terminated(pod):
        reason = ended.get("reason")
        if reason == "OOMKilled" and (name in OURS or initializing):
            stays = initializing and ended["exitCode"] == 0
            patience = Patience.GRACE if stays else Patience.JOB
            return _end(pod, Outcome.OUT_OF_MEMORY, _words(name, ended), patience)
        if reason in _CANNOT_START:
            return _end(pod, Outcome.CONFIG_ERROR, _words(name, ended), Patience.NONE)
    return None


def _of_wait(pod: JobObject) -> PodEnd | None:
    for name, state in containers_of(pod):
        waiting = state.get("waiting") or {}
        reason = waiting.get("reason")
        if reason in _NO_SUCH_IMAGE:
            return _end(pod, Outcome.IMAGE_PULL_FAILED, _words(name, waiting), Patience.NONE)
        if reason in _NO_IMAGE_YET:
            return _end(pod, Outcome.IMAGE_PULL_FAILED, _words(name, waiting), Patience.IMAGE_PULL)
        if reason in _BAD_CONFIG:
            return _end(pod, Outcome.CONFIG_ERROR, _words(name, waiting), Patience.IMAGE_PULL)
    told = _condition(pod, "PodScheduled")
    if told is None or told["status"] == "True" or told.get("reason") == "SchedulingGated":
        return None
    sentence = str(told.get("message") or told.get("reason") or "no node")
    return _end(pod, Outcome.UNSCHEDULABLE, sentence, Patience.PENDING)


def _of_codes(pod: JobObject) -> PodEnd | None:
    for name, ended in _terminated(pod):
        code = ended["exitCode"]
        if name in ("fetch", "stager") and code != 0 and code_of(outcome_of(code)) == code:
            return _end(pod, outcome_of(code), f"container {name} exited with {code}")
    for name, ended in _terminated(pod):
        is_users = name not in OURS and ended.get("reason") != _LOST
        if is_users and ended["exitCode"] and _is_initializing(pod) and not _is_leaving(pod):
            detail = f"init container {name} exited with {ended['exitCode']}"
            return _end(pod, Outcome.CONFIG_ERROR, detail)
    return None


def _of_loss(pod: JobObject) -> PodEnd | None:
    status = pod.get("status", {})
    if status.get("reason") == "NodeLost" or status.get("phase") == "Unknown":
        return _end(pod, Outcome.EVICTED, f"node lost: {_message(pod) or 'no word of it'}")
    for name, ended in _terminated(pod):
        if ended.get("reason") == _LOST:
            return _end(pod, Outcome.EVICTED, _words(name, ended))
    return _end(pod, Outcome.EVICTED, "the pod was deleted") if _is_leaving(pod) else None


def _of_start(pod: JobObject) -> PodEnd | None:
    status = pod.get("status", {})
    states = [state for _, state in containers_of(pod)]
    if any("running" in state or "terminated" in state for state in states):
        return None
    if status.get("phase") == "Failed":
        why = ": ".join(filter(None, (status.get("reason"), status.get("message"))))
        return _end(pod, Outcome.EVICTED, f"the pod never started: {why or 'untold'}")
    told = _condition(pod, "PodScheduled")
    if told is None or told["status"] != "True":
        return None
    waits = {str((state.get("waiting") or {}).get("reason") or "waiting") for state in states}
    detail = f"no container has started: {', '.join(sorted(waits)) or 'the kubelet is silent'}"
    return _end(pod, Outcome.TOOL_NEVER_STARTED, detail, Patience.PENDING)


def _terminated(pod: JobObject) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in containers_of(pod):
        if "terminated" in state:
            yield name, state["terminated"]


def _has_ended(pod: JobObject, container: str) -> bool:
    return any(name == container for name, _ in _terminated(pod))


def _codes(pod: JobObject) -> str:
    codes = [f"{name} exited with {ended['exitCode']}" for name, ended in _terminated(pod)]
    return ", ".join(codes) or "no container has ended"


def _words(name: str, state: dict[str, Any]) -> str:
    said = str(state.get("message") or "").strip()
    reason = f"{state['reason']}: {said}" if said else str(state["reason"])
    return f"{reason} (container {name})"


def _condition(pod: JobObject, kind: str) -> dict[str, Any] | None:
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind), None)


def _message(pod: JobObject) -> str:
    return str(pod.get("status", {}).get("message") or "").strip()


def _was_evicted(pod: JobObject) -> bool:
    status = pod.get("status", {})
    return (status.get("phase"), status.get("reason")) == ("Failed", "Evicted")


def _was_rejected(pod: JobObject) -> bool:
    """Tell whether a kubelet refused a pod that had run: at its start it admits each one anew."""
    status = pod.get("status", {})
    ran = status.get("phase") == "Failed" and bool(status.get("containerStatuses"))
    return ran and _message(pod).startswith(_REJECTED)


def _is_over_a_limit(pod: JobObject) -> bool:
    return _was_evicted(pod) and any(words in _message(pod) for words in _OVER_A_LIMIT)


def _is_initializing(pod: JobObject) -> bool:
    """Tell whether no main container has begun: what has ended then is an init container."""
    mains = pod.get("status", {}).get("containerStatuses") or ()
    states = [one.get("state") or {} for one in mains]
    return not any("running" in state or "terminated" in state for state in states)


def _is_leaving(pod: JobObject) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))

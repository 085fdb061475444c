"""From a spec to the Kubernetes Job that runs it: a dict made by a function.

Pure. Every cluster, the local one too, gets the same object. What a user wrote enters it only as
a value that Kubernetes will not expand (`pod_spec.literal`), never as a part of a command.
"""

from __future__ import annotations

from typing import Any

from s3runner.cluster.placement import shape_for
from s3runner.cluster.pod_spec import job_labels, pod_template
from s3runner.model import Destination, StoreConfig
from s3runner.staging.records import Generation, Spec

FETCH_FINAL_CODES = [20, 21, 23, 24, 25]
STAGER_FINAL_CODES = [10, 11, 12, 20, 21, 23, 24, 25, 26, 27]

_MOST_SECONDS = 2**31 - 1

JsonObject = dict[str, Any]


def job_object(spec: Spec, generation: Generation, store: StoreConfig) -> JsonObject:
    """Return the Job of one generation. Raises SettingsError (20) for what it cannot express."""
    where = shape_for(spec.destination, generation.placement)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": generation.job_name,
            "labels": {**_labels(where), **job_labels(spec, where)},
            "annotations": {
                **_annotations(where),
                "s3runner/spec-digest": generation.spec_digest,
                "s3runner/name": spec.name,
            },
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": where.max_evictions,
            "activeDeadlineSeconds": _deadline_s(spec, where),
            **_time_to_live(where),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": _pod_failure_policy(),
            "template": pod_template(spec, generation, store, where),
        },
    }


def pod_caveats(spec: Spec) -> list[str]:
    """Return what the user should know of the pods that a destination makes."""
    if not spec.destination.tool_has_own_user:
        return []
    told = (
        "tool_user: image: the tool runs as its image's own user; fetch and stager run as root "
        "with CHOWN, DAC_OVERRIDE and FOWNER only, and inputs are readable to everyone in the pod"
    )
    return [told]


def _deadline_s(spec: Spec, where: Destination) -> int:
    """Return when the Job is given up whatever happens: a net, and no limit of the job's own."""
    attempt_s = where.pending_timeout_s + spec.walltime_s + where.staging_timeout_s + where.grace_s
    return min(_MOST_SECONDS, (where.max_evictions + 1) * int(attempt_s))


def _labels(where: Destination) -> dict[str, str]:
    return {} if where.kubernetes is None else {**where.kubernetes.pod.labels}


def _annotations(where: Destination) -> dict[str, str]:
    return {} if where.kubernetes is None else {**where.kubernetes.pod.annotations}


def _time_to_live(where: Destination) -> JsonObject:
    """Return when the cluster removes the ended Job, if a head does not."""
    place = where.kubernetes
    if place is None or place.pod.ttl_after_finished_s is None:
        return {}
    return {"ttlSecondsAfterFinished": place.pod.ttl_after_finished_s}


def _pod_failure_policy() -> JsonObject:
    def fail_on(container: str, codes: list[int]) -> JsonObject:
        condition = {"containerName": container, "operator": "In", "values": codes}
        return {"action": "FailJob", "onExitCodes": condition}

    return {
        "rules": [
            fail_on("fetch", FETCH_FINAL_CODES),
            fail_on("stager", STAGER_FINAL_CODES),
            {
                "action": "Count",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            },
            fail_on("tool", [128, 137]),
        ]
    }

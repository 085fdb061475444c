"""From a spec to the Kubernetes Job that runs it: a dict made by a function.

Pure. Every cluster, the local one too, gets the same object. What a user wrote enters it only as
a value that Kubernetes will not expand (`literal`), never as a part of a command.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from s3runner.cluster.protocol import NO_IMAGE
from s3runner.cluster.quantity import whole
from s3runner.errors import SettingsError
from s3runner.model import Quantity, Resources, StoreConfig
from s3runner.staging.records import Generation, Spec

HOME = "/s3runner"
CONTROL = f"{HOME}/control"
WORK = f"{HOME}/work"
TMP = f"{HOME}/tmp"  # noqa: S108  # the pod's own, made for this job
REFERENCES = f"{HOME}/references"

FORBIDDEN_ROOTS = ("/usr", "/bin", "/etc", "/opt", "/dev", "/proc", "/sys", "/sbin")
"""A mount at, above or below these would hide the image's own files."""

FETCH_FINAL_CODES = [20, 21, 23, 24, 25]
STAGER_FINAL_CODES = [10, 11, 12, 20, 21, 23, 24, 25, 26, 27]

_MIB = 1024**2
_CA_LIMIT = 64 * 1024

JsonObject = dict[str, Any]


def job_object(spec: Spec, generation: Generation, store: StoreConfig) -> JsonObject:
    """Return the Job of one generation. Raises SettingsError (20) for what it cannot express."""
    name = generation.job_name
    labels = {"app.kubernetes.io/managed-by": "s3runner", "s3runner/job-id": spec.job_id}
    where = spec.destination
    attempts = where.max_evictions + 1
    deadline = attempts * int(
        where.pending_timeout_s + spec.walltime_s + where.staging_timeout_s + where.grace_s
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {
                "s3runner/spec-digest": generation.spec_digest,
                "s3runner/name": spec.name,
            },
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": where.max_evictions,
            "activeDeadlineSeconds": deadline,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": _pod_failure_policy(),
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod_spec(spec, generation, store),
            },
        },
    }


def literal(value: str) -> str:
    """Escape a value so that Kubernetes' `$(VAR)` expansion gives it back unchanged."""
    return value.replace("$", "$$")


def effective_resources(resources: Resources) -> Resources:
    """Fill in what the job left open: one core and 2 GiB, requested, without a limit."""
    cpu, memory = resources.cpu, resources.memory
    return Resources(
        cpu=cpu if cpu.request or cpu.limit else Quantity(request="1"),
        memory=memory if memory.request or memory.limit else Quantity(request="2Gi"),
        disk=resources.disk,
        gpu=resources.gpu,
    )


def roots(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the directories to mount so that every absolute path among `paths` lies in one.

    Each is the parent of a declared path, and none lies in another. Raises SettingsError for one
    that would hide the image's own files.
    """
    parents = sorted({posixpath.dirname(path) for path in paths if path.startswith("/")})
    chosen: list[str] = []
    for parent in parents:
        _check_root(parent)
        if not any(parent == root or parent.startswith(f"{root}/") for root in chosen):
            chosen.append(parent)
    return tuple(chosen)


def declared_roots(spec: Spec, input_paths: Iterable[str]) -> tuple[str, ...]:
    """Return the roots of a job: of its absolute inputs, outputs and references."""
    placed = (*input_paths, *(o.path for o in spec.outputs), *spec.references.values())
    return roots(path for path in placed if not path.startswith(f"{HOME}/"))


def _check_root(root: str) -> None:
    inside = any(root == bad or root.startswith(f"{bad}/") for bad in FORBIDDEN_ROOTS)
    if root == "/" or inside or root.startswith(("/lib", HOME)):
        raise SettingsError(
            f"an absolute path in {root} would hide the image's own files",
            hint="put absolute inputs and outputs into a directory of their own, such as /data/x",
        )


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


def _pod_spec(spec: Spec, generation: Generation, store: StoreConfig) -> JsonObject:
    where = spec.destination
    mounts = [
        {"name": "control", "mountPath": CONTROL},
        {"name": "work", "mountPath": WORK, "subPath": "work"},
        {"name": "work", "mountPath": TMP, "subPath": "tmp"},
        *(
            {"name": "work", "mountPath": root, "subPath": f"roots/{number}"}
            for number, root in enumerate(spec.roots)
        ),
    ]
    reference_mount = {"name": "work", "mountPath": REFERENCES, "subPath": "references"}
    worker_env = _worker_env(spec, generation, store)
    resources = effective_resources(generation.resources)
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": where.grace_s,
        "volumes": [{"name": "control", "emptyDir": {}}, {"name": "work", "emptyDir": {}}],
        "initContainers": [
            {
                "name": "fetch",
                "image": where.worker_image,
                "command": ["execute_job.py", "fetch"],
                "env": worker_env,
                "volumeMounts": [*mounts, reference_mount],
            }
        ],
        "containers": [
            {
                "name": "tool",
                "image": spec.image or NO_IMAGE,
                "command": ["/bin/sh", f"{CONTROL}/tool_shim.sh"],
                "workingDir": WORK,
                "env": _tool_env(spec, resources),
                "resources": _container_resources(resources),
                "volumeMounts": [*mounts, {**reference_mount, "readOnly": True}],
            },
            {
                "name": "stager",
                "image": where.worker_image,
                "command": ["execute_job.py", "stager"],
                "env": worker_env,
                "resources": {"requests": {"cpu": "10m", "memory": "96Mi"}},
                "volumeMounts": mounts,
            },
        ],
    }


def _env(values: dict[str, str]) -> list[JsonObject]:
    return [{"name": name, "value": literal(value)} for name, value in values.items()]


def _worker_env(spec: Spec, generation: Generation, store: StoreConfig) -> list[JsonObject]:
    if store.ca_pem is not None and len(store.ca_pem) > _CA_LIMIT:
        raise SettingsError(
            f"the CA bundle has {len(store.ca_pem)} bytes, more than the {_CA_LIMIT} that a pod's "
            "environment can carry",
            hint="give a bundle that holds only your own CA",
        )
    job = {
        "job_id": spec.job_id,
        "generation": generation.number,
        "spec_digest": generation.spec_digest,
    }
    return [
        *_env(
            {
                "S3RUNNER_CONTROL": CONTROL,
                "S3RUNNER_WORK": WORK,
                "S3RUNNER_REFERENCES": REFERENCES,
                "S3RUNNER_STORE": json.dumps(asdict(store)),
                "S3RUNNER_JOB": json.dumps(job),
            }
        ),
        {"name": "S3RUNNER_ATTEMPT", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
    ]


def _tool_env(spec: Spec, resources: Resources) -> list[JsonObject]:
    cpu = resources.cpu.limit or resources.cpu.request or "1"
    memory = resources.memory.limit or resources.memory.request or "0"
    ours = {
        "S3RUNNER_CONTROL": CONTROL,
        "S3RUNNER_WORK": WORK,
        "S3RUNNER_START_TIMEOUT": str(spec.destination.start_timeout_s),
        "S3RUNNER_KILL_AFTER": "5",
        "S3RUNNER_JOB_ID": spec.job_id,
        "CPUS": str(max(1, whole(cpu))),
        "MEMORY_MB": str(whole(memory, _MIB)),
        "TMPDIR": TMP,
        **{reference_variable(name): place for name, place in spec.references.items()},
    }
    taken = sorted(set(ours) & set(spec.env))
    if taken:
        raise SettingsError(f"env: {', '.join(taken)} is set by s3runner itself")
    return _env({**spec.env, **ours})


def reference_variable(name: str) -> str:
    """Return the tool's variable that holds a reference's path: `hg38` -> `S3RUNNER_REF_HG38`."""
    safe = "".join(char if char.isalnum() and char.isascii() else "_" for char in name)
    return f"S3RUNNER_REF_{safe.upper()}"


def _container_resources(resources: Resources) -> JsonObject:
    named = {
        "cpu": resources.cpu,
        "memory": resources.memory,
        "ephemeral-storage": resources.disk,
    }
    asked = {name: item.request or item.limit for name, item in named.items()}
    requests = {name: quantity for name, quantity in asked.items() if quantity}
    limits = {name: item.limit for name, item in named.items() if item.limit}
    if resources.gpu:
        limits["nvidia.com/gpu"] = str(resources.gpu)
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}

"""The pod of a Job: fetch, then the tool with stager beside it, and what else was asked for.

Pure. Its parts come from their own modules; here they are put together, patched, and checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from s3runner.cluster.pod_patch import patched
from s3runner.cluster.pod_paths import CONTROL, REFERENCES, TMP, WORK, reference_variable
from s3runner.cluster.pod_resources import (
    effective_resources,
    fetch_resources,
    tool_resources,
)
from s3runner.cluster.pod_security import (
    SKIP_CONTAINERS,
    credential_env,
    pod_context,
    restricted_context,
    secret_variable,
    tool_context,
    worker_context,
)
from s3runner.cluster.pod_volumes import (
    control_mount,
    extra_mounts,
    reference_mount,
    unknown_containers,
    volumes,
    work_mounts,
)
from s3runner.cluster.protocol import DESTINATION_LABEL, NO_IMAGE
from s3runner.cluster.quantity import whole
from s3runner.errors import SettingsError
from s3runner.model import Destination, Resources, StoreConfig
from s3runner.pod_model import KubernetesPlace, PodParts, PodShape
from s3runner.staging.layout import label_of
from s3runner.staging.records import Generation, Spec

JsonObject = dict[str, Any]

_OURS = ("fetch", "tool", "stager")
_CA_LIMIT = 64 * 1024
_MIB = 1024**2
_NO_DISRUPTION = {
    "karpenter.sh/do-not-disrupt": "true",
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
}


def pod_template(
    spec: Spec, generation: Generation, store: StoreConfig, where: Destination
) -> JsonObject:
    """Return the pod template; `where` is the spec's destination as it is for this generation.

    Raises SettingsError (20) for what it cannot express.
    """
    return _Pod(spec, generation, store, where).template()


def literal(value: str) -> str:
    """Escape a value so that Kubernetes' `$(VAR)` expansion gives it back unchanged."""
    return value.replace("$", "$$")


@dataclass(frozen=True)
class _Pod:
    """One pod on its way from values to an object."""

    spec: Spec
    generation: Generation
    store: StoreConfig
    where: Destination

    @property
    def place(self) -> KubernetesPlace | None:
        return self.where.kubernetes

    @cached_property
    def shape(self) -> PodShape:
        return PodShape(do_not_disrupt=False) if self.place is None else self.place.pod

    @cached_property
    def parts(self) -> PodParts:
        return self.shape.parts.plus(self.spec.pod)

    @cached_property
    def resources(self) -> Resources:
        return effective_resources(self.generation.resources)

    def template(self) -> JsonObject:
        """Return it with the patches applied."""
        if self.place is None and self.spec.pod:
            raise SettingsError(
                f"destination {self.where.name}: pod: is for Kubernetes; this one is local",
                hint="choose another with --destination, or leave `pod` out of the job file",
            )
        if self.place is not None and not self.spec.image:
            raise SettingsError(
                f"destination {self.where.name}: a job on Kubernetes needs an image",
                hint="set `image` in the job file",
            )
        labels = {**self.shape.pod_labels, **job_labels(self.spec, self.where)}
        metadata: JsonObject = {"labels": labels}
        annotations = self._annotations()
        if annotations:
            metadata["annotations"] = annotations
        return patched({"metadata": metadata, "spec": self._pod()}, self.parts.patches)

    def _annotations(self) -> dict[str, str]:
        found = dict(_NO_DISRUPTION) if self.shape.do_not_disrupt else {}
        if self.place is not None and self.place.credentials.service_account is not None:
            others = ["tool", *(str(each["name"]) for each in self._others())]
            found[SKIP_CONTAINERS] = ",".join(others)
        return {**found, **self.shape.pod_annotations}

    def _pod(self) -> JsonObject:
        shape, parts = self.shape, self.parts
        self._check_names()
        mains = [
            self._tool(),
            self._stager(),
            *(self._extra(each) for each in parts.containers),
        ]
        named = {
            "serviceAccountName": self.place and self.place.credentials.service_account,
            "priorityClassName": shape.nodes.priority_class,
            "nodeSelector": self._node_selector(),
            "affinity": shape.nodes.affinity,
            "tolerations": [*(shape.nodes.tolerations or ())],
            "topologySpreadConstraints": [*(shape.nodes.topology_spread or ())],
            "imagePullSecrets": [{"name": name} for name in shape.image_pull_secrets],
        }
        return {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": self.where.grace_s,
            "securityContext": pod_context(shape),
            **{name: value for name, value in named.items() if value},
            "volumes": volumes(shape, parts, self.resources.disk if self.place else None),
            "initContainers": [
                self._fetch(mains),
                *(self._extra({**each, "restartPolicy": "Always"}) for each in parts.sidecars),
                *(self._extra(each) for each in parts.init_containers),
            ],
            "containers": mains,
        }

    def _others(self) -> Sequence[Mapping[str, Any]]:
        parts = self.parts
        return (*parts.init_containers, *parts.sidecars, *parts.containers)

    def _check_names(self) -> None:
        names = [str(each["name"]) for each in self._others()]
        for name in names:
            if name in _OURS or names.count(name) > 1:
                owner = "s3runner's own" if name in _OURS else "not the only one of this name"
                raise SettingsError(f"the container {name} is {owner}", hint="rename it")
        unknown_containers(self.parts, ("tool", *names))

    def _node_selector(self) -> dict[str, str | None]:
        nodes = self.shape.nodes
        product = nodes.gpu_product if self.resources.gpu else None
        selector = {k: v for k, v in nodes.node_selector.items() if v is not None}
        return {**selector, "nvidia.com/gpu.product": product} if product else {**selector}

    def _fetch(self, mains: Sequence[JsonObject]) -> JsonObject:
        mounts = [control_mount(), *work_mounts(self.spec.roots), reference_mount(read_only=False)]
        return self._worker("fetch", fetch_resources(mains), mounts)

    def _stager(self) -> JsonObject:
        mounts = [control_mount(), *work_mounts(self.spec.roots)]
        return self._worker("stager", dict(self.shape.worker_resources), mounts)

    def _worker(self, name: str, resources: JsonObject, mounts: Sequence[JsonObject]) -> JsonObject:
        keys = credential_env(self.place.credentials) if self.place else []
        return {
            "name": name,
            "image": self.where.worker_image,
            **self._pull_policy(),
            "command": ["execute_job.py", name],
            "env": [*self._worker_env(), *keys],
            "resources": resources,
            "securityContext": worker_context(self.shape),
            "volumeMounts": [*mounts],
        }

    def _tool(self) -> JsonObject:
        roots = self.spec.roots
        return {
            "name": "tool",
            "image": self.spec.image or NO_IMAGE,
            **self._pull_policy(),
            "command": ["/bin/sh", f"{CONTROL}/tool_shim.sh"],
            "workingDir": WORK,
            "env": self._tool_env(),
            "resources": tool_resources(self.resources, self.shape, self.parts),
            "securityContext": tool_context(self.shape),
            "volumeMounts": [
                control_mount(),
                *work_mounts(roots),
                reference_mount(read_only=True),
                *extra_mounts(self.parts, "tool", roots),
            ],
        }

    def _extra(self, written: Mapping[str, Any]) -> JsonObject:
        """Return a container that somebody added: it sees the job's files and holds no key."""
        roots = self.spec.roots
        mounts = [
            *work_mounts(roots),
            reference_mount(read_only=True),
            *extra_mounts(self.parts, written["name"], roots),
        ]
        defaults = {**self._pull_policy(), "securityContext": restricted_context()}
        if "command" in written:
            # an image's own program may count on the image's own directory
            defaults["workingDir"] = WORK
        return {
            **written,
            **{name: value for name, value in defaults.items() if name not in written},
            "volumeMounts": [*mounts, *(written.get("volumeMounts") or ())],
        }

    def _pull_policy(self) -> JsonObject:
        policy = self.shape.image_pull_policy
        return {} if policy is None else {"imagePullPolicy": policy}

    def _worker_env(self) -> list[JsonObject]:
        store = self.store
        if store.ca_pem is not None and len(store.ca_pem) > _CA_LIMIT:
            raise SettingsError(
                f"the CA bundle has {len(store.ca_pem)} bytes, more than the {_CA_LIMIT} that a "
                "pod's environment can carry",
                hint="give a bundle that holds only your own CA",
            )
        job = {
            "job_id": self.spec.job_id,
            "generation": self.generation.number,
            "spec_digest": self.generation.spec_digest,
        }
        return [
            *_env(
                {
                    "S3RUNNER_CONTROL": CONTROL,
                    "S3RUNNER_WORK": WORK,
                    "S3RUNNER_REFERENCES": REFERENCES,
                    "S3RUNNER_STORE": json.dumps(asdict(store)),
                    "S3RUNNER_JOB": json.dumps(job),
                    "TMPDIR": TMP,
                }
            ),
            {"name": "S3RUNNER_ATTEMPT", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        ]

    def _tool_env(self) -> list[JsonObject]:
        cpu = self.resources.cpu.limit or self.resources.cpu.request or "1"
        memory = self.resources.memory.limit or self.resources.memory.request or "0"
        references = self.spec.references.items()
        ours = {
            "S3RUNNER_CONTROL": CONTROL,
            "S3RUNNER_WORK": WORK,
            "S3RUNNER_START_TIMEOUT": str(self.where.start_timeout_s),
            "S3RUNNER_KILL_AFTER": "5",
            "S3RUNNER_JOB_ID": self.spec.job_id,
            "CPUS": str(max(1, whole(cpu))),
            "MEMORY_MB": str(whole(memory, _MIB)),
            "TMPDIR": TMP,
            **{reference_variable(name): place for name, place in references},
        }
        secrets = self.parts.secret_env
        taken = sorted(({*self.spec.env, *secrets} & set(ours)) | (set(self.spec.env) & {*secrets}))
        if taken:
            raise SettingsError(f"env: {', '.join(taken)} is set by s3runner itself, or twice")
        return [
            *(secret_variable(name, key.secret, key.key) for name, key in secrets.items()),
            *_env({**self.spec.env, **ours}),
        ]


def job_labels(spec: Spec, where: Destination) -> dict[str, str]:
    """Return the labels by which Jobs and pods are found."""
    return {
        "app.kubernetes.io/managed-by": "s3runner",
        # a job id may end with a dot or a dash, a label may not
        "s3runner/job-id": spec.job_id if spec.job_id[-1].isalnum() else label_of(spec.job_id),
        DESTINATION_LABEL: where.name,
    }


def _env(values: Mapping[str, str]) -> list[JsonObject]:
    return [{"name": name, "value": literal(value)} for name, value in values.items()]

"""What keeps pods from starting, as a test sets it up: no node, no image, no secret, no shell.

Values only; the kubelet asks them for each pod and each container.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

from kube_api.objects import CONFIG_MAPS, SECRETS, Objects

KubernetesObject = dict[str, Any]

_SOURCES = {"secretKeyRef": (SECRETS, "Secret"), "configMapKeyRef": (CONFIG_MAPS, "ConfigMap")}


class Hurdle(NamedTuple):
    """Why a container does not run: it waits with this reason, or ended at once with a code."""

    reason: str
    message: str
    exit_code: int | None = None


IMAGE_NOT_FOUND = Hurdle(
    "ErrImagePull",
    'rpc error: code = NotFound desc = failed to pull and unpack image "{image}": failed to '
    'resolve reference "{image}": {image}: not found',
)
PULL_BACK_OFF = Hurdle(
    "ImagePullBackOff",
    'Back-off pulling image "{image}": ErrImagePull: rpc error: code = NotFound desc = failed to '
    'pull and unpack image "{image}": failed to resolve reference "{image}": {image}: not found',
)
INVALID_IMAGE_NAME = Hurdle(
    "InvalidImageName",
    'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": invalid '
    "reference format",
)
NEVER_PULL = Hurdle(
    "ErrImageNeverPull",
    'Container image "{image}" is not present with pull policy of Never',
)
NO_SHELL = Hurdle(
    "StartError",
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc "
    "create failed: unable to start container process: error during container init: exec: "
    '"/bin/sh": stat /bin/sh: no such file or directory',
    exit_code=128,
)
CREATE_ERROR = Hurdle(
    "CreateContainerError",
    "failed to generate container spec: failed to apply OCI options: no command specified",
)
NO_NODE = (
    "0/3 nodes are available: 3 Insufficient memory. no new claims to deallocate, preemption: 0/3 "
    "nodes are available: 3 No preemption victims found for incoming pod."
)


class Hurdles:
    """What is in the way now; the kubelet looks again when told to."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.unschedulable = ""
        self.containers: dict[str, Hurdle] = {}

    def of(self, pod: KubernetesObject, container: KubernetesObject) -> Hurdle | None:
        """Return what keeps a container from running."""
        planned = self.containers.get(container["name"])
        if planned is not None:
            message = planned.message.replace("{image}", container["image"])
            return planned._replace(message=message)
        namespace = pod["metadata"]["namespace"]
        for variable in container.get("env") or ():
            missing = self._missing(namespace, variable.get("valueFrom") or {})
            if missing:
                return Hurdle("CreateContainerConfigError", missing)
        return None

    def with_values(self, pod: KubernetesObject, container: KubernetesObject) -> KubernetesObject:
        """Return a container whose variables hold what their secrets and fields hold."""
        env = [self._resolved(pod, variable) for variable in container.get("env") or ()]
        return {**container, "env": [one for one in env if one is not None]}

    def _missing(self, namespace: str, source: KubernetesObject) -> str:
        for kind, (resource, name) in _SOURCES.items():
            wanted = source.get(kind)
            if wanted is None or wanted.get("optional"):
                continue
            found = self._objects.find(resource, namespace, wanted["name"])
            if found is None:
                return f'{name.lower()} "{wanted["name"]}" not found'
            if wanted["key"] not in found["data"]:
                return f"couldn't find key {wanted['key']} in {name} {namespace}/{wanted['name']}"
        return ""

    def _resolved(
        self, pod: KubernetesObject, variable: KubernetesObject
    ) -> KubernetesObject | None:
        source = variable.get("valueFrom") or {}
        fields = {
            "spec.nodeName": pod["spec"].get("nodeName", ""),
            "status.podIP": pod.get("status", {}).get("podIP", ""),
        }
        path = (source.get("fieldRef") or {}).get("fieldPath")
        if path in fields:
            return {"name": variable["name"], "value": fields[path]}
        for kind, (resource, _) in _SOURCES.items():
            if kind in source:
                namespace = pod["metadata"]["namespace"]
                found = self._objects.find(resource, namespace, source[kind]["name"])
                value = (found or {"data": {}})["data"].get(source[kind]["key"])
                if value is None:
                    return None
                text = base64.b64decode(value).decode() if kind == "secretKeyRef" else value
                return {"name": variable["name"], "value": text.replace("$", "$$")}
        return variable

"""Who the containers run as, and what they may do: the restricted standard, unless asked.

Pure. Also here: how fetch and stager, and nobody else, come by the store's credentials.
"""

from __future__ import annotations

from typing import Any

from s3runner.pod_model import AS_IMAGE, PodCredentials, PodShape

JsonObject = dict[str, Any]

SKIP_CONTAINERS = "eks.amazonaws.com/skip-containers"
"""By this annotation EKS gives a container no token for the service account's role."""

_FOR_ANY_FILE = ["CHOWN", "DAC_OVERRIDE", "FOWNER"]
"""What root needs to read and write files of another user; nothing else is given."""


def pod_context(shape: PodShape) -> JsonObject:
    """Return the pod's security context; with `tool_user: image` it names no user."""
    shared: JsonObject = {
        "fsGroup": shape.fs_group,
        # a claim with many files is not walked through for each pod
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if shape.tool_user == AS_IMAGE:
        return shared
    user: JsonObject = {"runAsUser": shape.run_as_user, "runAsGroup": shape.run_as_group}
    return {"runAsNonRoot": True, **user, **shared} if shape.run_as_user else {**user, **shared}


def worker_context(shape: PodShape) -> JsonObject:
    """Return that of fetch and stager: they write to the pod's volumes only."""
    context = {**restricted_context(), "readOnlyRootFilesystem": True}
    if shape.tool_user != AS_IMAGE:
        return context
    return {
        **context,
        "runAsUser": 0,
        "runAsGroup": 0,
        "capabilities": {"drop": ["ALL"], "add": _FOR_ANY_FILE},
    }


def tool_context(shape: PodShape) -> JsonObject:
    """Return the tool's: an image with a user of its own keeps what its runtime gives it."""
    if shape.tool_user == AS_IMAGE:
        return {"allowPrivilegeEscalation": False}
    return restricted_context()


def restricted_context() -> JsonObject:
    """Return what any other container gets that says nothing of its own."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def credential_env(credentials: PodCredentials) -> list[JsonObject]:
    """Return the variables that hold a Secret's keys; with a service account there are none."""
    if credentials.secret is None:
        return []
    entries = {
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        "AWS_SESSION_TOKEN": credentials.session_token,
    }
    return [
        secret_variable(name, credentials.secret, key)
        for name, key in entries.items()
        if key is not None
    ]


def secret_variable(name: str, secret: str, key: str) -> JsonObject:
    """Return a variable that holds one entry of a Secret."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}

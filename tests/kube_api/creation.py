"""Taking an object in: decode it strictly, fill in defaults, refuse what breaks a rule.

It stands apart from the routes because most of what can be wrong with a request is wrong here.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from typing import Any

from kube_api.answers import RefusedError, invalid
from kube_api.job_checks import job_causes
from kube_api.known_fields import Flaw, flaws, without
from kube_api.objects import JOBS, KINDS, SECRETS
from kube_api.syntax import dns_subdomain, labels
from s3runner.cluster.job_rules import timestamp

KubernetesObject = dict[str, Any]

_MODELS = {JOBS: "V1Job", SECRETS: "V1Secret"}


def take_in(
    resource: str, namespace: str, body: bytes, query: Mapping[str, str], now_s: float
) -> tuple[KubernetesObject, list[str]]:
    """Return the object to store, and the warnings that go back with it. Raises RefusedError."""
    group, version, kind = KINDS[resource]
    document, told = _decode(body, kind, version.rpartition("/")[2])
    if (document.get("apiVersion", version), document.get("kind", kind)) != (version, kind):
        raise RefusedError(
            400,
            f"the API version in the data ({document.get('apiVersion')}) does "
            f"not match the expected API version ({version})",
        )
    warnings = _check_fields(document, _MODELS.get(resource, f"V1{kind}"), told, query)
    metadata = document.setdefault("metadata", {})
    if metadata.setdefault("namespace", namespace) != namespace:
        raise RefusedError(
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        )
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
    name = metadata.get("name", "")
    causes = [*(job_causes(document) if resource == JOBS else _plain_causes(metadata))]
    if causes:
        raise invalid(kind, group, name, causes)
    metadata.update(uid=str(uuid.uuid4()), creationTimestamp=timestamp(now_s))
    document = {"apiVersion": version, "kind": kind, **document}
    return _with_defaults(resource, document), warnings


def _plain_causes(metadata: KubernetesObject) -> list[tuple[str, str]]:
    return [
        *dns_subdomain("metadata.name", metadata.get("name")),
        *labels("metadata.labels", metadata.get("labels")),
    ]


def _decode(body: bytes, kind: str, version: str) -> tuple[KubernetesObject, list[str]]:
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> KubernetesObject:
        names = [name for name, _ in items]
        repeated.extend(name for name in set(names) if names.count(name) > 1)
        return dict(items)

    try:
        document = json.loads(body, object_pairs_hook=pairs)
    except ValueError as error:
        text = f'{kind} in version "{version}" cannot be handled as a {kind}: json: {error}'
        raise RefusedError(400, text) from error
    if not isinstance(document, dict):
        raise RefusedError(400, "couldn't get version/kind; json parse error")
    return document, [f'duplicate field "{name}"' for name in repeated]


def _check_fields(
    document: KubernetesObject, model: str, told: list[str], query: Mapping[str, str]
) -> list[str]:
    """Refuse, warn of, or ignore what the decoder does not know; wrong types are always refused."""
    kind = model.removeprefix("V1")
    found = [*flaws(document, model)]
    wrong = next((flaw for flaw in found if flaw.wrong_type), None)
    refusal = f'{kind} in version "v1" cannot be handled as a {kind}:'
    if wrong is not None:
        raise RefusedError(
            400, f"{refusal} json: cannot unmarshal {wrong.wrong_type} ({wrong.path})"
        )
    told += [f'unknown field "{flaw.path}"' for flaw in found]
    strictness = query.get("fieldValidation", "Warn")
    if told and strictness == "Strict":
        raise RefusedError(400, f"{refusal} strict decoding error: {', '.join(told)}")
    for flaw in _deepest_first(found):
        without(document, flaw.path)
    return told if strictness == "Warn" else []


def _deepest_first(found: list[Flaw]) -> list[Flaw]:
    return sorted(found, key=lambda flaw: -flaw.path.count("."))


def _with_defaults(resource: str, document: KubernetesObject) -> KubernetesObject:
    if resource == SECRETS:
        plain = document.pop("stringData", None) or {}
        encoded = {name: base64.b64encode(v.encode()).decode() for name, v in plain.items()}
        data = {**(document.get("data") or {}), **encoded}
        return {"type": "Opaque", **document, "data": data}
    return _job_with_defaults(document) if resource == JOBS else document


def _job_with_defaults(job: KubernetesObject) -> KubernetesObject:
    metadata, spec = job["metadata"], job["spec"]
    template = spec["template"]
    own = {
        "batch.kubernetes.io/controller-uid": metadata["uid"],
        "batch.kubernetes.io/job-name": metadata["name"],
        "controller-uid": metadata["uid"],
        "job-name": metadata["name"],
    }
    given = template.get("metadata") or {}
    policy = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    pod = {
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        **template["spec"],
    }
    defaults = {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "podReplacementPolicy": policy,
        "manualSelector": False,
    }
    uid_label = {"batch.kubernetes.io/controller-uid": metadata["uid"]}
    made = {
        **defaults,
        **spec,
        "selector": {"matchLabels": uid_label},
        "template": {
            "metadata": {**given, "labels": {**own, **(given.get("labels") or {})}},
            "spec": pod,
        },
    }
    metadata["generation"] = 1
    return {**job, "spec": made, "status": {}}

"""The last word on a pod: the patches of destination and job, which may not break what runs in it.

Pure. What fetch, shim and stager rely on is compared before and after, so that a patch fails at
submission and not in a pod.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3runner.cluster.merge import merge
from s3runner.errors import SettingsError

JsonObject = dict[str, Any]

OURS = (("initContainers", "fetch"), ("containers", "tool"), ("containers", "stager"))

_SAME_IN_POD = ("restartPolicy", "terminationGracePeriodSeconds")
_SAME_IN_CONTAINER = ("command", "args", "workingDir", "restartPolicy")
_SHARED = ("shareProcessNamespace", "hostPID")
"""With one of these the shim is not the first process of its namespace, and refuses to run."""


def patched(template: JsonObject, patches: Sequence[Mapping[str, Any]]) -> JsonObject:
    """Return the pod template with the patches applied, one after the other.

    Raises SettingsError for a patch that changes what s3runner needs.
    """
    after: JsonObject = template
    for patch in patches:
        after = merge(after, patch)
        broken = next(_broken(template, after), None)
        if broken is not None:
            raise SettingsError(
                f"patch: {broken}",
                hint="what fetch, tool and stager need of a pod has to stay as it is",
            )
    return after


def _broken(before: JsonObject, after: JsonObject) -> Iterator[str]:
    labels = (after.get("metadata") or {}).get("labels") or {}
    for name, value in before["metadata"]["labels"].items():
        if labels.get(name) != value:
            yield f"metadata.labels: {name} was changed or removed"
    one, other = before["spec"], after.get("spec") or {}
    for field in _SAME_IN_POD:
        if one.get(field) != other.get(field):
            yield f"spec.{field} was changed; it has settings of its own"
    for field in _SHARED:
        if other.get(field):
            yield f"spec.{field}: the tool would no longer be alone in its PID namespace"
    yield from _broken_list("spec.volumes", one["volumes"][:2], other.get("volumes") or [], "name")
    for kind, name in OURS:
        yield from _broken_container(kind, name, one, other)


def _broken_container(kind: str, name: str, before: JsonObject, after: JsonObject) -> Iterator[str]:
    where = f"spec.{kind}[{name}]"
    one = next(each for each in before[kind] if each["name"] == name)
    others = after.get(kind) or []
    other = next((each for each in others if each.get("name") == name), None)
    if other is None:
        yield f"{where} was removed"
        return
    if name != "stager" and others[0] is not other:
        yield f"{where} is no longer the first"
    for field in _SAME_IN_CONTAINER if name == "tool" else (*_SAME_IN_CONTAINER, "image"):
        if one.get(field) != other.get(field):
            yield f"{where}.{field} was changed"
    mounts, env = other.get("volumeMounts") or [], other.get("env") or []
    yield from _broken_list(f"{where}.volumeMounts", one["volumeMounts"], mounts, "mountPath")
    yield from _broken_list(f"{where}.env", one["env"], env, "name")


def _broken_list(
    where: str, before: Sequence[JsonObject], after: Sequence[JsonObject], key: str
) -> Iterator[str]:
    for item in before:
        if item not in after:
            yield f"{where}: {item[key]} was changed or removed"

"""Kubernetes' strategic merge, as far as pods go: what `kubectl patch` does to a pod template.

Pure. Mappings merge, null deletes, and a list merges by a key of its items where Kubernetes says
so; every other list is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3runner.errors import SettingsError

MERGE_KEYS: Mapping[str, str] = {
    "containers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ports": "containerPort",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""The lists of a pod template whose items are found by a key (`patchMergeKey` in the API)."""

_PATCH, _RETAIN = "$patch", "$retainKeys"

Raw = Mapping[str, Any]


def merge(base: Raw, patch: Raw, where: str = "patch") -> dict[str, Any]:
    """Return `base` with the patch applied; neither is changed. Raises SettingsError."""
    directive = patch.get(_PATCH)
    if directive == "replace":
        return _merged({}, {k: v for k, v in patch.items() if k != _PATCH}, where)
    if directive not in (None, "merge"):
        raise SettingsError(f"{where}.{_PATCH}: there is no directive {directive!r}")
    return _merged(base, {k: v for k, v in patch.items() if k != _PATCH}, where)


def _merged(base: Raw, patch: Raw, where: str) -> dict[str, Any]:
    kept = patch.get(_RETAIN)
    result = {k: v for k, v in base.items() if kept is None or k in kept}
    for key, value in patch.items():
        if key == _RETAIN:
            continue
        here = f"{where}.{key}"
        if key.startswith("$"):
            raise SettingsError(f"{here}: this directive is not known here")
        if value is None or (isinstance(value, Mapping) and value.get(_PATCH) == "delete"):
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = base.get(key)
            result[key] = merge(below if isinstance(below, Mapping) else {}, value, here)
        elif isinstance(value, list | tuple):
            result[key] = _list(result.get(key) or [], [*value], key, here)
        else:
            result[key] = value
    return result


def _list(base: list[Any], patch: list[Any], name: str, where: str) -> list[Any]:
    key = MERGE_KEYS.get(name)
    if key is None or not all(isinstance(item, Mapping) for item in (*base, *patch)):
        return patch
    if {_PATCH: "replace"} in patch:
        added = [item for item in patch if item != {_PATCH: "replace"}]
        return [merge({}, item, f"{where}[{n}]") for n, item in enumerate(added)]
    result = [*base]
    for number, item in enumerate(patch):
        _put(result, item, key, f"{where}[{number}]")
    return result


def _put(result: list[Any], item: Raw, key: str, where: str) -> None:
    """Merge one item into the list that it belongs to."""
    if item.get(key) is None:
        raise SettingsError(f"{where}: needs `{key}`, by which the items of this list are found")
    at = next((n for n, other in enumerate(result) if other.get(key) == item[key]), None)
    if item.get(_PATCH) == "delete":
        if at is not None:
            del result[at]
    elif at is None:
        result.append(merge({}, item, where))
    else:
        result[at] = merge(result[at], item, where)

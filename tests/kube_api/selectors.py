"""Label and field selectors, as queries carry them.

Pure, and apart from the routes because a watch needs them for each event.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from kube_api.answers import RefusedError

KubernetesObject = dict[str, Any]
Test = Callable[[KubernetesObject], bool]

_SET = re.compile(r"(\S+)\s+(in|notin)\s+\((.*)\)")
_TERM = re.compile(r"(?:[^,(]|\([^)]*\))+")


def selector(labels: str, fields: str) -> Test:
    """Return a test for objects. Raises RefusedError (400) for what cannot be parsed."""
    tests = [_label_test(term.strip()) for term in _TERM.findall(labels)]
    tests += [_field_test(term.strip()) for term in fields.split(",") if term]
    return lambda item: all(test(item) for test in tests)


def _label_test(term: str) -> Test:
    found = _SET.fullmatch(term)
    if found:
        key, listed = found[1], {value.strip() for value in found[3].split(",")}
        wanted = found[2] == "in"
        return lambda item: (_labels(item).get(key) in listed) == wanted
    for sign, equal in (("!=", False), ("==", True), ("=", True)):
        if sign in term:
            key, value = (part.strip() for part in term.split(sign, 1))
            return _equals(key, value, equal=equal)
    if term.startswith("!"):
        return lambda item: term[1:] not in _labels(item)
    if not re.fullmatch(r"[A-Za-z0-9./_-]+", term):
        raise RefusedError(400, f"unable to parse requirement: {term}")
    return lambda item: term in _labels(item)


def _equals(key: str, value: str, *, equal: bool) -> Test:
    return lambda item: (_labels(item).get(key) == value) == equal


def _labels(item: KubernetesObject) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def _field_test(term: str) -> Test:
    path, value = re.split(r"==?", term, maxsplit=1)
    negative = path.endswith("!")
    return lambda item: (_field(item, path.rstrip("!")) == value) != negative


def _field(item: KubernetesObject, path: str) -> str:
    found: Any = item
    for part in path.split("."):
        found = found.get(part, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, str) else ""

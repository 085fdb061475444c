"""Who may do what: every call is recorded, and what a test denies, or a Role lacks, is forbidden.

It stands apart so that a test can compare the record with a Role in both directions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kube_api.answers import FORBIDDEN, RefusedError, details_of, full_name

USER = "system:serviceaccount:s3runner:head"


class Access(NamedTuple):
    """One call as RBAC sees it; `resource` is `jobs`, `pods/log`; `group` is `batch`, ``."""

    verb: str
    group: str
    resource: str
    namespace: str


class Rbac:
    """The record of calls, and the rules that they are held against."""

    def __init__(self) -> None:
        self.calls: list[Access] = []
        self._lock = threading.Lock()
        self._denied: set[tuple[str, str]] = set()
        self._allowed: set[tuple[str, str, str]] | None = None

    @property
    def used(self) -> set[tuple[str, str, str]]:
        """The (verb, group, resource) of all calls so far."""
        with self._lock:
            return {(call.verb, call.group, call.resource) for call in self.calls}

    def count(self, verb: str | None = None, resource: str | None = None) -> int:
        """Return how many calls there were."""
        with self._lock:
            return sum(
                verb in (None, call.verb) and resource in (None, call.resource)
                for call in self.calls
            )

    def deny(self, verb: str, resource: str) -> None:
        """Forbid a verb on a resource."""
        self._denied.add((verb, resource))

    def allow(self, verb: str, resource: str) -> None:
        """Take a denial back."""
        self._denied.discard((verb, resource))

    def enforce(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Allow what the rules of a Role allow, nothing else."""
        self._allowed = {
            (verb, group, resource)
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    def check(self, access: Access, name: str) -> None:
        """Record a call. Raises RefusedError if it is forbidden."""
        with self._lock:
            self.calls.append(access)
        verb, group, resource, namespace = access
        allowed = self._allowed is None or (verb, group, resource) in self._allowed
        if allowed and (verb, resource) not in self._denied:
            return
        what = full_name(resource.split("/")[0], group) + (f' "{name}"' if name else "")
        message = (
            f'{what} is forbidden: User "{USER}" cannot {verb} resource "{resource}" in API group '
            f'"{group}" in the namespace "{namespace}"'
        )
        details = details_of(resource.split("/")[0], group, name)
        raise RefusedError(FORBIDDEN, message, details=details)

"""What the server keeps: objects, their versions, and the history that watches read.

It stands apart because it knows no rules: the routes, the controller and the kubelet all change
objects here, and whoever waits is woken.
"""

from __future__ import annotations

import copy
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

KubernetesObject = dict[str, Any]

JOBS, PODS, EVENTS, SECRETS = "jobs", "pods", "events", "secrets"
ACCOUNTS, CONFIG_MAPS, NAMESPACES = "serviceaccounts", "configmaps", "namespaces"

KINDS = {
    JOBS: ("batch", "batch/v1", "Job"),
    PODS: ("", "v1", "Pod"),
    EVENTS: ("", "v1", "Event"),
    SECRETS: ("", "v1", "Secret"),
    ACCOUNTS: ("", "v1", "ServiceAccount"),
    CONFIG_MAPS: ("", "v1", "ConfigMap"),
    NAMESPACES: ("", "v1", "Namespace"),
}
"""Resource -> API group, apiVersion, kind."""


class Change(NamedTuple):
    """One event of the history; `before` is the object's state before it, None for a new one."""

    version: int
    resource: str
    kind: str
    object: KubernetesObject
    before: KubernetesObject | None


class Objects:
    """All objects, by resource, namespace and name.

    `changed` is the one lock; it is notified after each change, and `listeners` are told with it
    held. What is stored is never changed in place, so a reader may keep what it got.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.history: list[Change] = []
        self.compacted = 0
        self.version = 1000 + secrets.randbelow(100_000)
        self._first_version = self.version
        self._objects: dict[tuple[str, str, str], KubernetesObject] = {}
        self.listeners: list[Callable[[Change], None]] = []

    def find(self, resource: str, namespace: str, name: str) -> KubernetesObject | None:
        """Return an object, None if there is none."""
        with self.changed:
            return self._objects.get((resource, namespace, name))

    def of(self, resource: str, namespace: str | None = None) -> list[KubernetesObject]:
        """Return the objects of a resource, by namespace and name."""
        with self.changed:
            found = [
                (key, found)
                for key, found in self._objects.items()
                if key[0] == resource and namespace in (None, key[1])
            ]
        return [item for _, item in sorted(found, key=lambda pair: pair[0])]

    def by_uid(self, resource: str, uid: str) -> KubernetesObject | None:
        """Return an object by its UID."""
        return next((o for o in self.of(resource) if o["metadata"]["uid"] == uid), None)

    def put(self, resource: str, item: KubernetesObject) -> KubernetesObject:
        """Store an object as its next version, unless it is what is stored; return it."""
        with self.changed:
            metadata = item["metadata"]
            key = (resource, metadata.get("namespace", ""), metadata["name"])
            before = self._objects.get(key)
            if before is not None and _same(before, item):
                return before
            stored = self._next_version(item)
            self._objects[key] = stored
            self._tell(resource, "MODIFIED" if before else "ADDED", stored, before)
            return stored

    def remove(self, resource: str, item: KubernetesObject) -> None:
        """Forget an object; a watch shows its last state with a new version."""
        with self.changed:
            metadata = item["metadata"]
            key = (resource, metadata.get("namespace", ""), metadata["name"])
            before = self._objects.pop(key, None)
            if before is not None:
                self._tell(resource, "DELETED", self._next_version(before), before)

    def since(self, version: int, resource: str) -> list[Change]:
        """Return what happened to a resource after a version, oldest first."""
        found = []
        for change in reversed(self.history):
            if change.version <= version:
                break
            if change.resource == resource:
                found.append(change)
        return found[::-1]

    def compact(self) -> None:
        """Forget the history: whoever asks for what came after an older version gets 410."""
        with self.changed:
            self.compacted = self.version
            self.history.clear()

    def knows(self, version: int) -> bool:
        """Tell whether the history reaches back to a version."""
        return version >= max(self.compacted, self._first_version)

    def _next_version(self, item: KubernetesObject) -> KubernetesObject:
        self.version += 1
        stored = copy.deepcopy(item)
        stored["metadata"]["resourceVersion"] = str(self.version)
        return stored

    def _tell(
        self, resource: str, kind: str, item: KubernetesObject, before: KubernetesObject | None
    ) -> None:
        change = Change(self.version, resource, kind, item, before)
        self.history.append(change)
        for listener in self.listeners:
            listener(change)
        self.changed.notify_all()


def _same(one: KubernetesObject, other: KubernetesObject) -> bool:
    version = one["metadata"]["resourceVersion"]
    metadata = {**other["metadata"], "resourceVersion": version}
    return one == {**other, "metadata": metadata}


def with_changes(item: KubernetesObject, **parts: Mapping[str, Any]) -> KubernetesObject:
    """Return a copy whose `metadata`, `status` or `spec` have these values beside their own."""
    return {**item, **{part: {**item.get(part, {}), **new} for part, new in parts.items()}}

"""A watch: the events of one resource after a version, until its time is over or a fault ends it.

It stands apart from HTTP, and from the lists, which are answered at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kube_api.answers import RefusedError, expired
from kube_api.faults import DroppedError, Faults
from kube_api.objects import KINDS, Change, Objects
from kube_api.selectors import Test

KubernetesObject = dict[str, Any]

BOOKMARK_EVERY_S = 60.0
_LONG_S = 3600.0


class Wanted(NamedTuple):
    """What a watch is to show."""

    resource: str
    namespace: str | None
    test: Test

    def shows(self, item: KubernetesObject) -> bool:
        here = self.namespace in (None, item["metadata"].get("namespace"))
        return here and self.test(item)


class Watching:
    """What all watches share: the history, the faults, and how often a bookmark comes."""

    def __init__(self, objects: Objects, faults: Faults) -> None:
        self.bookmark_every_s = BOOKMARK_EVERY_S
        self.stopped = False
        self._objects = objects
        self._faults = faults
        self._expire: list[str] = []

    def expire_next(self, *, in_stream: bool = False, times: int = 1) -> None:
        """Answer the next watches that go on from a version with 410, by status or as an event."""
        self._expire += ["event" if in_stream else "status"] * times

    def open(self, wanted: Wanted, query: Mapping[str, str]) -> Iterator[KubernetesObject | None]:
        """Return the events of a watch. Raises RefusedError where the answer is a Status.

        None stands for "nothing yet": the caller looks whether its client is still there.
        """
        version = query.get("resourceVersion", "")
        first: list[KubernetesObject] = []
        with self._objects.changed:
            epoch = self._faults.stream_epoch
            if version in ("", "0"):
                items = self._objects.of(wanted.resource, wanted.namespace)
                first = [_event("ADDED", item) for item in items if wanted.shows(item)]
                return self._stream(wanted, query, first, self._objects.version, epoch)
            number = self._number(version)
            planned = self._expire.pop(0) if self._expire else ""
            if planned == "event":
                gone = expired(version, self._objects.version).status
                return iter([_event("ERROR", gone)])
            if planned or not self._objects.knows(number):
                raise expired(version, self._objects.version)
        return self._stream(wanted, query, first, number, epoch)

    def _number(self, version: str) -> int:
        if not version.isdigit():
            raise RefusedError(400, f'invalid resource version "{version}"')
        if int(version) > self._objects.version:
            told = f"Timeout: Too large resource version: {version}, current: "
            raise RefusedError(504, f"{told}{self._objects.version}", retry_after_s=1)
        return int(version)

    def _stream(
        self,
        wanted: Wanted,
        query: Mapping[str, str],
        first: list[KubernetesObject],
        version: int,
        epoch: int,
    ) -> Iterator[KubernetesObject | None]:
        yield from first
        now_s = time.monotonic()
        asked_s = float(query.get("timeoutSeconds") or _LONG_S)
        end_s = now_s + min(asked_s, self._faults.stream_life_s or asked_s)
        bookmarks = query.get("allowWatchBookmarks", "").lower() in ("true", "1")
        bookmark_s = now_s + self.bookmark_every_s
        while True:
            with self._objects.changed:
                changes = self._next(wanted, version, epoch, min(end_s, bookmark_s))
                compacted = not self._objects.knows(version)
                version = self._objects.version
            if compacted:
                yield _event("ERROR", expired(str(version), version).status)
                return
            yield from self._shown(wanted, changes)
            now_s = time.monotonic()
            if bookmarks and now_s >= min(bookmark_s, end_s):
                yield _bookmark(wanted.resource, version)
                bookmark_s = now_s + self.bookmark_every_s
            if now_s >= end_s:
                return
            yield None

    def _next(self, wanted: Wanted, version: int, epoch: int, until_s: float) -> list[Change]:
        """Wait for changes, with the lock held. Raises DroppedError for a stream that is cut."""
        while True:
            if self.stopped or epoch != self._faults.stream_epoch:
                raise DroppedError
            stalled = self._faults.is_stalled
            changes = self._objects.since(version, wanted.resource)
            changes = [change for change in changes if wanted.shows(change.object)]
            left_s = until_s - time.monotonic()
            old = not self._objects.knows(version)
            if not stalled and (changes or left_s <= 0 or old):
                return changes
            self._objects.changed.wait(None if stalled else left_s)

    def _shown(self, wanted: Wanted, changes: list[Change]) -> Iterator[KubernetesObject]:
        del wanted
        for change in changes:
            event = _event(change.kind, change.object)
            yield event
            if self._faults.repeats_events:
                yield event
            if self._faults.repeats_stale_events and change.kind == "MODIFIED" and change.before:
                yield _event("MODIFIED", change.before)


def _event(kind: str, item: KubernetesObject) -> KubernetesObject:
    return {"type": kind, "object": item}


def _bookmark(resource: str, version: int) -> KubernetesObject:
    _, api_version, kind = KINDS[resource]
    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
    item = {"kind": kind, "apiVersion": api_version, "metadata": metadata, "spec": {}, "status": {}}
    return _event("BOOKMARK", item)

"""What is known of the objects of one resource: the latest state of each, and what has vanished.

It stands apart from the watch, which brings the news, and from the adapter, which reads: here is
decided what news counts. A list is the truth; a stream follows its list in order; an answer to a
single call counts unless something newer came while it was under way. A resourceVersion is compared
for equality and nothing else: what was replaced once is known by its version when it comes again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from s3runner.cluster.job_rules import finished_condition, is_terminal
from s3runner.cluster.protocol import JobObject

_REMEMBERED = 10_000
_PAST = 16


class Changes:
    """How often what is known of each Job has changed, and the condition that says when.

    Whoever reads or writes holds `condition`.
    """

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self._count = 0
        self._of: dict[str, int] = {}

    def note(self, job_name: str) -> None:
        """Count a change, and wake who waits."""
        self._count += 1
        self._of.pop(job_name, None)
        self._of[job_name] = self._count
        trim(self._of, _REMEMBERED)
        self.condition.notify_all()

    def of(self, job_name: str) -> int:
        """Return a number that differs after each change."""
        return self._of.get(job_name, 0)


@dataclass
class Mirror:
    """The objects of one resource that are ours, by the Job that each belongs to.

    `changes` is shared with the mirror of the other resource, and so is its lock, which every
    method takes itself. `job_of` gives the name of an object's Job, None for one that has none.
    """

    changes: Changes
    job_of: Callable[[JobObject], str | None]
    remembered: int
    """Of how many Jobs the vanished objects are kept."""
    is_synced: bool = False
    _objects: dict[str, JobObject] = field(default_factory=dict)
    _of_job: dict[str, dict[str, None]] = field(default_factory=dict)
    _vanished: dict[str, dict[str, JobObject]] = field(default_factory=dict)
    _deleted: dict[str, None] = field(default_factory=dict)
    """UIDs that the stream said are deleted: what it repeats of them later is no news."""
    _ahead: dict[str, str] = field(default_factory=dict)
    """UID -> the version that an answer showed and the stream has yet to reach."""
    _past: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """UID -> the last versions that were replaced by another."""
    _touched: dict[str, int] = field(default_factory=dict)
    _clock: int = 0
    _replaced_at: int = 0

    def all(self) -> list[JobObject]:
        """Return every object that is there."""
        with self.changes.condition:
            return list(self._objects.values())

    def of_job(self, name: str) -> list[JobObject]:
        """Return a Job's objects, in the order in which they became known."""
        with self.changes.condition:
            return [self._objects[uid] for uid in self._of_job.get(name, ())]

    def vanished_of_job(self, name: str) -> list[JobObject]:
        """Return what a Job had and has no more, each as it was last seen."""
        with self.changes.condition:
            return list(self._vanished.get(name, {}).values())

    def mark(self) -> int:
        """Return the moment before a call, for `learn`."""
        with self.changes.condition:
            return self._clock

    def replace(self, objects: Iterable[JobObject]) -> None:
        """Take over a whole list: what is not in it is not there."""
        with self.changes.condition:
            self._replaced_at = self._tick()
            self._ahead.clear()
            self._deleted.clear()
            self._past.clear()
            found = {_uid(item): item for item in objects}
            for uid in [uid for uid in self._objects if uid not in found]:
                self._drop(uid, self._objects[uid])
            for item in found.values():
                self._put(item)
            self.is_synced = True
            self.changes.condition.notify_all()

    def apply(self, kind: str, item: JobObject) -> None:
        """Take over an event of the stream: ADDED, MODIFIED or DELETED."""
        with self.changes.condition:
            uid = _uid(item)
            self._touch(uid)
            if kind == "DELETED":
                self._deleted[uid] = None
                trim(self._deleted, _REMEMBERED)
                self._drop(uid, item)
                return
            if uid in self._deleted or _version(item) in self._past.get(uid, ()):
                return
            held = self._objects.get(uid)
            if held is None or self._is_news(held, item):
                self._ahead.pop(uid, None)
                self._put(item)

    def learn(self, items: Collection[JobObject], since: int) -> None:
        """Take over the answer to a call that began at `mark()` = `since`.

        What has changed since then stays: the answer may be older than that.
        """
        with self.changes.condition:
            if self._replaced_at > since:
                return
            for item in items:
                uid = _uid(item)
                held = self._objects.get(uid)
                if self._touched.get(uid, 0) > since or uid in self._deleted:
                    continue
                if held is None or _version(held) != _version(item):
                    self._put(item)
                    self._touch(uid)
                    self._ahead[uid] = _version(item)

    def _is_news(self, held: JobObject, item: JobObject) -> bool:
        """Tell whether an event takes what is known further. An end is news wherever it stands."""
        if _is_over(item) and not _is_over(held):
            return True
        is_behind = self._ahead.get(_uid(item), _version(item)) != _version(item)
        return not is_behind and not _goes_back(held, item)

    def _put(self, item: JobObject) -> None:
        uid, name = _uid(item), self.job_of(item)
        held = self._objects.get(uid)
        if name is None or (held is not None and _version(held) == _version(item)):
            return
        if held is not None:
            self._past[uid] = (*self._past.get(uid, ()), _version(held))[-_PAST:]
        self._objects[uid] = item
        self._of_job.setdefault(name, {})[uid] = None
        self._vanished.get(name, {}).pop(uid, None)
        self.changes.note(name)

    def _drop(self, uid: str, last: JobObject) -> None:
        self._ahead.pop(uid, None)
        self._past.pop(uid, None)
        held = self._objects.pop(uid, None)
        name = self.job_of(held if held is not None else last)
        if held is None or name is None:
            return
        siblings = self._of_job[name]
        del siblings[uid]
        if not siblings:
            del self._of_job[name]
        self._vanished.setdefault(name, {})[uid] = held if _goes_back(held, last) else last
        trim(self._vanished, self.remembered)
        self.changes.note(name)

    def _touch(self, uid: str) -> None:
        self._touched.pop(uid, None)
        self._touched[uid] = self._tick()
        trim(self._touched, _REMEMBERED)

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def trim(remembered: dict[str, Any], most: int) -> None:
    """Forget what was put first."""
    while len(remembered) > most:
        del remembered[next(iter(remembered))]


def _goes_back(held: JobObject, news: JobObject) -> bool:
    """Tell news that can only be old: an end is for ever, and so is being deleted."""
    if _is_over(held) and not _is_over(news):
        return True
    return _is_leaving(held) and not _is_leaving(news)


def _is_over(item: JobObject) -> bool:
    if "phase" in (item.get("status") or {}):
        return is_terminal(item)
    return finished_condition(item) is not None


def _is_leaving(item: JobObject) -> bool:
    return bool(item["metadata"].get("deletionTimestamp"))


def _uid(item: JobObject) -> str:
    return str(item["metadata"]["uid"])


def _version(item: JobObject) -> str:
    return str(item["metadata"].get("resourceVersion", ""))

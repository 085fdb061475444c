"""One LIST and one WATCH for all objects of a resource, for as long as a head lives.

A thread of its own keeps a mirror up to date and never gives up: Jobs go on while the API is away,
and the head catches up. What the user should hear of that is told once an outage.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from s3runner.cluster.kubernetes.api_errors import Answer, ExpiredError, error_of
from s3runner.cluster.kubernetes.calls import OURS, PAGE, Call, Resource
from s3runner.cluster.kubernetes.mirror import Mirror
from s3runner.cluster.kubernetes.transport import Connection, Stream
from s3runner.errors import ClusterUnavailableError, S3RunnerError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """The times of a watch, in seconds.

    `silence_s`: a stream without a byte for so long is replaced; a server sends a bookmark each
    59 to 62 s. `life_s`: the server is asked to end a stream after it, less a random tenth, so that
    heads that began together come apart. A stream that lived less than `short_s` counts as a
    failure: without that a server that closes at once would be asked without end. `told_s`: how
    long an outage may last before the user hears of it.
    """

    silence_s: float = 75.0
    life_s: float = 290.0
    short_s: float = 1.0
    first_pause_s: float = 0.2
    longest_pause_s: float = 30.0
    told_s: float = 10.0
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    def pause_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        pause = min(self.first_pause_s * 2.0 ** min(failures - 1, 20), self.longest_pause_s)
        return pause * (0.5 + self.jitter() / 2)


@dataclass
class Health:
    """Whether the API answers, as everyone who asks it finds. Safe for concurrent use."""

    rhythm: Rhythm
    notify: Callable[[str], None] = _log.warning
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _failing: dict[str, tuple[float, S3RunnerError]] = field(default_factory=dict)
    _told: bool = False

    def failed(self, who: str, error: S3RunnerError) -> None:
        """Note a failure, and tell the user of an outage that lasts."""
        now_s = self.rhythm.clock()
        with self._lock:
            since_s, _ = self._failing.get(who, (now_s, error))
            self._failing[who] = (since_s, error)
            if self._told or now_s - since_s < self.rhythm.told_s:
                return
            self._told = True
        self.notify(
            f"the cluster's API has not answered for {now_s - since_s:.0f} s; "
            f"jobs go on, and so do the tries: {error}"
        )

    def answered(self, who: str) -> None:
        """Note that all is well; the last one to say so ends the outage."""
        with self._lock:
            self._failing.pop(who, None)
            if self._failing or not self._told:
                return
            self._told = False
        self.notify("the cluster's API answers again")

    def failure(self, who: str) -> tuple[float, S3RunnerError | None]:
        """Return for how many seconds it has not worked, and the last error; None if it works."""
        with self._lock:
            since_s, error = self._failing.get(who, (0.0, None))
        return (0.0, None) if error is None else (self.rhythm.clock() - since_s, error)


class Watch:
    """The thread that keeps a mirror of one resource."""

    def __init__(
        self, connection: Connection, resource: Resource, mirror: Mirror, health: Health
    ) -> None:
        self._connection = connection
        self.resource = resource
        self._mirror = mirror
        self._health = health
        self._rhythm = health.rhythm
        self._version: str | None = None
        self._stream: Stream | None = None
        self.has_followed = False
        """Whether the API has ever let it watch."""
        self._stopped = threading.Event()
        # a daemon: the process may end while it waits for news
        self._thread = threading.Thread(
            target=self._run, name=f"watch-{resource.plural}", daemon=True
        )

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread, and wait a moment for it."""
        self._stopped.set()
        stream = self._stream
        if stream is not None:
            stream.stop()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            began_s = self._rhythm.clock()
            error = self._try()
            is_short = self._rhythm.clock() - began_s < self._rhythm.short_s
            failures = failures if is_short else 0
            if is_short or error is not None:
                failures += 1
                self._stopped.wait(self._rhythm.pause_s(failures))

    def _try(self) -> S3RunnerError | None:
        """Follow until a stream ends; return the error if that is what ended it."""
        try:
            self._follow()
        except ExpiredError:
            self._version = None
            return None
        except S3RunnerError as found:
            error = found
        except Exception as found:  # noqa: BLE001 # a thread that died would look like silence
            self._version = None
            error = ClusterUnavailableError(f"an answer that makes no sense: {found!r}")
        else:
            return None
        if not self._stopped.is_set():
            self._health.failed(self.resource.plural, error)
            with self._mirror.changes.condition:
                self._mirror.changes.condition.notify_all()
        return error

    def _follow(self) -> None:
        """List if there is no point to go on from, then follow one stream to its end."""
        if self._version is None:
            self._version = self._list()
            self._health.answered(self.resource.plural)
        rhythm = self._rhythm
        query = {
            "watch": "true",
            "labelSelector": OURS,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(rhythm.life_s * (1 - rhythm.jitter() / 10)))),
        }
        call = Call("watch", self.resource)
        self._stream = self._connection.stream(call, query, rhythm.silence_s)
        self.has_followed = True
        self._health.answered(self.resource.plural)
        if self._stopped.is_set():  # who stops us may have missed this stream
            self._stream.stop()
        for line in lines(self._stream.chunks()):
            self._take(json.loads(line))

    def _list(self) -> str:
        """Put everything there is into the mirror, and return the point to watch from."""
        found, version = list_all(self._connection, self.resource, OURS)
        self._mirror.replace(found)
        return version

    def _take(self, event: dict[str, Any]) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            answer = Answer(int(item.get("code") or 500), {}, json.dumps(item).encode())
            raise error_of(Call("watch", self.resource), self._connection.namespace, answer)
        if kind != "BOOKMARK":
            self._mirror.apply(kind, item)
        self._version = str(item["metadata"]["resourceVersion"])


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a stream. One that never ended is left out: the stream broke in it."""
    begun: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        begun.append(first)
        for line in others:
            whole = b"".join(begun)
            begun = [line]
            if whole.strip():
                yield whole


def list_all(
    connection: Connection, resource: Resource, selector: str
) -> tuple[list[dict[str, Any]], str]:
    """Return what there is, and the version of the list. Raises ExpiredError: then begin anew."""
    found: list[dict[str, Any]] = []
    query = {"labelSelector": selector, "limit": str(PAGE)}
    while True:
        page = connection.ask(Call("list", resource), query).body
        found += page["items"]
        token = page["metadata"].get("continue")
        if not token:
            return found, str(page["metadata"]["resourceVersion"])
        query["continue"] = token

"""The command `s3runner` as a process that kills itself, by a real SIGKILL, at one point.

Usage: mortal.py JOURNAL POINT WORD... A point is a call of the store or the cluster, right before
it is made or right after it was answered, or the moment before a name appears or vanishes on the
disk or a process is started. Each that is reached is written to JOURNAL as a line, `<what>#<how
often>`; an empty POINT lets the process live.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from s3runner.cluster.local.adapter import LocalCluster
from s3runner.cluster.outcome import is_over
from s3runner.cluster.protocol import Observation
from s3runner.store.obstore_store import ObstoreStore

STORE = ("head", "list", "list_folders", "get", "put", "put_if_absent", "delete")
CLUSTER = ("caveats", "submit", "wait", "delete")
ON_DISK = ("os.rename", "os.mkdir", "os.remove", "os.link", "os.symlink", "os.posix_spawn")
NEW_EACH_TIME = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}(-g\d+)?|[0-9a-f]{16,}")


class Life:
    """Counts the points that are reached, and ends at the fatal one."""

    def __init__(self, journal: int, fatal: str) -> None:
        self._journal = journal
        self._fatal = fatal
        self._reached: Counter[str] = Counter()
        self._lock = threading.RLock()

    def reach(self, what: str) -> None:
        """Note that a point is reached; there is no return from the fatal one."""
        with self._lock:
            self._reached[what] += 1
            point = f"{what}#{self._reached[what]}"
            os.write(self._journal, f"{point}\n".encode())
            if point == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: type, name: str) -> None:
        """Make the calls of a method two points each."""
        method: Callable[..., Any] = getattr(owner, name)

        def watched(this: Any, *arguments: Any, **options: Any) -> Any:
            what = f"{owner.__name__}.{name} {_told(arguments)}"
            self.reach(f"before {what}")
            answer = method(this, *arguments, **options)
            if name == "list":
                answer = iter(tuple(answer))
            self.reach(f"after {what}")
            return answer

        setattr(owner, name, watched)

    def watch_observations(self) -> None:
        """Make points of what the cluster tells: of a Job that goes on, or that ended."""
        observe = LocalCluster.observe

        def watched(this: LocalCluster, names: Collection[str]) -> dict[str, Observation]:
            self.reach("before LocalCluster.observe")
            found = observe(this, names)
            over = all(map(is_over, found.values()))
            self.reach(f"after LocalCluster.observe {'ended' if over else 'going on'}")
            return found

        LocalCluster.observe = watched  # type: ignore[assignment,method-assign]

    def watch_disk(self) -> None:
        """Make a point of each moment before something below the working directory changes."""
        here = os.getcwd()

        def look(event: str, arguments: tuple[Any, ...]) -> None:
            if event in ON_DISK:
                # of a rename the second path is the one that people know
                path = os.fsdecode(arguments[event in ("os.rename", "os.link", "os.symlink")])
                if event == "os.posix_spawn" or not path.startswith("/") or path.startswith(here):
                    self.reach(f"before {event} {_last_part(path)}")

        sys.addaudithook(look)


def _told(arguments: tuple[Any, ...]) -> str:
    """Name a call by its key or Job, without what is different in each run."""
    if arguments and isinstance(arguments[0], str):
        return _last_part(arguments[0])
    return ""


def _last_part(path: str) -> str:
    return NEW_EACH_TIME.sub("*", "/".join(path.rstrip("/").split("/")[-2:]))


def main() -> None:
    """Run the command line until its end, or its death."""
    journal, fatal, *words = sys.argv[1:]
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    life = Life(descriptor, fatal)
    for name in STORE:
        life.watch(ObstoreStore, name)
    for name in CLUSTER:
        life.watch(LocalCluster, name)
    life.watch_observations()
    life.watch_disk()
    from s3runner.cli import main as command  # noqa: PLC0415  # once all is watched

    sys.argv = ["s3runner", *words]
    command.main()


if __name__ == "__main__":
    main()

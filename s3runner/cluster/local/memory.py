"""A container's memory limit, kept as the kernel would: over it, the container is killed.

Apart from the pod because it is a thread of its own that only ever says one thing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from s3runner.cluster.local.process import ContainerProcess
from s3runner.cluster.local.subreaper import descendants_of

_LOOK_EVERY_S = 0.2
"""What grows faster than this may go over the limit for a moment: there is no cgroup here."""


def memory_limit(container: dict[str, Any]) -> int | None:
    """Return a container's limit in bytes, None if it has none."""
    limit = container.get("resources", {}).get("limits", {}).get("memory")
    if limit is None:
        return None
    from s3runner.cluster.quantity import whole  # noqa: PLC0415  # most pods start without it

    return whole(limit)


def watch_memory(
    process: ContainerProcess, limit: int, ended: threading.Event, over: Callable[[], None]
) -> None:
    """Call `over` once, from another thread, when a container's processes exceed its limit.

    Counted is their PSS, which shares out what they have in common; it ends with `ended`.
    """

    def look() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            if _resident_bytes(process.launcher_pid) > limit:
                over()
                return

    threading.Thread(target=look, daemon=True).start()


def _resident_bytes(pid: int) -> int:
    """Return the PSS of a process and all below it."""
    return sum(_pss(one) for one in (pid, *descendants_of(pid)))


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
        for line in rollup:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0

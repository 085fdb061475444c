"""A pod's disk limits, kept as a kubelet keeps them: it looks now and then, and evicts the pod.

Apart from the pod because it is a thread of its own that only ever says one thing.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_LOOK_EVERY_S = 1.0
_PAUSE_SHARE = 19
"""A walk that took long is followed by this many times as long a pause: 5 % of the time."""
_BLOCK = 512
"""What stat counts in, whatever the file system's own blocks are."""


class Limit(NamedTuple):
    """A limit in bytes, and as a message shows it."""

    size: int
    text: str


class DiskLimits(NamedTuple):
    """What a pod may use: `volumes` each by themselves, `pod` all of it that lies on disk.

    `on_disk` names the volumes that count for the pod. A container's own limit, which Kubernetes
    compares with its logs alone, is not looked at: here logs end at a mebibyte.
    """

    volumes: Mapping[str, Limit]
    pod: Limit | None
    on_disk: frozenset[str]


def disk_limits(pod_spec: dict[str, Any]) -> DiskLimits | None:
    """Return a pod's limits, None if it has none."""
    directories = {volume["name"]: volume["emptyDir"] for volume in pod_spec.get("volumes", [])}
    sized = {name: made["sizeLimit"] for name, made in directories.items() if "sizeLimit" in made}
    pod = _pod_limit(pod_spec)
    if not sized and pod is None:
        return None
    from s3runner.cluster.quantity import whole  # noqa: PLC0415  # most pods start without it

    limits = {name: Limit(whole(text), text) for name, text in sized.items()}
    return DiskLimits(
        {name: limit for name, limit in limits.items() if limit.size},
        pod,
        frozenset(name for name, made in directories.items() if made.get("medium") != "Memory"),
    )


def _pod_limit(pod_spec: dict[str, Any]) -> Limit | None:
    """Return the containers' limits together, or the largest of an init container."""
    together = _sum_of(_storage_limits(pod_spec["containers"]))
    alone = [_sum_of([text]) for text in _storage_limits(pod_spec.get("initContainers", []))]
    found = [limit for limit in (together, *alone) if limit is not None]
    return max(found, default=None)


def _storage_limits(containers: Sequence[dict[str, Any]]) -> list[str]:
    limits = (container.get("resources", {}).get("limits", {}) for container in containers)
    return [each["ephemeral-storage"] for each in limits if "ephemeral-storage" in each]


def _sum_of(texts: Sequence[str]) -> Limit | None:
    if not texts:
        return None
    from s3runner.cluster.quantity import whole  # noqa: PLC0415  # most pods start without it

    size = sum(map(whole, texts))
    return Limit(size, texts[0] if len(texts) == 1 else str(size))


def exceeded(limits: DiskLimits, volumes: Mapping[str, int], logs: int) -> str:
    """Return which limit is exceeded, in a kubelet's words; nothing if none is."""
    for name, limit in limits.volumes.items():
        if volumes[name] > limit.size:
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit.text}". '
    total = logs + sum(volumes[name] for name in limits.on_disk)
    if limits.pod is not None and total > limits.pod.size:
        return (
            "Pod ephemeral local storage usage exceeds the total limit of containers "
            f"{limits.pod.text}. "
        )
    return ""


def watch_disk(
    pod_spec: dict[str, Any],
    places: tuple[str, str],
    ended: threading.Event,
    over: Callable[[str], None],
) -> None:
    """Call `over` once, from another thread, with what a pod exceeds; until `ended`.

    `places` are the directory that holds its volumes, and that of its logs.
    """
    limits = disk_limits(pod_spec)
    if limits is None:
        return
    home, logs = places
    names = [volume["name"] for volume in pod_spec.get("volumes", [])]

    def look() -> None:
        took_s = 0.0
        while not ended.wait(pause_after(took_s)):
            began_s = time.monotonic()
            volumes = {name: used_bytes(f"{home}/{name}", ended) for name in names}
            message = exceeded(limits, volumes, used_bytes(logs, ended))
            if message and not ended.is_set():
                over(message)
                return
            took_s = time.monotonic() - began_s

    threading.Thread(target=look, daemon=True).start()


def pause_after(took_s: float) -> float:
    """Return how long to wait after a walk, in seconds."""
    return max(_LOOK_EVERY_S, took_s * _PAUSE_SHARE)


def used_bytes(root: str, ended: threading.Event) -> int:
    """Return what a tree occupies, as `du` counts: blocks, a file with many names once.

    What vanishes meanwhile, or cannot be looked at, counts as nothing. It stops at `ended`.
    """
    total, pending, seen = 0, [root], set()
    while pending and not ended.is_set():
        for entry, status in _members(pending.pop()):
            if stat.S_ISDIR(status.st_mode):
                pending.append(entry.path)
            elif status.st_nlink > 1:
                if status.st_ino in seen:
                    continue
                seen.add(status.st_ino)
            total += status.st_blocks * _BLOCK
    return total


def _members(directory: str) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                yield entry, entry.stat(follow_symlinks=False)

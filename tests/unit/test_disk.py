"""What a pod may use of the disk, what it does use, and how often that is looked at."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from s3runner.cluster.local.disk import DiskLimits, Limit, disk_limits, exceeded, pause_after
from s3runner.cluster.local.disk import used_bytes as measure

MIB = 1024**2


def used_bytes(path: Path) -> int:
    return measure(str(path), threading.Event())


def container(limit: str | None = None) -> dict[str, Any]:
    return {"resources": {"limits": {"ephemeral-storage": limit}}} if limit else {}


def pod_spec(
    *limits: str | None, init: tuple[str | None, ...] = (), **volumes: dict[str, str]
) -> dict[str, Any]:
    return {
        "containers": [container(limit) for limit in limits],
        "initContainers": [container(limit) for limit in init],
        "volumes": [{"name": name, "emptyDir": made} for name, made in volumes.items()],
    }


def test_a_pod_without_limits_is_not_watched() -> None:
    assert disk_limits(pod_spec(None, None, init=(None,), work={})) is None


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(pod_spec("20Mi", None), Limit(20 * MIB, "20Mi"), id="one container's"),
        pytest.param(pod_spec("1Mi", "2Mi"), Limit(3 * MIB, str(3 * MIB)), id="their sum"),
        pytest.param(pod_spec("1Mi", init=("4Mi", "2Mi")), Limit(4 * MIB, "4Mi"), id="an init's"),
        pytest.param(pod_spec(None, work={"sizeLimit": "1Mi"}), None, id="none but a volume's"),
    ],
)
def test_the_limit_of_a_pod_is_what_kubernetes_makes_of_its_containers(
    spec: dict[str, Any], expected: Limit | None
) -> None:
    found = disk_limits(spec)
    assert found is not None
    assert found.pod == expected


def test_a_size_limit_of_zero_is_none_and_memory_is_no_disk() -> None:
    spec = pod_spec("1Mi", a={"sizeLimit": "0"}, b={"sizeLimit": "2Mi", "medium": "Memory"})
    limit = Limit(2 * MIB, "2Mi")
    assert disk_limits(spec) == DiskLimits({"b": limit}, Limit(MIB, "1Mi"), frozenset({"a"}))


@pytest.mark.parametrize(
    ("volumes", "logs", "message"),
    [
        pytest.param({"a": 2, "m": 10}, 2, "", id="at the limits"),
        pytest.param(
            {"a": 3, "m": 0}, 0, 'Usage of EmptyDir volume "a" exceeds the limit "2". ', id="volume"
        ),
        pytest.param(
            {"a": 2, "m": 0},
            3,
            "Pod ephemeral local storage usage exceeds the total limit of containers 4. ",
            id="with logs",
        ),
    ],
)
def test_what_exceeds_a_limit_is_told_in_a_kubelets_words(
    volumes: dict[str, int], logs: int, message: str
) -> None:
    limits = DiskLimits({"a": Limit(2, "2")}, Limit(4, "4"), frozenset({"a"}))
    assert exceeded(limits, volumes, logs) == message


def test_a_tree_is_measured_by_its_blocks(tmp_path: Path) -> None:
    """A hole takes no room, a second name no more of it, and a link leads nowhere."""
    outside = tmp_path / "outside"
    outside.write_bytes(bytes(4 * MIB))
    tree = tmp_path / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    empty = used_bytes(tree)
    (tree / "deep" / "er" / "file").write_bytes(os.urandom(MIB))
    os.link(tree / "deep" / "er" / "file", tree / "same")
    os.symlink(outside, tree / "link")
    os.symlink(tmp_path, tree / "deep" / "up")
    with (tree / "hole").open("wb") as file:
        file.truncate(64 * MIB)

    assert MIB <= used_bytes(tree) - empty < MIB + MIB // 4


def test_what_is_not_there_takes_no_room(tmp_path: Path) -> None:
    assert used_bytes(tmp_path / "gone") == 0


def test_measuring_stops_when_the_pod_has_ended(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(MIB))
    ended = threading.Event()
    ended.set()
    assert measure(str(tmp_path), ended) == 0


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.0, 1.0), (0.01, 1.0), (1.0, 19.0)])
def test_looking_takes_a_twentieth_of_the_time_at_most(took_s: float, pause_s: float) -> None:
    assert pause_after(took_s) == pause_s
    assert took_s / (took_s + pause_s) <= 0.05

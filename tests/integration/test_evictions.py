"""Pods evicted at every point of their way: each job still ends once, with its own bytes.

Every seed has its own point and its own grace; ten times as many run every night.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import Heard
from hostile import snapshot
from kube_api.cluster import FakeKube
from kube_api.sites import FAKE, Site, open_site

from s3runner.cluster.protocol import JobObject
from s3runner.model import Input, Job, Outcome, Output
from s3runner.runner.runner import Runner

AT_ONCE = 4
TOOL = "echo begun; cp -a in out; sleep 0.3; echo $S3RUNNER_JOB_ID >out/id"


def state_of(pod: JobObject, container: str) -> dict[str, Any]:
    status = pod["status"]
    for kind in ("initContainerStatuses", "containerStatuses"):
        for one in status.get(kind) or ():
            if one["name"] == container:
                state: dict[str, Any] = one["state"]
                return state
    return {}


POINTS: dict[str, Callable[[JobObject], bool]] = {
    "made": lambda pod: bool(pod),
    "bound": lambda pod: "nodeName" in pod["spec"],
    "fetching": lambda pod: "running" in state_of(pod, "fetch"),
    "fetched": lambda pod: "terminated" in state_of(pod, "fetch"),
    "running": lambda pod: "running" in state_of(pod, "tool"),
    "staging out": lambda pod: "terminated" in state_of(pod, "tool"),
    "ended": lambda pod: "terminated" in state_of(pod, "stager"),
}


def evict_at(kube: FakeKube, job: str, point: str, grace_s: int | None, late_s: float) -> None:
    """Evict the job's first pod a moment after it got to a point."""

    def there() -> JobObject | None:
        pods: list[JobObject] = kube.pods(job)
        return next((pod for pod in pods if POINTS[point](pod)), None)

    pod = kube.await_state(there)
    with kube.objects.changed:  # changes of others may pass meanwhile
        kube.objects.changed.wait_for(lambda: False, late_s)
    kube.evict(pod, grace_s)


def run_one(site: Site, runner: Runner, directory: Path, seed: int) -> list[str]:
    """Run a job, evict its first pod, and return what is wrong with its end."""
    kube, chance = site.kube, random.Random(seed)  # noqa: S311  # a seed, no secret
    assert kube is not None
    point = [*POINTS][seed % len(POINTS)]
    grace_s, late_s = chance.choice([0, 1, None]), chance.uniform(0, 0.3)
    tree = directory / f"in{seed}"
    tree.mkdir()
    for number in range(5):
        (tree / f"{number}").write_bytes(chance.randbytes(chance.randrange(40_000)))
    inputs = (Input("in", str(tree)),)
    job = Job(f"job{seed}", TOOL, "tool:1", inputs=inputs, outputs=(Output("out"),))
    job_id = runner.submit(job, Heard())
    with ThreadPoolExecutor(1) as pool:
        pool.submit(evict_at, kube, f"{job_id}-g1", point, grace_s, late_s).result(60)
        end = runner.wait(job_id, Heard())
        runner.sync(job_id, directory / f"out{seed}", Heard())
    out = directory / f"out{seed}" / "out"
    told = f"seed {seed}, {point}, grace {grace_s}: "
    wrong = []
    if (end.outcome, end.generation) != (Outcome.SUCCEEDED, 1):
        wrong.append(f"{told}{end}")
    elif (out / "id").read_text() != f"{job_id}\n":
        wrong.append(f"{told}another job's output")
    else:
        (out / "id").unlink()
        os.utime(out, ns=(0, tree.stat().st_mtime_ns))
        if snapshot(out) != snapshot(tree):
            wrong.append(f"{told}another tree")
    return wrong


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("evictions", [50, pytest.param(500, marks=pytest.mark.nightly)])
def test_no_job_is_lost_doubled_or_falsely_done_wherever_its_pod_is_evicted(
    tmp_path: Path, request: pytest.FixtureRequest, evictions: int
) -> None:
    def server() -> Any:
        return request.getfixturevalue("moto_server")

    with open_site(FAKE, tmp_path, server) as site, ThreadPoolExecutor(AT_ONCE) as pool:
        heads = [site.runner() for _ in range(AT_ONCE)]
        found = pool.map(
            lambda seed: run_one(site, heads[seed % AT_ONCE], tmp_path, seed), range(evictions)
        )
        wrong = [line for lines in found for line in lines]
        assert site.kube is not None
        made = site.kube.controller.pods_created

    assert wrong == []
    assert made >= evictions * 4 // 3, "hardly a pod was evicted before its end"

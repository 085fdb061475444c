"""The Role in conf/k8s is what the head uses: not a verb less, and not one more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import samples
import yaml
from kube_api import FakeKube
from kube_api.cluster import NAMESPACE, WORKER_IMAGE

from s3runner.cluster.job_object import job_object
from s3runner.cluster.kubernetes.adapter import KubernetesCluster
from s3runner.cluster.kubernetes.transport import Connection, Place
from s3runner.cluster.kubernetes.watch import Rhythm
from s3runner.model import Destination
from s3runner.runner.decide import first_generation

ROLE = Path(__file__).parents[2] / "conf" / "k8s" / "role.yaml"

Right = tuple[str, str, str]


class Clock:
    """It stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[FakeKube]:
    with FakeKube(tmp_path) as running:
        yield running


def rules() -> list[dict[str, Any]]:
    (role,) = (d for d in yaml.safe_load_all(ROLE.read_text()) if d["kind"] == "Role")
    found: list[dict[str, Any]] = role["rules"]
    return found


def rights(rules: list[dict[str, Any]]) -> set[Right]:
    """Return the (verb, group, resource) that rules allow."""
    return {
        (verb, group, resource)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def sample_job(command: str = "true") -> dict[str, Any]:
    spec = samples.spec(
        command=command, roots=(), destination=Destination(worker_image=WORKER_IMAGE)
    )
    generation = first_generation(spec, "sha256:" + "0" * 64, f"{spec.job_id}-g1")
    return job_object(spec, generation, samples.STORE)


def use_all_of_it(kube: FakeKube, clock: Clock) -> None:
    """Do all that a head does with a cluster: rehearse, make, adopt, look, ask why, delete."""
    cluster = KubernetesCluster(
        Connection(Place(kubeconfig=str(kube.kubeconfig()), namespace=NAMESPACE)),
        rhythm=Rhythm(clock=clock),
    )
    job = sample_job()
    name = job["metadata"]["name"]
    kube.refuse_pods("exceeded quota: jobs")
    try:
        cluster.caveats(job)
        uid = cluster.submit(job)
        assert cluster.submit(job) == uid
        assert cluster.observe([name])[name].job is not None
        assert cluster.observe(["another"])["another"].job is None
        clock.now_s = 3600
        cluster.observe([name])
        assert set(cluster.active("default")) == {name}
        cluster.wait([name], 0)
        kube.await_state(lambda: kube.rbac.count("watch") >= 2)
        cluster.delete(name)
    finally:
        cluster.close()


def test_the_role_allows_what_the_head_does_and_nothing_else(kube: FakeKube) -> None:
    kube.rbac.enforce(rules())

    use_all_of_it(kube, Clock())

    assert kube.rbac.used == rights(rules())

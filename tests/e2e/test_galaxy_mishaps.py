"""What goes wrong under a running job: its pod is taken away, or its store."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from galaxy_jobs import Held, Jobs, external_id
from galaxy_server import GalaxyServer, GalaxyUser, hda, pasted
from gate import Gate, Requests
from kube_api.cluster import FakeKube
from kube_api.sites import Site
from waiting import wait_until

LONG_S = 900


@pytest.fixture
def kube(site: Site) -> FakeKube:
    """The tests' own cluster: its pods can be made to end in ways of their own."""
    if site.kube is None:
        pytest.skip("a real cluster's pods do not wait for a word of ours")
    return site.kube


def vanish(kube: FakeKube, pod: Any) -> None:
    kube.vanish(pod)


def evict(kube: FakeKube, pod: Any) -> None:
    kube.evict(pod, grace_s=1)


def lose_node(kube: FakeKube, pod: Any) -> None:
    kube.lose_node(pod)
    kube.collect(pod)


def test_a_job_whose_pod_is_lost_runs_again_and_galaxy_knows_nothing_of_it(
    galaxy: GalaxyServer, user: GalaxyUser, kube: FakeKube
) -> None:
    """The store has what another pod needs, so it costs the job no try of Galaxy's."""
    jobs = Jobs(kube_access(galaxy))
    mishaps = (evict, vanish, lose_node)
    held = {mishap: Held(galaxy, user, "k_hold") for mishap in mishaps}
    for mishap, each in held.items():
        each.await_pod()
        (pod,) = kube.pods(f"{each.job_id}-g1")
        mishap(kube, pod)

    for each in held.values():
        each.release(each.await_pod())

    ends = {mishap.__name__: each.end()["state"] for mishap, each in held.items()}
    assert ends == {"evict": "ok", "vanish": "ok", "lose_node": "ok"}
    assert [each.text() for each in held.values()] == ["held\n"] * 3
    assert [jobs.outcome(each.job_id) for each in held.values()] == ["succeeded"] * 3
    assert [jobs.made(each.job_id) for each in held.values()] == [1] * 3


def test_a_job_with_no_eviction_left_is_resubmitted_as_its_destination_says(
    galaxy: GalaxyServer, user: GalaxyUser, kube: FakeKube
) -> None:
    """Galaxy has no word for a lost node: `unknown_error` is what a condition can ask for."""
    jobs = Jobs(kube_access(galaxy))
    held = Held(galaxy, user, "k_fragile")
    held.await_pod()
    first = held.job_id
    (pod,) = kube.pods(f"{first}-g1")

    kube.evict(pod, grace_s=1)

    held.release(held.await_pod())
    assert (held.end()["state"], held.text()) == ("ok", "held\n")
    assert held.job_id != first
    assert [jobs.outcome(each) for each in (first, held.job_id)] == ["budgets_spent", "succeeded"]


def test_a_job_whose_supervisor_is_killed_runs_again(
    galaxy: GalaxyServer, user: GalaxyUser
) -> None:
    """What a supervisor of this machine kept is lost with it; the next one goes on."""
    jobs = Jobs(galaxy.access)
    held = Held(galaxy, user)
    held.await_pod()

    os.kill(held.supervisor(), signal.SIGKILL)

    held.release(held.await_pod())
    assert (held.end()["state"], held.text()) == ("ok", "held\n")
    assert (jobs.outcome(held.job_id), jobs.made(held.job_id)) == ("succeeded", 1)


def test_an_outage_of_the_store_ends_no_job(
    galaxy: GalaxyServer, gate: Gate, pod_gate: Gate, user: GalaxyUser
) -> None:
    """One job has results for the store and one inputs, while nobody can reach it."""
    (dataset,) = user.fetch(pasted("b\na\n"))
    held = Held(galaxy, user)
    place = held.await_pod()
    stages_out, stages_in = Requests(f"/jobs/{held.job_id}/commit"), Requests("/blobs/")
    pod_gate.refuse(lambda request: stages_out(request) or True)
    gate.refuse(lambda request: stages_in(request) or True)
    held.release(place)
    begun = user.start("t_plain", input=hda(dataset))
    wait_until(lambda: stages_out.seen.is_set() and stages_in.seen.is_set(), LONG_S)
    pod_gate.open()
    gate.open()

    assert (held.end()["state"], held.text()) == ("ok", "held\n")
    assert user.wait(begun["jobs"][0]["id"])["state"] == "ok"
    assert user.text(begun["outputs"][0]["id"]) == "a\nb\n"
    jobs = Jobs(galaxy.access)
    for job_id in (held.job_id, external_id(galaxy, begun["jobs"][0]["id"])):
        assert (jobs.outcome(job_id), jobs.made(job_id)) == ("succeeded", 1)


def kube_access(galaxy: GalaxyServer) -> Any:
    assert galaxy.site is not None
    return galaxy.site.access

"""Galaxy's jobs in pods that no test can hold: on the tests' own cluster and on a real one.

What a pod does here is only looked at through the cluster's adapter, and only its eviction asked
for; so a tool takes its time and waits for nobody.
"""

from __future__ import annotations

from typing import Any

from galaxy_jobs import Jobs, external_id
from galaxy_server import GalaxyServer, GalaxyUser
from kube_api.sites import Site
from waiting import wait_until

from s3runner.cluster.outcome import newest_pod
from s3runner.cluster.protocol import JobObject

LONG_S = 900
SHORT_S, FAR_S = 45, 600
"""A tool that is there for a look at it, and one that outlasts Galaxy's start."""


class Slow:
    """A run of the tool `slow` on Kubernetes."""

    def __init__(
        self, galaxy: GalaxyServer, user: GalaxyUser, site: Site, seconds: int = SHORT_S
    ) -> None:
        self._user = user
        self._cluster = site.cluster()
        self._made = user.start("k_slow", seconds=seconds)
        self.job = str(self._made["jobs"][0]["id"])
        wait_until(lambda: external_id(galaxy, self.job), LONG_S, every_s=0.5)
        self.job_id = external_id(galaxy, self.job)

    def await_pod(self, other_than: str = "") -> JobObject:
        """Return a pod whose tool runs, and that is not the one with this uid."""
        pods: list[JobObject] = []

        def look() -> bool:
            name = f"{self.job_id}-g1"
            pod = newest_pod(self._cluster.observe([name])[name])
            pods[:] = [pod] if pod and pod["metadata"]["uid"] != other_than else []
            return bool(pods) and _tool_runs(pods[0])

        wait_until(look, LONG_S, every_s=0.3)
        return pods[0]

    def end(self) -> tuple[Any, Any, str]:
        """Return how it ended, its exit code and what it wrote."""
        job = self._user.wait(self.job)
        return job["state"], job["exit_code"], self._user.text(self._made["outputs"][0]["id"])


def _tool_runs(pod: JobObject) -> bool:
    containers = pod["status"].get("containerStatuses") or ()
    return any(each["name"] == "tool" and "running" in each["state"] for each in containers)


def _uid(pod: JobObject) -> str:
    return str(pod["metadata"]["uid"])


def test_a_job_that_is_evicted_runs_again_and_galaxy_knows_nothing_of_it(
    galaxy: GalaxyServer, user: GalaxyUser, site: Site
) -> None:
    """The cluster itself makes the second pod, from the same Job."""
    assert site.evict is not None
    slow = Slow(galaxy, user, site)
    first = slow.await_pod()

    site.evict(first)

    slow.await_pod(_uid(first))
    assert slow.end() == ("ok", 0, "slept\n")
    jobs = Jobs(site.access)
    assert (jobs.outcome(slow.job_id), jobs.made(slow.job_id)) == ("succeeded", 1)


def test_a_killed_galaxy_takes_jobs_of_a_cluster_up_again_and_cancels_one(
    galaxy: GalaxyServer, user: GalaxyUser, site: Site
) -> None:
    """Their pods know nothing of it."""
    ended, cancelled = Slow(galaxy, user, site), Slow(galaxy, user, site, FAR_S)
    pod = cancelled.await_pod()

    galaxy.kill()
    galaxy.start()

    assert _uid(cancelled.await_pod()) == _uid(pod)
    user.cancel(cancelled.job)
    jobs = Jobs(site.access)
    wait_until(lambda: jobs.outcome(cancelled.job_id), LONG_S, every_s=0.5)
    assert ended.end() == ("ok", 0, "slept\n")
    slow = (ended, cancelled)
    assert [jobs.outcome(each.job_id) for each in slow] == ["succeeded", "cancelled"]
    assert [jobs.made(each.job_id) for each in slow] == [1, 1]

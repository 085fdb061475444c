"""A Galaxy that is killed while its jobs run, and jobs that are cancelled."""

from __future__ import annotations

import json

from galaxy_server import GalaxyServer, GalaxyUser
from waiting import wait_until


def jobs_of(galaxy: GalaxyServer) -> set[str]:
    """Return the ids of all jobs in the bucket."""
    prefix = f"{galaxy.access.config.prefix}/jobs/"
    return {item.key[len(prefix) :].split("/")[0] for item in galaxy.access.open().list(prefix)}


def outcome_of(galaxy: GalaxyServer, job_id: str) -> str:
    """Return what a job's commit says, or nothing."""
    directory = f"{galaxy.access.config.prefix}/jobs/{job_id}/"
    key = f"{directory}commit.json"
    store = galaxy.access.open()
    if key not in {item.key for item in store.list(directory)}:
        return ""
    return str(json.loads(store.get(key, b"".join))["outcome"])


def test_a_killed_galaxy_takes_its_jobs_up_again_and_starts_none_twice(
    galaxy: GalaxyServer, user: GalaxyUser
) -> None:
    """One job ends while Galaxy is away; the other still runs, and can be cancelled."""
    before = jobs_of(galaxy)
    short, long = user.start("t_slow", seconds=15), user.start("t_slow", seconds=3000)
    for made in (short, long):
        user.wait(made["jobs"][0]["id"], "running")
    ours = jobs_of(galaxy) - before
    galaxy.kill()

    galaxy.start()

    ended = user.wait(short["jobs"][0]["id"])
    assert ended["state"] == "ok"
    assert user.text(short["outputs"][0]["id"]) == "slept\n"
    assert user.job(long["jobs"][0]["id"])["state"] == "running"
    user.cancel(long["jobs"][0]["id"])
    wait_until(lambda: {outcome_of(galaxy, job) for job in ours} == {"cancelled", "succeeded"})
    assert jobs_of(galaxy) - before == ours

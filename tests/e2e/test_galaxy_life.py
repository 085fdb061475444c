"""A Galaxy that is killed while its jobs are on their way, and jobs that are cancelled."""

from __future__ import annotations

import hashlib
import re

from galaxy_jobs import Held, Jobs, external_id
from galaxy_server import GalaxyServer, GalaxyUser, hda, pasted
from gate import Gate, Requests
from waiting import wait_until

LONG_S = 900
LINE = "a line that is sorted already\n"
LARGE = LINE * 50_000
"""More than goes into a pack: an object of its own, by its digest."""


def digest_of(galaxy_user: GalaxyUser, dataset: str) -> str:
    return hashlib.sha256(galaxy_user.path(dataset).read_bytes()).hexdigest()


def start_again(galaxy: GalaxyServer) -> None:
    """Start Galaxy with the same job configuration in its other form."""
    galaxy.configure(job_config_file=f"{galaxy.directory}/job_conf.yml")
    galaxy.start()
    assert re.findall(r"from file: .*/job_conf\.(\w+)", galaxy.log)[-2:] == ["xml", "yml"]


def cancel(user: GalaxyUser, held: Held, jobs: Jobs) -> None:
    """Delete a job, and wait until it has ended."""
    user.cancel(held.job)
    wait_until(lambda: jobs.outcome(held.job_id), LONG_S)


def check_that_each_ran_once(jobs: Jobs, before: set[str], cancelled: str, all_: set[str]) -> None:
    assert jobs.ids() - before == all_
    expected = dict.fromkeys(all_, "succeeded") | {cancelled: "cancelled"}
    assert {job_id: jobs.outcome(job_id) for job_id in all_} == expected
    assert {job_id: jobs.made(job_id) for job_id in all_} == dict.fromkeys(all_, 1)


def test_a_killed_galaxy_takes_its_jobs_up_again_and_starts_none_twice(
    galaxy: GalaxyServer, gate: Gate, user: GalaxyUser
) -> None:
    """One job stages in, one runs, one is brought back, one is to be cancelled later.

    Galaxy starts again with its job configuration in the other form.
    """
    jobs = Jobs(galaxy.access)
    before = jobs.ids()
    (large,) = user.fetch(pasted(f"first\n{LARGE}"))
    held = [Held(galaxy, user) for _ in range(3)]
    running, returning, cancelled = held
    places = [each.await_pod() for each in held]
    stored = {each.job_id for each in held}
    goes_up = Requests(f"^PUT .*{digest_of(user, large)}")
    comes_back = Requests(f"^GET .*/jobs/{returning.job_id}/attempts/.*(/out/|rest.tar)")
    gate.hold(lambda request: goes_up(request) or comes_back(request))
    returning.release(places[1])
    staging = user.start("t_plain", input=hda(large))
    wait_until(lambda: comes_back.seen.is_set() and goes_up.seen.is_set(), LONG_S)
    never_stored = external_id(galaxy, staging["jobs"][0]["id"])
    galaxy.kill()
    gate.open()
    assert jobs.ids() - before == stored

    start_again(galaxy)

    running.release(places[0])
    user.wait(staging["jobs"][0]["id"])
    ends = [(each.end()["state"], each.text()) for each in (running, returning)]
    assert ends == [("ok", "held\n")] * 2
    assert user.job(cancelled.job)["state"] == "running"
    cancel(user, cancelled, jobs)
    assert user.text(staging["outputs"][0]["id"]).startswith(LINE)
    begun_anew = external_id(galaxy, staging["jobs"][0]["id"])
    assert never_stored not in {begun_anew, *stored}
    check_that_each_ran_once(jobs, before, cancelled.job_id, {begun_anew, *stored})


def test_a_job_that_is_deleted_while_it_stages_in_stops_at_once(
    galaxy: GalaxyServer, gate: Gate, user: GalaxyUser
) -> None:
    """It does not wait for a store that is away, and leaves nothing in the bucket."""
    jobs = Jobs(galaxy.access)
    before = jobs.ids()
    (large,) = user.fetch(pasted(f"second\n{LARGE}"))
    digest = digest_of(user, large)
    goes_up = Requests(f"^PUT .*{digest}")
    gate.refuse(goes_up)
    made = user.start("t_plain", input=hda(large))
    wait_until(goes_up.seen.is_set, LONG_S)
    job_id = external_id(galaxy, made["jobs"][0]["id"])

    user.cancel(made["jobs"][0]["id"])

    wait_until(lambda: f"job {job_id}: cancelled before it was stored" in galaxy.log, LONG_S)
    gate.open()
    assert user.wait(made["jobs"][0]["id"])["state"] == "deleted"
    assert jobs.ids() == before
    assert not any(digest in item.key for item in galaxy.access.open().list("runs/blobs/"))

"""Heads that die, meet, follow, cancel and count, each as a command against one Kubernetes API."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import S3Access
from fake_cluster import Heard
from kube_api import FakeKube
from kube_desk import KubeDesk
from waiting import wait_until

from s3runner import wiring
from s3runner.jobfile import load_job
from s3runner.model import Outcome
from s3runner.runner.job_status import Wanted
from s3runner.settings import load_settings

SLOW: dict[str, Any] = {
    "name": "slow",
    "image": "tool:1",
    "command": "echo begun; sleep 2; cat in.txt > out.txt",
    "inputs": {"in.txt": "in.txt"},
    "outputs": ["out.txt"],
}
ENDLESS: dict[str, Any] = {**SLOW, "command": "echo begun; sleep 600"}
JOBS_AT_ONCE = 20
CALLS_PER_JOB = 5
SHARED_CALLS = 4
"""A list and a watch of Jobs and of pods."""


@pytest.fixture
def desk(kube: FakeKube, tmp_path: Path, moto_access: S3Access) -> KubeDesk:
    return KubeDesk(kube, tmp_path / "desk", moto_access, grace="3s")


def stored_job(desk: KubeDesk) -> str:
    """Return the id of the one job whose spec is stored, once there is one."""
    wait_until(lambda: desk.keys("spec.json"))
    (key,) = desk.keys("spec.json")
    return key.split("/")[-2]


DEATHS: dict[str, Callable[[FakeKube, KubeDesk], object]] = {
    "before the Job": lambda _, desk: stored_job(desk),
    "while its pod starts": lambda kube, _: kube.await_state(kube.pods),
    "while the tool runs": lambda kube, _: kube.await_pod("tool"),
    "after the commit": lambda _, desk: wait_until(lambda: desk.keys("commit.json")),
}


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
def test_a_head_that_is_killed_is_followed_by_another_process(
    kube: FakeKube, desk: KubeDesk, death: Callable[[FakeKube, KubeDesk], object]
) -> None:
    with desk.going("run", desk.write_job(**SLOW), "--json") as process:
        death(kube, desk)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    job_id = stored_job(desk)
    synced = desk.run("sync", job_id, "--json")

    assert synced.code == 0, synced.stderr
    assert (synced.json["outcome"], synced.json["attempts"]) == ("succeeded", 1)
    assert (desk.directory / "slow" / "out.txt").read_text() == "hello\n"
    assert kube.controller.pods_created == 1
    kube.await_state(lambda: not kube.jobs())


def test_two_heads_bring_the_same_end(kube: FakeKube, desk: KubeDesk) -> None:
    job_id = desk.submit(**SLOW)
    words = [("sync", job_id, "--json", "--into", into) for into in ("a", "b")]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda one: desk.run(*one), words)

    assert first.code == second.code == 0, first.stderr + second.stderr
    assert first.json["outputs"][0]["uri"] == second.json["outputs"][0]["uri"]
    assert (desk.directory / "b" / "out.txt").read_text() == "hello\n"
    assert kube.controller.pods_created == 1


def test_logs_follow_the_tool_while_it_runs(kube: FakeKube, desk: KubeDesk) -> None:
    job_id = desk.submit(**ENDLESS)
    with desk.going("logs", "-f", job_id) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert kube.await_pod("tool")
        assert desk.run("cancel", job_id).code == 0
        assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 0


def test_cancel_deletes_and_verifies_and_no_pod_decides_any_more(
    kube: FakeKube, desk: KubeDesk
) -> None:
    """The tool ignores TERM and would succeed within the grace."""
    stubborn = "trap '' TERM; echo begun; touch out.txt; while sleep 0.1; do :; done"
    job_id = desk.submit(**{**SLOW, "command": stubborn})
    with desk.going("wait", job_id, "--json") as waiting:
        kube.await_pod("tool")
        ran = desk.run("cancel", job_id)
        stdout, stderr = waiting.communicate(timeout=60)

    assert ran.code == 0, ran.stderr
    assert kube.jobs() == kube.pods() == []
    assert waiting.returncode == 1, stderr
    assert json.loads(stdout)["outcome"] == "cancelled"
    before = desk.keys()
    again = desk.run("cancel", job_id)
    assert (again.code, desk.keys()) == (0, before)
    assert len(desk.keys("commit.json")) == 1


def test_a_job_costs_a_rehearsal_a_creation_and_a_deletion(kube: FakeKube, desk: KubeDesk) -> None:
    ran = desk.run_job(**SLOW)
    assert ran.code == 0, ran.stderr

    calls = Counter((call.verb, call.resource) for call in kube.rbac.calls)
    watches = {("list", "jobs"): 1, ("watch", "jobs"): 1, ("watch", "pods"): 1}
    # the second list is for where the Job's end is seen before its pod's
    pods = {("list", "pods"): min(2, calls["list", "pods"])}
    assert calls == watches | pods | {("create", "jobs"): 2, ("delete", "jobs"): 1}


@pytest.mark.timeout(300)
def test_many_jobs_of_one_head_share_their_watches(
    kube: FakeKube, desk: KubeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at all of them again and again costs nothing more."""
    monkeypatch.setenv("HOME", str(desk.directory / "home"))
    monkeypatch.chdir(desk.directory)
    settings = load_settings(desk.directory / "s3runner.yml")
    runner = wiring.build(settings, None, desk.environment)
    job = load_job(desk.write_job(**{**SLOW, "command": "cat in.txt > out.txt"}), {})
    with ThreadPoolExecutor(JOBS_AT_ONCE) as pool:
        job_ids = [runner.submit(job, Heard()) for _ in range(JOBS_AT_ONCE)]
        ends = [pool.submit(runner.wait, job_id, Heard()) for job_id in job_ids]
        # of a Job that nobody has made yet the API itself is asked whether it is there
        kube.await_state(lambda: kube.rbac.count("create", "jobs") == 2 * JOBS_AT_ONCE)
        while any(job.row.state == "staged" for job in runner.look_up(job_ids)):
            pass
        lists = kube.rbac.count("list", "jobs")
        while not all(end.done() for end in ends):
            runner.list_jobs(Wanted())
            runner.look_up(job_ids)
        assert {end.result().outcome for end in ends} == {Outcome.SUCCEEDED}
    assert (kube.rbac.count("list", "jobs"), kube.rbac.count("watch")) == (lists, 2)
    assert kube.rbac.count() - SHARED_CALLS <= CALLS_PER_JOB * JOBS_AT_ONCE
    assert kube.controller.pods_created == JOBS_AT_ONCE
    runner.head.cluster.close()  # type: ignore[attr-defined]  # not needed at a process's end


@pytest.mark.parametrize("verb", ["list", "status"])
def test_a_verb_that_looks_at_many_jobs_lists_once(
    kube: FakeKube, desk: KubeDesk, verb: str
) -> None:
    job_ids = [desk.submit(**ENDLESS) for _ in range(3)]
    kube.await_state(lambda: len(kube.pods()) == 3)
    kube.rbac.calls.clear()
    words = job_ids if verb == "status" else []
    ran = desk.run(verb, *words, "--json")

    assert ran.code == 0, ran.stderr
    assert len(ran.json["jobs"]) == 3
    calls = [(call.verb, call.resource) for call in kube.rbac.calls]
    assert calls.count(("list", "jobs")) == calls.count(("list", "pods")) == 1
    assert {call[0] for call in calls} <= {"list", "watch"}

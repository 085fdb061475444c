"""The cluster's API is away for longer than a call is tried: jobs go on, and the head catches up.

The head's 600 s are 2 s here (`tests/hurried.py`), and the API is away for longer than these: what
matters is which of them is longer.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import S3Access
from kube_api import FakeKube, hurdles
from kube_desk import KubeDesk
from waiting import wait_until

BUDGET_S = 2.0
SLOW: dict[str, Any] = {
    "name": "slow",
    "image": "tool:1",
    "command": "sleep 1; cat in.txt > out.txt",
    "inputs": {"in.txt": "in.txt"},
    "outputs": ["out.txt"],
}


@pytest.fixture
def desk(kube: FakeKube, tmp_path: Path, moto_access: S3Access) -> KubeDesk:
    return KubeDesk(kube, tmp_path / "desk", moto_access, budget_s=BUDGET_S)


class Heard:
    """What a command says on stderr, as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.text = ""
        self._process = process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.text += line

    def ends(self) -> dict[str, Any]:
        """Wait for the command's end and return its object."""
        assert self._process.stdout is not None
        document: dict[str, Any] = json.loads(self._process.stdout.read())
        self._process.wait(60)
        self._thread.join(10)
        return document


def close_the_door(kube: FakeKube) -> None:
    kube.faults.go_down()
    kube.server.stop()


def refuse(kube: FakeKube) -> None:
    kube.faults.answer(503, 10_000)
    kube.faults.cut_streams()


def hang(kube: FakeKube) -> None:
    kube.faults.stall_streams()
    kube.faults.hang(10_000)


AWAY: dict[str, Callable[[FakeKube], None]] = {
    "drops": lambda kube: kube.faults.go_down(),
    "not listening": close_the_door,
    "503": refuse,
    "hangs": hang,
}


def come_back(kube: FakeKube, away: str = "drops") -> None:
    if away == "not listening":
        kube.server.listen_again()
    kube.faults.heal()


MOMENTS: dict[str, Callable[[FakeKube], object]] = {
    "pending": lambda kube: kube.await_state(kube.pods),
    "fetching": lambda kube: kube.await_pod("fetch"),
    "running": lambda kube: kube.await_pod("tool"),
    "staging out": lambda kube: kube.await_pod("tool", "terminated"),
    "ended": lambda kube: kube.await_pod("stager", "terminated"),
}

CASES = [(moment, "drops") for moment in MOMENTS]
CASES += [("running", away) for away in AWAY if away != "drops"]


@pytest.mark.parametrize(("moment", "away"), CASES)
def test_jobs_go_on_while_the_api_is_away_and_the_head_catches_up(
    kube: FakeKube, desk: KubeDesk, moment: str, away: str
) -> None:
    """`run` succeeds; at its end it may have to leave the Job behind, and says so."""
    kube.lack_nodes(hurdles.NO_NODE)
    with desk.going("run", desk.write_job(**SLOW), "--json") as process:
        heard = Heard(process)
        # the head has to have seen the cluster once
        wait_until(lambda: kube.rbac.count("watch") == 2 or process.poll() is not None)
        if moment != "pending":
            kube.clear()
        MOMENTS[moment](kube)
        AWAY[away](kube)
        kube.clear()
        wait_until(lambda: desk.keys("commit.json"))
        wait_until(lambda: "not answered for" in heard.text or process.poll() is not None)
        come_back(kube, away)
        end = heard.ends()

    assert process.returncode == 0, heard.text
    assert (end["outcome"], end["attempts"], end["generation"]) == ("succeeded", 1, 1)
    assert (desk.directory / "slow" / "out.txt").read_text() == "hello\n"
    assert len(desk.keys("commit.json")) == kube.controller.pods_created == 1
    # a head that found the commit meanwhile gives up on the Job: it is not what the user waits for
    if "-g1 stays: " not in heard.text:
        kube.await_state(lambda: not kube.jobs())
        if moment != "ended":
            assert "\ns3runner: the cluster's API has not answered for" in heard.text


def test_a_job_that_is_submitted_meanwhile_is_stored_and_taken_up_later(
    kube: FakeKube, desk: KubeDesk
) -> None:
    """Its id is out before the cluster is needed, so `submit` fails and loses nothing."""
    close_the_door(kube)
    ran = desk.run("submit", desk.write_job(**SLOW))

    assert ran.code == 3
    job_id = ran.stdout.strip()
    assert "warning: the cluster could not be asked whether it takes the Job" in ran.stderr
    assert "no answer from http://127.0.0.1:" in ran.stderr
    assert "[E31]" in ran.stderr
    assert f"wait {job_id}" in ran.stderr
    come_back(kube, "not listening")
    assert kube.jobs() == []
    synced = desk.run("sync", job_id, "--json")
    assert (synced.code, synced.json["outcome"], synced.json["attempts"]) == (0, "succeeded", 1)


def test_a_job_whose_creation_is_never_answered_is_found_and_made_once(
    kube: FakeKube, desk: KubeDesk
) -> None:
    """The Job is made, and every answer to that is lost: the next try finds it."""
    kube.faults.lose_answer("create", 10_000, resource="jobs", code=504)
    ran = desk.run_job(**SLOW)

    assert (ran.code, ran.json["attempts"]) == (0, 1), ran.stderr
    assert kube.controller.pods_created == 1


def test_wait_gives_up_when_it_has_never_seen_the_cluster_and_may_be_said_again(
    kube: FakeKube, desk: KubeDesk
) -> None:
    job_id = desk.submit(**SLOW)
    kube.faults.go_down()
    ran = desk.run("wait", job_id)

    assert ran.code == 3
    assert "[E31]" in ran.stderr
    assert f"wait {job_id}" in ran.stderr
    come_back(kube)
    assert desk.run("wait", job_id).code == 0


def test_wait_that_starts_while_the_api_is_away_ends_with_the_job(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    desk = KubeDesk(kube, tmp_path / "desk", moto_access, budget_s=60)
    job_id = desk.submit(**SLOW)
    kube.faults.go_down()
    with desk.going("wait", job_id, "--json") as process:
        heard = Heard(process)
        wait_until(lambda: desk.keys("commit.json"))
        wait_until(lambda: "not answered for" in heard.text)
        come_back(kube)
        end = heard.ends()

    assert process.returncode == 0, heard.text
    assert (end["outcome"], end["attempts"]) == ("succeeded", 1)


@pytest.mark.parametrize("away", AWAY)
def test_status_and_list_tell_what_the_store_knows_when_the_api_never_answers(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access, away: str
) -> None:
    """Within seconds, though `wait` would go on for minutes: its budget is beyond the test's."""
    desk = KubeDesk(kube, tmp_path / "desk", moto_access, budget_s=600)
    ended = desk.submit(**SLOW)
    assert desk.run("wait", ended).code == 0
    kube.lack_nodes(hurdles.NO_NODE)
    held_up = desk.submit(**SLOW)
    AWAY[away](kube)
    told = desk.run("status", held_up)
    document = desk.run("status", held_up, ended, "--json")
    listed = desk.run("list", "--state", "pending")

    assert (told.code, document.code, listed.code) == (0, 0, 0), told.stderr
    assert told.stdout == (
        f"{held_up}  slow  unknown: its cluster did not answer (0 attempts; generation 1)\n"
    )
    for ran in (told, document, listed):
        assert "s3runner: warning: the cluster did not answer: " in ran.stderr
        assert ran.stderr.count("[E31]") == 1
    first, second = document.json["jobs"]
    assert (first["state"], first["code"]) == (None, 31)
    assert (second["state"], second["outcome"], second["error"]) == ("ended", "succeeded", None)
    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:]] == [
        [held_up, "slow", "unknown"]
    ]


def test_cancel_while_the_api_is_away_decides_and_is_said_again(
    kube: FakeKube, desk: KubeDesk
) -> None:
    """The commit fences at once; the pod is ended when the API can be asked to."""
    job_id = desk.submit(**{**SLOW, "command": "sleep 600"})
    kube.await_pod("tool")
    kube.faults.go_down()
    ran = desk.run("cancel", job_id)

    assert ran.code == 3
    assert "[E31]" in ran.stderr
    come_back(kube)
    assert desk.run("wait", job_id, "--json").json["outcome"] == "cancelled"
    again = desk.run("cancel", job_id)
    assert again.code == 0, again.stderr
    assert kube.jobs() == kube.pods() == []

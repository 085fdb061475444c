"""How many attempts a job took: the same from every verb, also of pods that left no word."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from command import Desk
from conftest import S3Access
from waiting import found_below, wait_until

SOON = {"S3RUNNER_LOCAL_BACKOFF_S": "0.1"}


def test_a_pod_that_died_with_its_supervisor_counts_whoever_asks(
    tmp_path: Path, moto_access: S3Access
) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    local = {"cluster": "local", "local": {"read_only": [str(gate)]}}
    desk = Desk(tmp_path, moto_access, destinations={"default": local})
    job = desk.write_job(name="j", command=f"until [ -e {gate}/go ]; do sleep 0.05; done")
    job_id = desk.run("submit", job, **SOON).stdout.strip()
    wait_until(lambda: desk.run("status", job_id, "--json").json["state"] == "running")
    (lock,) = (
        path
        for path in found_below(tmp_path / "home", "lock")
        if path.parent.name == f"{job_id}-g1"
    )
    os.kill(int(lock.read_text()), signal.SIGKILL)
    (gate / "go").touch()

    told = [desk.run(*words, "--json", **SOON) for words in asking(job_id)]

    assert [ran.json["outcome"] for ran in told] == ["succeeded"] * 4, told
    assert [ran.json["attempts"] for ran in told] == [2] * 4
    assert [ran.json["generation"] for ran in told] == [1] * 4


def asking(job_id: str) -> list[tuple[str, str]]:
    return [("wait", job_id), ("wait", job_id), ("status", job_id), ("cancel", job_id)]

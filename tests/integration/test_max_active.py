"""`max_active` on the local cluster: few at a time, the oldest first, and none forgotten."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Desk
from conftest import S3Access
from waiting import wait_until

from s3runner.cluster.local.adapter import LocalCluster
from s3runner.cluster.protocol import DESTINATION_LABEL

_TIMED = "date +%s%N > began; sleep 0.3; date +%s%N > ended"


def desk_of(directory: Path, access: S3Access, most: int) -> Desk:
    """Return a desk whose jobs can see `gate`, where the test opens their way."""
    (directory / "gate").mkdir()
    place = {"cluster": "local", "max_active": most, "grace": 3}
    local = {"read_only": [str(directory / "gate")]}
    return Desk(directory, access, destinations={"default": {**place, "local": local}})


def batch(desk: Desk, command: str, count: int, **more: Any) -> list[str]:
    """Submit so many jobs in one go; return their ids."""
    path = desk.directory / "batch.yml"
    jobs = [{"name": f"job-{number}", "command": command, **more} for number in range(count)]
    path.write_text(yaml.safe_dump_all(jobs))
    ran = desk.run("submit", path)
    assert ran.code == 0, ran.stderr
    return ran.stdout.split()


def made(desk: Desk) -> list[str]:
    """Return the jobs that the cluster has Jobs of."""
    jobs = desk.directory / "home" / ".local" / "state" / "s3runner" / "local" / "jobs"
    return sorted(path.name.removesuffix("-g1") for path in jobs.iterdir())


def status(desk: Desk, job_id: str) -> dict[str, Any]:
    return desk.run("status", job_id, "--json").json


def open_gate(desk: Desk) -> None:
    (desk.directory / "gate" / "go").touch()


def gated(desk: Desk) -> str:
    """Return a command that ends once the gate is open."""
    return f"until [ -e {desk.directory}/gate/go ]; do sleep 0.05; done"


def test_jobs_that_find_no_room_are_stored_and_say_so(
    tmp_path: Path, moto_access: S3Access
) -> None:
    desk = desk_of(tmp_path, moto_access, 2)

    ids = batch(desk, gated(desk), 6)

    assert made(desk) == ids[:2]
    told = status(desk, ids[5])
    assert (told["state"], told["attempts"]) == ("staged", 0)
    assert told["waiting"] == "2 of 2 jobs active on destination default"
    assert status(desk, ids[0])["waiting"] is None
    line = desk.run("status", ids[5]).stdout
    assert "- waiting: 2 of 2 jobs active on destination default (0 attempts" in line
    open_gate(desk)
    wait_until(lambda: status(desk, ids[1])["outcome"] and status(desk, ids[0])["outcome"])
    line = desk.run("status", ids[5]).stdout
    assert f"- 0 of 2 jobs active on destination default: s3runner wait {ids[5]} starts it" in line
    assert made(desk) == ids[:2]
    assert [desk.run("wait", job_id).code for job_id in (ids[5], ids[2])] == [0, 0]
    assert desk.keys("/queue/") == []


@pytest.mark.parametrize("most", [1, 2])
def test_several_heads_keep_the_bound_and_the_order(
    tmp_path: Path, moto_access: S3Access, most: int
) -> None:
    """Nobody waits for the first jobs; the heads of the last ones start them."""
    desk = desk_of(tmp_path, moto_access, most)
    ids = batch(desk, _TIMED, 6, outputs=["began", "ended"])

    heads = [desk.start("wait", job_id) for job_id in ids[3:]]
    said = [head.communicate(timeout=240) for head in heads]

    assert [head.returncode for head in heads] == [0, 0, 0], said
    synced = [desk.run("sync", job_id, "--into", job_id) for job_id in ids]
    assert [ran.code for ran in synced] == [0] * 6
    spans = [span(desk.directory / job_id) for job_id in ids]
    at_once = [sum(one[0] <= other[0] <= one[1] for one in spans) for other in spans]
    assert max(at_once) <= most
    if most == 1:
        assert spans == sorted(spans)
    assert [status(desk, job_id)["attempts"] for job_id in ids] == [1] * 6


def span(results: Path) -> tuple[int, int]:
    """Return when a tool began and ended, by its own clock."""
    return int((results / "began").read_text()), int((results / "ended").read_text())


def test_a_head_that_dies_while_its_job_waits_is_replaced(
    tmp_path: Path, moto_access: S3Access
) -> None:
    desk = desk_of(tmp_path, moto_access, 1)
    (first,) = batch(desk, gated(desk), 1)
    with desk.start("run", desk.write_job(name="second", command="true")) as process:
        assert process.stderr is not None
        lines = iter(process.stderr)
        second = next(line.split()[1] for line in lines if line.startswith("job "))
        assert any("waiting: 1 of 1 jobs active" in line for line in lines)
        process.kill()
    open_gate(desk)

    waited = desk.run("wait", second, "--json")

    assert (waited.code, waited.json["outcome"]) == (0, "succeeded")
    assert status(desk, first)["outcome"] == "succeeded"


def job_of(name: str, destination: str | None) -> dict[str, Any]:
    """Return a Job that runs for long."""
    shell = {"name": "tool", "image": "none", "command": ["/bin/sh", "-c", "sleep 600"]}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [shell]}
    labels = {} if destination is None else {DESTINATION_LABEL: destination}
    metadata = {"name": name, "labels": labels, "annotations": {"s3runner/spec-digest": "d"}}
    return {"metadata": metadata, "spec": {"backoffLimit": 0, "template": {"spec": pod}}}


def test_a_local_job_counts_while_somebody_keeps_it(tmp_path: Path) -> None:
    """After a crash of the machine nobody does, until a head asks for that Job."""
    cluster = LocalCluster(
        tmp_path, worker_image="w", worker_secret_files={}, worker_env={}, read_only=[]
    )
    assert cluster.active("spot") == []
    names = {"one": "spot", "two": "spot", "big": "large", "old": None}
    for name, destination in names.items():
        cluster.submit(job_of(name, destination))
    assert sorted(cluster.active("spot")) == ["one", "two"]
    lock = tmp_path / "jobs" / "one" / "lock"
    wait_until(lock.read_text)

    os.kill(int(lock.read_text()), signal.SIGKILL)

    wait_until(lambda: cluster.active("spot") == ["two"])
    assert cluster.active("large") == ["big"]
    for name in names:
        cluster.delete(name)
    wait_until(lambda: all(seen.job is None for seen in cluster.observe(list(names)).values()))
    assert cluster.active("spot") == []

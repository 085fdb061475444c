"""A job outlives the command that submitted it; any other command finishes it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access
from waiting import wait_until


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    return Desk(tmp_path, moto_access)


def start_and_learn_id(desk: Desk, **job: object) -> tuple[str, int, str]:
    """Start a job, interrupt the command once the tool runs; return id, exit code, last words."""
    with desk.start("run", desk.write_job(**job)) as process:
        assert process.stderr is not None
        job_id, said = "", ""
        for line in process.stderr:
            if line.startswith("job "):
                job_id = line.split()[1]
            if line.strip().endswith("running"):
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    return job_id, process.returncode, said


def test_ctrl_c_detaches_and_sync_brings_the_result(desk: Desk) -> None:
    job_id, code, said = start_and_learn_id(
        desk, name="long", command="sleep 3; echo done > o", outputs=["o"]
    )
    assert code == 130
    assert f"s3runner wait {job_id}" in said
    assert f"s3runner cancel {job_id}" in said

    synced = desk.run("sync", job_id, "--json")

    assert synced.code == 0, synced.stderr
    assert synced.json["outcome"] == "succeeded"
    assert (desk.directory / "long" / "o").read_text() == "done\n"
    again = desk.run("sync", job_id, "--json")
    assert again.code == 0, again.stderr


def test_a_killed_command_loses_nothing(desk: Desk) -> None:
    with desk.start(
        "run", desk.write_job(name="k", command="sleep 2; echo 1 > o", outputs=["o"])
    ) as run:
        assert run.stderr is not None
        job_id = next(line.split()[1] for line in run.stderr if line.startswith("job "))
        run.kill()

    waited = desk.run("wait", job_id, "--json")

    assert waited.code == 0, waited.stderr
    assert waited.json["outcome"] == "succeeded"
    assert not (desk.directory / "k").exists()
    assert desk.run("sync", job_id).code == 0
    assert (desk.directory / "k" / "o").read_text() == "1\n"


def test_cancel_ends_the_job_and_its_pods(desk: Desk) -> None:
    job_id, _, _ = start_and_learn_id(
        desk, name="endless", command="while :; do date > alive; sleep 0.1; done", outputs=["alive"]
    )
    cancelled = desk.run("cancel", job_id, "--json")
    assert cancelled.code == 0, cancelled.stderr
    assert cancelled.json["outcome"] == "cancelled"

    ended = desk.run("wait", job_id, "--json")
    assert ended.code == 1
    assert ended.json["outcome"] == "cancelled"
    assert ended.json["code"] is None

    jobs = desk.directory / "home" / ".local" / "state" / "s3runner" / "local" / "jobs"
    wait_until(lambda: list(jobs.iterdir()) == [])

    again = desk.run("cancel", job_id)
    assert again.code == 0
    assert "had ended already (cancelled)" in again.stderr


@pytest.mark.parametrize("verb", ["wait", "sync", "cancel"])
@pytest.mark.parametrize("job_id", ["0199e2a4-0000-7000-8000-000000000009", "../x", "a b"])
def test_an_unknown_job_is_a_usage_error(desk: Desk, verb: str, job_id: str) -> None:
    ran = desk.run(verb, job_id, "--json")

    assert ran.code == 2
    assert ran.json["code"] == 20
    assert "job" in ran.stderr


def test_a_failing_tool_runs_as_often_as_the_job_asks(desk: Desk) -> None:
    ran = desk.run_job(name="fails", command="echo tried; exit 3", retry={"tool": 2})

    assert ran.code == 1
    assert (ran.json["outcome"], ran.json["tool_exit_code"]) == ("tool_failed", 3)
    assert (ran.json["attempts"], ran.json["generation"]) == (3, 3)
    assert "trying again as generation 3" in ran.stderr
    names = desk.keys(f"jobs/{ran.json['job_id']}/generations/")
    assert [name.rsplit("/", 1)[1] for name in names] == [
        "1.created.json",
        "1.json",
        "2.created.json",
        "2.json",
        "3.created.json",
        "3.json",
    ]


def test_a_tool_that_is_out_of_memory_gets_more(desk: Desk) -> None:
    hungry = "x = b'x' * (150 * 1024 * 1024); import time; time.sleep(1.5); print(len(x))"

    ran = desk.run_job(
        name="hungry",
        command=["sh", "-c", f'python3 -c "{hungry}" > out'],
        resources={"cpu": 1, "memory": "100Mi"},
        retry={"memory_factor": 3, "memory_cap": "1Gi"},
        outputs=["out"],
    )

    assert ran.code == 0, ran.stderr
    assert (ran.json["outcome"], ran.json["generation"]) == ("succeeded", 2)
    assert "ended as out_of_memory" in ran.stderr


def test_a_tool_that_is_out_of_memory_at_the_cap_ends_so(desk: Desk) -> None:
    hungry = "x = b'x' * (150 * 1024 * 1024); import time; time.sleep(30)"

    ran = desk.run_job(
        name="hungry",
        command=["python3", "-c", hungry],
        resources={"memory": "100Mi"},
        retry={"memory_cap": "100Mi"},
    )

    assert ran.code == 1
    assert (ran.json["outcome"], ran.json["code"]) == ("out_of_memory", 11)

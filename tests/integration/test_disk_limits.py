"""A disk limit on the local cluster: kept by eviction, and met by a generation with more disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from command import Desk, Ran
from conftest import S3Access
from service_rule import require_program
from waiting import wait_until

from s3runner.staging.records import Generation, Result

FILL = "head -c 41943040 /dev/zero >big"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory that every container sees: what the test does there, the tool can wait for."""
    require_program("bwrap")
    path = tmp_path / "shared"
    path.mkdir()
    return path


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access, shared: Path) -> Desk:
    local = {"cluster": "local", "local": {"read_only": [str(shared)]}}
    return Desk(tmp_path, moto_access, destinations={"default": local})


def until(path: Path) -> str:
    return f"until [ -e {path} ]; do sleep 0.05; done"


def line_with(run: subprocess.Popen[str], words: str) -> str:
    """Read what a command says until these words come."""
    assert run.stderr is not None
    return next(line for line in run.stderr if words in line)


def finished(run: subprocess.Popen[str]) -> Ran:
    stdout, stderr = run.communicate(timeout=120)
    return Ran(run.returncode, stdout, stderr)


def documents(desk: Desk, part: str) -> list[bytes]:
    return [desk.store.get(key, b"".join) for key in desk.keys(part)]


@pytest.mark.parametrize(
    "on_term",
    [
        pytest.param("", id="the tool ends in time, and no rule ends the Job"),
        pytest.param("trap '' TERM; ", id="the tool is killed, and the Job fails at once"),
    ],
)
def test_a_job_over_its_disk_limit_succeeds_with_more_disk(
    desk: Desk, shared: Path, on_term: str
) -> None:
    """The tool holds what it wrote until the second generation runs: one pod for each."""
    job = desk.write_job(
        name="big",
        command=f"{on_term}{FILL}; {until(shared / 'go')}; wc -c <big >size",
        outputs=["size"],
        resources={"disk": "20Mi"},
        retry={"disk_factor": 4},
    )

    with desk.start("run", job, "--json") as run:
        assert "generation 1 ended as no_space" in line_with(run, "trying again")
        (shared / "go").touch()
        ran = finished(run)

    assert (ran.code, ran.json["outcome"]) == (0, "succeeded"), ran.stderr
    assert (ran.json["generation"], ran.json["attempts"]) == (2, 2)
    assert (desk.directory / "big" / "size").read_text() == "41943040\n"
    status = desk.run("status", ran.json["job_id"], "--json").json
    assert status["spent"] == {"no_space": 1}
    record = Generation.load(documents(desk, "generations/2.json")[0], "")
    assert (record.previous, record.resources.disk.limit) == ("no_space", "83886080")
    results = [Result.load(body, "") for body in documents(desk, "/result.json")]
    assert [result.spent for result in results if result.generation == 2] == [{"no_space": 1}]


def test_at_the_cap_the_job_ends_and_what_was_uploaded_of_its_log_comes_back(
    desk: Desk, shared: Path
) -> None:
    job = desk.write_job(
        name="capped",
        command=f"trap '' TERM; echo begun; {until(shared / 'go')}; {FILL}; {until(shared / 'no')}",
        resources={"disk": "20Mi"},
        retry={"disk_cap": "20Mi"},
    )

    with desk.start("run", job, "--json") as run:
        wait_until(lambda: desk.keys("/logs/stdout/"))
        (shared / "go").touch()
        ran = finished(run)

    assert (ran.code, ran.json["outcome"], ran.json["code"]) == (1, "no_space", 24), ran.stderr
    assert (ran.json["generation"], ran.json["attempts"]) == (1, 1)
    error = ran.json["error"]
    assert "usage exceeds the total limit of containers 20Mi" in error["reason"]
    assert "resources.disk" in error["hint"]
    assert "retry.disk_cap" in error["hint"]
    assert desk.run("status", ran.json["job_id"], "--json").json["spent"] == {"no_space": 1}
    assert desk.run("logs", ran.json["job_id"]).stdout == "begun\n"


def test_inputs_over_the_limit_are_no_space_too(desk: Desk) -> None:
    """A fetch that is evicted never ran the tool."""
    (desk.directory / "in").write_bytes(bytes(8 * 1024 * 1024))

    ran = desk.run_job(
        name="x",
        command=f"touch ran; {until(Path('/no/such/file'))}",
        inputs={"in": "./in"},
        resources={"disk": "2Mi"},
        retry={"disk_factor": 1},
    )

    assert (ran.json["outcome"], ran.json["code"]) == ("no_space", 24), ran.stderr

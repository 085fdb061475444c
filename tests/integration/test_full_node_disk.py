"""A pod whose node has a small disk: what its own files, the tool and the cluster's make of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import disks
import pytest
from command import Desk, Ran
from conftest import S3Access
from waiting import wait_until

from s3runner.cluster.local.adapter import LocalCluster

MIB = 1024**2
BYTES, INODES = "size=8m", "size=64m,nr_inodes=200"
FILL = "head -c 64000000 /dev/zero >fill 2>/dev/null"
FILL_INODES = "n=0; while touch f$n 2>/dev/null; do n=$((n + 1)); done"


@pytest.fixture
def desk(tmp_path: Path, moto_access: S3Access) -> Desk:
    return Desk(tmp_path, moto_access)


@contextlib.contextmanager
def small_node(place: Path, options: str) -> Iterator[Path]:
    """Mount a disk for a cluster's state; at the end no Job is left that would keep it busy."""
    with disks.tmpfs(place, options) as node:
        try:
            yield node
        finally:
            disks.remount(node, "size=64m,nr_inodes=10000")
            cluster = LocalCluster(
                node / "local",
                worker_image="",
                worker_secret_files={},
                worker_env={},
                read_only=[],
            )
            for job in jobs_on(node):
                cluster.delete(job.name)
            wait_until(lambda: not jobs_on(node))


def jobs_on(node: Path) -> list[Path]:
    jobs = node / "local/jobs"
    return list(jobs.iterdir()) if jobs.exists() else []


@pytest.fixture
def few_bytes(tmp_path: Path) -> Iterator[Path]:
    with small_node(tmp_path / "node", BYTES) as node:
        yield node


@pytest.fixture
def few_inodes(tmp_path: Path) -> Iterator[Path]:
    with small_node(tmp_path / "node", INODES) as node:
        yield node


def run_on(desk: Desk, node: Path, **job: object) -> Ran:
    """Run a job on a cluster that keeps everything on this disk."""
    return desk.run("run", desk.write_job(name="x", **job), "--json", S3RUNNER_STATE_DIR=str(node))


def is_full(node: Path) -> bool:
    disk = os.statvfs(node)
    return disk.f_bavail == 0 or disk.f_ffree == 0


def assert_no_space(ran: Ran) -> None:
    assert (ran.code, ran.json["outcome"], ran.json["code"]) == (1, "no_space", 24), ran.stderr
    assert ran.json["attempts"] == 1


def test_inputs_that_do_not_fit_are_no_space(desk: Desk, few_bytes: Path) -> None:
    (desk.directory / "in").write_bytes(bytes(9 * MIB))

    ran = run_on(desk, few_bytes, command="true", inputs={"in": "./in"})

    assert_no_space(ran)
    assert ran.json["error"]["operation"] == "fetch"
    assert "bytes needed" in ran.json["error"]["reason"]


def test_inputs_of_too_many_files_are_no_space(desk: Desk, few_inodes: Path) -> None:
    (desk.directory / "in").mkdir()
    for number in range(300):
        (desk.directory / "in" / str(number)).touch()

    ran = run_on(desk, few_inodes, command="true", inputs={"in": "./in"})

    assert_no_space(ran)
    assert "inodes" in ran.json["error"]["reason"]


def test_a_tool_that_leaves_no_room_for_its_exit_code_is_no_space(
    desk: Desk, few_bytes: Path
) -> None:
    ran = run_on(desk, few_bytes, command=f"{FILL}; exit 3")

    assert_no_space(ran)
    assert "exit code" in ran.json["error"]["reason"]


def test_a_tool_that_leaves_no_inode_for_its_exit_code_is_no_space(
    desk: Desk, few_inodes: Path
) -> None:
    ran = run_on(desk, few_inodes, command=f"{FILL_INODES}; exit 3")

    assert_no_space(ran)
    assert "exit code" in ran.json["error"]["reason"]


def test_a_tool_that_finds_the_disk_full_and_makes_room_has_failed_by_itself(
    desk: Desk, few_bytes: Path
) -> None:
    ran = run_on(desk, few_bytes, command=f"{FILL} || {{ rm fill; echo full >&2; exit 3; }}")

    assert (ran.json["outcome"], ran.json["tool_exit_code"]) == ("tool_failed", 3), ran.stderr
    assert ran.json["attempts"] == 1


def test_stage_out_takes_no_room(desk: Desk, few_bytes: Path) -> None:
    """Large ones, a pack's worth of small ones, and the streams; some kilobytes are left."""
    many = "mkdir many; for n in 0 1 2 3 4 5 6 7; do head -c 400000 /dev/zero >many/$n; done"
    ran = run_on(
        desk,
        few_bytes,
        command=f"{many}; {FILL}; truncate -s -40960 fill",
        outputs=["fill", "many"],
    )

    assert (ran.code, ran.json["outcome"]) == (0, "succeeded"), ran.stderr
    assert (desk.directory / "x" / "many" / "7").stat().st_size == 400000
    assert (desk.directory / "x" / "fill").stat().st_size > MIB


@pytest.mark.parametrize(
    ("options", "fill"),
    [pytest.param(BYTES, FILL, id="bytes"), pytest.param(INODES, FILL_INODES, id="inodes")],
)
def test_a_job_that_fills_the_disk_can_be_cancelled(
    desk: Desk, tmp_path: Path, options: str, fill: str
) -> None:
    with small_node(tmp_path / "node", options) as node:
        state = {"S3RUNNER_STATE_DIR": str(node)}
        job = desk.write_job(name="x", command=f"{fill}; sleep 600")
        job_id = desk.run("submit", job, **state).stdout.strip()
        wait_until(lambda: is_full(node))

        ran = desk.run("cancel", job_id, **state)

        assert ran.code == 0, ran.stderr
        wait_until(lambda: not jobs_on(node))

"""The local cluster's own directory: what is removed from it, and where it cannot be."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from s3runner.cluster.local.adapter import LocalCluster
from s3runner.cluster.local.jobdir import JobDir, closing_fd
from s3runner.cluster.local.leftovers import FORGOTTEN_AFTER_S, creating
from s3runner.cluster.protocol import NO_IMAGE, JobObject
from s3runner.errors import ClusterUnavailableError

COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}


def job_dir(state_dir: Path, *, status: dict[str, Any], age_s: float) -> JobDir:
    """Make the directory of a Job whose status was written so long ago."""
    path = state_dir / "jobs" / "job-g1"
    path.mkdir(parents=True)
    directory = JobDir(str(path))
    directory.write("status", {"job": {"status": status}, "pods": []})
    directory.allow_deletion()
    then_s = time.time() - age_s
    os.utime(directory.status, (then_s, then_s))
    return directory


def clear_up(state_dir: Path) -> list[str]:
    """Create a Job, as far as clearing up goes; return what is left."""
    with creating(str(state_dir)):
        pass
    return sorted(os.listdir(state_dir / "jobs"))


def test_a_job_that_ended_long_ago_is_removed(tmp_path: Path) -> None:
    job_dir(tmp_path, status=COMPLETE, age_s=FORGOTTEN_AFTER_S + 60)

    assert clear_up(tmp_path) == []
    assert os.listdir(tmp_path) == ["jobs"]


@pytest.mark.parametrize(
    ("status", "age_s"),
    [(COMPLETE, FORGOTTEN_AFTER_S - 60), ({}, FORGOTTEN_AFTER_S * 2)],
    ids=["it ended of late", "it has not ended"],
)
def test_a_job_that_somebody_may_want_stays(
    tmp_path: Path, status: dict[str, Any], age_s: float
) -> None:
    job_dir(tmp_path, status=status, age_s=age_s)

    assert clear_up(tmp_path) == ["job-g1"]


def test_a_job_that_somebody_works_on_stays(tmp_path: Path) -> None:
    directory = job_dir(tmp_path, status=COMPLETE, age_s=FORGOTTEN_AFTER_S + 60)
    lock = directory.take_lock()
    assert lock is not None
    with closing_fd(lock):
        assert clear_up(tmp_path) == ["job-g1"]


def test_what_is_no_job_keeps_nobody_from_creating_one(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "empty").mkdir(parents=True)
    (tmp_path / "jobs" / "file").touch()

    assert clear_up(tmp_path) == ["empty", "file"]


def cluster_in(state_dir: Path) -> LocalCluster:
    return LocalCluster(
        state_dir, worker_image="w", worker_secret_files={}, worker_env={}, read_only=()
    )


def bare_job() -> JobObject:
    containers = [{"name": "tool", "image": NO_IMAGE, "command": ["true"]}]
    pod = {"restartPolicy": "Never", "containers": containers, "volumes": []}
    return {"spec": {"template": {"spec": pod}}}


def test_a_directory_that_cannot_be_is_refused_before_anything_goes_up(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ClusterUnavailableError, match="file is no directory") as raised:
        cluster_in(tmp_path / "file" / "state").caveats(bare_job())

    assert "S3RUNNER_STATE_DIR" in raised.value.hint


def test_looking_writes_nothing(tmp_path: Path) -> None:
    cluster_in(tmp_path / "state").caveats(bare_job())

    assert os.listdir(tmp_path) == []

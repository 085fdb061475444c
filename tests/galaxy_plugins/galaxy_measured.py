"""Runners that note what their threads take, for a Galaxy to load; nothing else is different.

Each line of the file that `S3RUNNER_MEASURES` names is one step as JSON: `what` it was, of which
`job`, its seconds by the `wall` and of its thread's `cpu`, and, of a pass of the monitor loop, how
many `jobs` were watched. Steps that are Galaxy's own are noted inside ours.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from galaxy.jobs.runners.kubernetes import KubernetesJobRunner

from s3runner.galaxy.errand import Pools
from s3runner.galaxy.pool import Pool
from s3runner.galaxy.runner import S3JobRunner

_lock = threading.Lock()


@contextmanager
def noted(runner: str, what: str, job: object, jobs: int = 0) -> Iterator[None]:
    """Note what a step takes."""
    wall, cpu = time.perf_counter(), time.thread_time()
    try:
        yield
    finally:
        line = {
            "runner": runner,
            "what": what,
            "job": str(job),
            "jobs": jobs,
            "wall": time.perf_counter() - wall,
            "cpu": time.thread_time() - cpu,
        }
        with _lock, open(os.environ["S3RUNNER_MEASURES"], "a") as file:
            file.write(json.dumps(line) + "\n")


class _Measured:
    """Notes the steps of Galaxy's life cycle, and of those the parts that are Galaxy's own."""

    runner_name: str
    watched: list[Any]

    def queue_job(self, job_wrapper: Any) -> None:
        with noted(self.runner_name, "queue", job_wrapper.job_id):
            super().queue_job(job_wrapper)  # type: ignore[misc]  # of the class beside

    def prepare_job(self, job_wrapper: Any, *args: Any, **kwargs: Any) -> Any:
        with noted(self.runner_name, "prepare", job_wrapper.job_id):
            return super().prepare_job(job_wrapper, *args, **kwargs)  # type: ignore[misc]

    def get_job_file(self, job_wrapper: Any, **kwargs: Any) -> Any:
        with noted(self.runner_name, "script", job_wrapper.job_id):
            return super().get_job_file(job_wrapper, **kwargs)  # type: ignore[misc]

    def check_watched_items(self) -> None:
        with noted(self.runner_name, "pass", "", len(self.watched)):
            super().check_watched_items()  # type: ignore[misc]

    def finish_job(self, job_state: Any) -> None:
        with noted(self.runner_name, "finish", job_state.job_wrapper.job_id):
            super().finish_job(job_state)  # type: ignore[misc]

    def _handle_metadata_externally(self, job_wrapper: Any, **kwargs: Any) -> None:
        with noted(self.runner_name, "metadata", job_wrapper.job_id):
            super()._handle_metadata_externally(job_wrapper, **kwargs)  # type: ignore[misc]

    def _finish_or_resubmit_job(self, job_state: Any, *args: Any, **kwargs: Any) -> None:
        with noted(self.runner_name, "collect", job_state.job_wrapper.job_id):
            super()._finish_or_resubmit_job(job_state, *args, **kwargs)  # type: ignore[misc]


class _MeasuredPool(Pool):
    """Notes what each task takes."""

    def submit(self, task: Callable[[], Any]) -> Future[Any]:
        name = getattr(getattr(task, "func", task), "__name__", "")

        def run() -> Any:
            with noted(S3JobRunner.runner_name, name, ""):
                return task()

        return super().submit(run)


class MeasuredS3JobRunner(_Measured, S3JobRunner):
    """Ours."""

    def __init__(self, app: Any, nworkers: int, **kwargs: Any) -> None:
        super().__init__(app, nworkers, **kwargs)
        staging, looks = self._pools.staging, self._pools.looks
        self._pools = Pools(
            _MeasuredPool(staging._name, staging._size), _MeasuredPool(looks._name, looks._size)
        )


class MeasuredKubernetesJobRunner(_Measured, KubernetesJobRunner):  # type: ignore[misc]  # no types
    """Galaxy's own."""

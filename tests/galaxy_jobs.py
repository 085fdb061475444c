"""Jobs of a Galaxy under test as the bucket and the pods know them, and tools that wait for a word.

It stands apart from the server because nothing here is asked of Galaxy but a job's id.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from conftest import S3Access
from galaxy_server import GalaxyServer, GalaxyUser
from waiting import found_below, wait_until

from s3runner.cluster.local.jobdir import JobDir
from s3runner.store.retrying import read

_LONG_S = 900
_MADE = re.compile(r"([^/]+)/generations/(\d+)\.created\.json$")


class Jobs:
    """What a bucket knows of jobs."""

    def __init__(self, access: S3Access) -> None:
        self._store = access.open()
        self._prefix = f"{access.config.prefix}/jobs/"

    def keys(self, job_id: str = "") -> list[str]:
        """Return the keys of one job, or of all, without their prefix."""
        found = self._store.list(self._prefix + (f"{job_id}/" if job_id else ""))
        return sorted(item.key.removeprefix(self._prefix) for item in found)

    def ids(self) -> set[str]:
        """Return the ids of all jobs."""
        return {key.split("/")[0] for key in self.keys()}

    def outcome(self, job_id: str) -> str:
        """Return what a job's commit says, or nothing."""
        if f"{job_id}/commit.json" not in self.keys(job_id):
            return ""
        commit = json.loads(read(self._store, f"{self._prefix}{job_id}/commit.json"))
        return str(commit["outcome"])

    def made(self, job_id: str) -> int:
        """Return how many Kubernetes Jobs were made for a job."""
        return len(self.names(job_id))

    def names(self, job_id: str = "") -> set[str]:
        """Return the names of the Kubernetes Jobs that were made for one job, or for all."""
        found = map(_MADE.match, self.keys(job_id))
        return {f"{made[1]}-g{made[2]}" for made in found if made}


class Held:
    """A run of the tool `hold`, by any of its ids: each pod of it waits until it is let go."""

    def __init__(self, galaxy: GalaxyServer, user: GalaxyUser, tool: str = "t_hold") -> None:
        self._galaxy = galaxy
        self._user = user
        made = user.start(tool)
        self.job = str(made["jobs"][0]["id"])
        self.output = str(made["outputs"][0]["id"])
        self._known: set[Path] = set()

    @property
    def job_id(self) -> str:
        """The id that s3runner knows the job by; of several runs of it the last one's."""
        return external_id(self._galaxy, self.job)

    def await_pod(self) -> Path:
        """Return the place of a pod whose tool runs, and that was not there before."""
        places: list[Path] = []

        def look() -> bool:
            places[:] = [place for place in self._places() if place not in self._known]
            return bool(places)

        wait_until(look, _LONG_S, every_s=0.1)
        self._known.add(places[0])
        return places[0]

    def release(self, place: Path) -> None:
        """Let the tool of a pod go on, to its end."""
        (place / "go").touch()

    def end(self) -> dict[str, Any]:
        """Return what Galaxy says of the job when it is over."""
        return self._user.wait(self.job)

    def text(self) -> str:
        """Return what the tool has written."""
        return self._user.text(self.output)

    def supervisor(self) -> int:
        """Return the process that keeps the job's pods on this machine."""
        jobs = self._galaxy.directory / "state" / "local" / "jobs"
        return JobDir(os.fspath(jobs / f"{self.job_id}-g1")).supervisor_pid()

    def _places(self) -> Iterator[Path]:
        if not self.job_id:
            return
        local = self._galaxy.directory / "state" / "local" / "jobs"
        for directory in local.glob(f"{self.job_id}-g*"):
            yield from (path.parent for path in found_below(directory / "pods", "here"))
        kube = self._galaxy.site.kube if self._galaxy.site else None
        if kube is not None:
            known = {
                pod["metadata"]["uid"]
                for pod in kube.pods()
                if pod["metadata"]["labels"]["batch.kubernetes.io/job-name"].startswith(self.job_id)
            }
            found = found_below(kube._directory, "here") if known else []
            yield from (path.parent for path in found if _lies_in_one_of(path, known))


def external_id(galaxy: GalaxyServer, job: str) -> str:
    """Return the id that s3runner gave one of Galaxy's jobs, or nothing."""
    return str(galaxy.call("GET", f"/api/jobs/{job}?full=true")["external_id"] or "")


def _lies_in_one_of(path: Path, names: Collection[str]) -> bool:
    return any(part in names for part in path.parts)

"""A cluster that does what the test says, and a head that uses it with a store in memory.

Everything that store and cluster are asked for stands in one journal, so a test can see the order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attempts import patient
from memory_store import MemoryStore
from samples import STORE

from s3runner.cluster.protocol import JobObject, Observation
from s3runner.model import Destination, Phase
from s3runner.runner.head import Head
from s3runner.staging.digest_cache import DigestCache

IDENTITY = {"kind": "local", "machine": "m", "state_dir": "/s"}
"""The cluster's that `samples.spec` names."""


def pod(uid: str = "pod-1", *, created: str = "2026-01-01T00:00:00Z", **codes: int) -> JobObject:
    """Return a pod whose containers have these exit codes."""
    ended = [
        {"name": name, "state": {"terminated": {"exitCode": code}}} for name, code in codes.items()
    ]
    return {
        "metadata": {"uid": uid, "creationTimestamp": created},
        "status": {"containerStatuses": ended},
    }


def job(condition: str | None = None, reason: str = "") -> JobObject:
    """Return a Job, over if it has a condition (Complete, Failed)."""
    conditions = [{"type": condition, "status": "True", "reason": reason}] if condition else []
    return {"metadata": {"uid": "uid-1"}, "status": {"conditions": conditions}}


RUNNING = Observation(job())
COMPLETE = Observation(job("Complete"), (pod(stager=0),))
FAILED = Observation(job("Failed", "PodFailurePolicy"), (pod(stager=20),))
GONE = Observation(None)


class FakeCluster:
    """It shows `seen` one by one, the last one for ever, and runs `meanwhile` while one waits.

    The Jobs in `running` are its active ones, of whatever destination.
    Waiting when nothing more is to come fails the test: it would be for ever.
    """

    def __init__(
        self,
        *seen: Observation,
        identity: Mapping[str, str] = IDENTITY,
        journal: list[tuple[str, str]] | None = None,
        meanwhile: Sequence[Callable[[], object]] = (),
        on_submit: Callable[[str], object] = lambda name: name,
    ) -> None:
        self.identity = identity
        self.jobs: dict[str, JobObject] = {}
        self.running: set[str] = set()
        self.journal = journal if journal is not None else []
        self._seen = list(seen)
        self._meanwhile = list(meanwhile)
        self._on_submit = on_submit

    def caveats(self, job: JobObject) -> Sequence[str]:
        del job
        return ()

    def submit(self, job: JobObject) -> str:
        name = job["metadata"]["name"]
        self.journal.append(("submit", name))
        self.jobs[name] = job
        self._on_submit(name)
        return f"uid-of-{name}"

    def observe(self, names: Collection[str]) -> dict[str, Observation]:
        self.journal.append(("observe", " ".join(names)))
        seen = self._seen.pop(0) if len(self._seen) > 1 else self._seen[0]
        return dict.fromkeys(names, seen)

    def active(self, destination: str) -> Collection[str]:
        self.journal.append(("active", destination))
        return set(self.running)

    def wait(self, names: Collection[str], timeout_s: float) -> None:
        del timeout_s
        self.journal.append(("wait", " ".join(names)))
        assert self._meanwhile, "this wait would never end"
        self._meanwhile.pop(0)()

    def delete(self, name: str) -> None:
        self.journal.append(("delete", name))


def head_of(
    store: MemoryStore,
    cluster: FakeCluster,
    qualify: Callable[[], None] = lambda: None,
    destination: Destination = Destination(),  # noqa: B008  # a frozen value
) -> Head:
    """Return a head that journals into the store's calls."""
    cluster.journal = store.calls
    return Head(
        store=patient(store),
        config=STORE,
        pod_config=STORE,
        cluster=cluster,
        destination=destination,
        cache=DigestCache(None, time.time_ns),
        qualify=qualify,
    )


@dataclass
class Heard:
    """A Listener that remembers; `on_job_id` looks around at that moment."""

    on_job_id: Callable[[str], object] = lambda job_id: job_id
    job_ids: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    phases: dict[str, Phase] = field(default_factory=dict)

    def job_id(self, job_id: str) -> None:
        self.job_ids.append(job_id)
        self.on_job_id(job_id)

    def phase(self, name: str, phase: Phase, *totals: Any) -> None:
        del totals
        self.phases[name] = phase

    def state(self, name: str) -> None:
        self.states.append(name)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)

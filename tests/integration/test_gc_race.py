"""gc against jobs that are submitted meanwhile, on real stores, with lifetimes of a few seconds.

Jobs share inputs by content, reuse and renew blobs of any age, and take each other's outputs by
URI, near their end and past it; whatever a job that has not ended names must be there.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import S3Access
from fake_cluster import FakeCluster, Heard

from s3runner.errors import InputError, ObjectNotFoundError, StagingError
from s3runner.model import Destination, Input, Job, Manifest, Outcome, Output
from s3runner.runner.gc import Collector
from s3runner.runner.head import Head
from s3runner.runner.report import STAGE_IN
from s3runner.runner.submission import submit
from s3runner.staging.digest_cache import DigestCache
from s3runner.staging.download import materialise
from s3runner.staging.expiry import DAY_S, Lifetimes
from s3runner.staging.records import Result
from s3runner.store.control import BucketControl
from s3runner.store.meter import Meter
from s3runner.store.obstore_store import ObstoreStore
from s3runner.store.protocol import Chunks, StoredObject
from s3runner.store.retrying import Retry, RetryingStore
from s3runner.worker.attempt import Attempt
from s3runner.worker.commit import publish
from s3runner.worker.stage_out import bring_out

TTL_S = 3.0
LIFETIMES = Lifetimes(blob_s=TTL_S, job_s=TTL_S, leftover_s=DAY_S)
CONTENTS = 1000
SUBMITTERS = 3
DEADLINE_S = 150.0
ENOUGH = 3
"""How often each kind of event must have been seen before the race is over."""

KINDS = {
    *("input reused", "input sent", "output referred to", "output put again", "output gone"),
    *("blob collected", "job collected", "job ended"),
}


class _Stager(ObstoreStore):
    """The heads' store: no blob arrives while gc is between its look and its delete.

    That is the one gap that S3 leaves open, and what happens in it is told by fetch.
    """

    gap = threading.Lock()

    def put(self, key: str, body: Callable[[], Chunks], *, size: int, part_size: int) -> None:
        with self.gap:
            super().put(key, body, size=size, part_size=part_size)


class _Sweeper(RetryingStore):
    """gc's store, with that gap closed."""

    def delete_unless_renewed(self, found: StoredObject) -> bool:
        with _Stager.gap:
            return super().delete_unless_renewed(found)


@dataclass(frozen=True)
class _Open:
    """A job that has not ended: its id, when it will end, and what its input holds."""

    job_id: str
    ends: float
    content: bytes


@dataclass
class _Race:
    """What the threads share."""

    access: S3Access
    directory: Path
    seen: Counter[str] = field(default_factory=Counter)
    ended: dict[str, float] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def head(self) -> Head:
        config = self.access.config
        return Head(
            store=RetryingStore(_Stager(config, self.access.credentials), Retry(20.0)),
            config=config,
            pod_config=config,
            cluster=FakeCluster(),
            destination=Destination(),
            cache=DigestCache(None, time.time_ns),
            qualify=lambda: None,
            lifetimes=LIFETIMES,
        )

    def run(self, work: Callable[[], None]) -> None:
        """Do this again and again until the race is over, or somebody has failed."""
        deadline = time.monotonic() + DEADLINE_S
        try:
            while not self.over.is_set():
                work()
                if all(self.seen[kind] >= ENOUGH for kind in KINDS):
                    self.over.set()
                assert time.monotonic() < deadline, f"not seen often enough: {self.seen}"
        finally:
            self.over.set()

    def collect(self) -> None:
        config, keys = self.access.config, self.access.credentials
        collector = Collector(
            _Sweeper(ObstoreStore(config, keys), Retry(20.0)),
            BucketControl(config, keys),
            config,
            LIFETIMES,
        )

        def once() -> None:
            gone = collector.collect(dry_run=False)
            self.seen["blob collected"] += len(gone.blobs)
            self.seen["job collected"] += len(gone.jobs)

        self.run(once)

    def submit(self, number: int) -> None:
        """Submit jobs, and end each some time later, when its inputs must still be there."""
        submitter = _Submitter(self, random.Random(number), self.directory / str(number))  # noqa: S311 # a test's choice
        self.run(submitter.step)
        for job in submitter.open:
            submitter.check(job)


class _Submitter:
    """One head with its jobs."""

    def __init__(self, race: _Race, chance: random.Random, directory: Path) -> None:
        self.open: list[_Open] = []
        self._race = race
        self._chance = chance
        self._directory = directory
        self._head = race.head()
        directory.mkdir()

    def step(self) -> None:
        now = time.monotonic()
        for job in [job for job in self.open if job.ends < now]:
            self.open.remove(job)
            self.check(job)
            self._end(job)
        if self._chance.random() < 0.4 and self._race.ended:
            self._submit_output()
        else:
            self._submit_file()

    def _submit_file(self) -> None:
        # some again and again, others so seldom that gc takes them
        content = b"%d" % int(CONTENTS * self._chance.random() ** 4) * 1000
        source = self._directory / "source"
        source.write_bytes(content)
        heard = Heard()
        self._submit(str(source), content, heard)
        sent = heard.phases[STAGE_IN].bytes
        self._race.seen["input sent" if sent else "input reused"] += 1

    def _submit_output(self) -> None:
        # the newest is young, the oldest is on its way out
        uri, ended = list(self._race.ended.items())[self._chance.choice([0, -1])]
        try:
            spec = self._submit(uri, b"output", Heard())
        except (InputError, StagingError) as error:
            if error.code != ObjectNotFoundError.code or time.monotonic() - ended < TTL_S - 1:
                raise
            self._race.seen["output gone"] += 1
            self._race.ended.pop(uri, None)
            return
        (at,) = [entry.at for entry in spec.entries]
        again = at is not None and at.key.startswith(self._head.layout.blobs_prefix)
        self._race.seen["output put again" if again else "output referred to"] += 1

    def _submit(self, source: str, content: bytes, heard: Heard) -> Manifest:
        job = Job("j", "x", inputs=(Input("in", source),), outputs=(Output("out"),))
        job_id = submit(self._head, job, heard)
        ends = time.monotonic() + self._chance.uniform(0, 2 * TTL_S)
        self.open.append(_Open(job_id, ends, content))
        return self._inputs(job_id)

    def _inputs(self, job_id: str) -> Manifest:
        inputs = self._head.read_spec(job_id)[0].inputs
        assert isinstance(inputs, Manifest)
        return inputs

    def check(self, job: _Open) -> None:
        """Fetch the job's input: it has not ended."""
        place = self._directory / job.job_id
        inputs = self._inputs(job.job_id)
        materialise(self._head.store, inputs, lambda path: f"{place}/{path}", meter=Meter())
        assert (place / "in").read_bytes() == job.content

    def _end(self, job: _Open) -> None:
        """Do what the job's pod does at its end."""
        place = self._directory / job.job_id
        for name in ("control", "work"):
            (place / name).mkdir()
        (place / "work" / "out").write_bytes(b"output")
        attempt = Attempt(
            job_id=job.job_id,
            generation_number=1,
            spec_digest=self._head.read_spec(job.job_id)[1],
            uid="pod-1",
            control=str(place / "control"),
            work=str(place / "work"),
            references=str(place / "references"),
            config=self._head.config,
            store=self._head.store,
        )
        ended = Result(job.job_id, 1, "pod-1", Outcome.SUCCEEDED, tool_exit_code=0)
        assert publish(attempt, bring_out(attempt, ended, with_outputs=True)) == 0
        self._race.seen["job ended"] += 1
        self._race.ended[self._head.config.uri(attempt.keys.out("out"))] = time.monotonic()


@pytest.mark.parametrize("server", ["moto_access", "rgw_access"], ids=["moto", "rgw"])
def test_no_job_misses_what_it_names_while_gc_runs(
    request: pytest.FixtureRequest, server: str, tmp_path: Path
) -> None:
    race = _Race(request.getfixturevalue(server), tmp_path)
    with ThreadPoolExecutor(SUBMITTERS + 1) as threads:
        running = [threads.submit(race.collect)]
        running += [threads.submit(race.submit, number) for number in range(SUBMITTERS)]
    for thread in running:
        thread.result()

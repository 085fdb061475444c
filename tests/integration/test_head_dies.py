"""A head that dies at any call of its life: the next one ends with the same, once.

The pod's side is real (fetch, stage-out, commit) and runs when the cluster is asked for the Job.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from attempts import finish, memory_store, open_attempt
from fake_cluster import IDENTITY, Heard, head_of, job, pod
from memory_store import MemoryStore

from s3runner.cluster.protocol import JobObject, Observation
from s3runner.model import Input, Job, Output
from s3runner.runner.follow import wait
from s3runner.runner.head import Head
from s3runner.runner.landing import Places
from s3runner.runner.submission import submit
from s3runner.runner.sync import sync
from s3runner.worker.fetch import fetch

LEAST_POINTS = 30


class KilledError(BaseException):
    """The head's process is gone."""


class Journal(list[tuple[str, str]]):
    """The calls of head and cluster; the head dies just before its call number `fatal`."""

    def __init__(self, fatal: int | None) -> None:
        super().__init__()
        self.fatal = fatal
        self.by_head = 0
        self.listening = True

    def append(self, call: tuple[str, str]) -> None:
        if self.listening:
            self.by_head += 1
            if self.fatal is not None and self.by_head >= self.fatal:
                raise KilledError
        super().append(call)


class Machine:
    """A cluster that outlives its heads: a Job that is created runs at once, to its commit."""

    identity: Mapping[str, str] = IDENTITY

    def __init__(self, root: Path, store: MemoryStore) -> None:
        self.journal: list[tuple[str, str]] = []
        self.runs: list[str] = []
        self._root = root
        self._store = store
        self._jobs: set[str] = set()

    def caveats(self, job: JobObject) -> Sequence[str]:
        del job
        return ()

    def submit(self, job: JobObject) -> str:
        name = job["metadata"]["name"]
        self.journal.append(("submit", name))
        if name not in self._jobs:
            self._jobs.add(name)
            self._run(job)
        return "uid"

    def _run(self, job: JobObject) -> None:
        self.runs.append(job["metadata"]["name"])
        uid = f"pod-{len(self.runs)}"
        attempt = open_attempt(
            self._root,
            self._store,
            job_id=job["metadata"]["labels"]["s3runner/job-id"],
            uid=uid,
        )
        journal = self._store._world.calls
        assert isinstance(journal, Journal)
        journal.listening = False
        assert fetch(attempt) == 0
        Path(attempt.work, "out").mkdir()
        for source in Path(attempt.work, "in").iterdir():
            Path(attempt.work, "out", source.name).write_bytes(source.read_bytes()[::-1])
        finish(attempt)
        journal.listening = True

    def observe(self, names: Collection[str]) -> dict[str, Observation]:
        (name,) = names
        self.journal.append(("observe", name))
        there = Observation(job("Complete"), (pod(f"pod-{len(self.runs)}", stager=0),))
        return {name: there if name in self._jobs else Observation(None)}

    def active(self, destination: str) -> Collection[str]:
        self.journal.append(("active", destination))
        return ()

    def wait(self, names: Collection[str], timeout_s: float) -> None:
        del timeout_s
        self.journal.append(("wait", " ".join(names)))

    def delete(self, name: str) -> None:
        self.journal.append(("delete", name))
        self._jobs.discard(name)


def live(root: Path, fatal: int | None) -> tuple[MemoryStore, Machine, Heard, Callable[[], Head]]:
    """Live one head's life up to its death; return what it leaves, and how to make another."""
    root.mkdir()
    (root / "in").mkdir()
    for number in range(5):
        (root / "in" / f"f{number}").write_bytes(bytes([number]) * 7)
    for number in range(5):
        (root / "in" / f"large{number}").write_bytes(bytes([97, number]) * 530_000)
    store = memory_store()
    store._world.calls = Journal(fatal)
    machine = Machine(root, store)
    heard = Heard()

    def new_head() -> Head:
        return head_of(store, machine)  # type: ignore[arg-type]  # a Cluster, if no FakeCluster

    asked = Job(
        name="dies",
        command="true",
        inputs=(Input("in", str(root / "in")),),
        outputs=(Output("out"),),
    )
    try:
        head = new_head()
        job_id = submit(head, asked, heard)
        wait(head, job_id, heard)
        bring(head, job_id, root)
    except KilledError:
        pass
    return store, machine, heard, new_head


def bring(head: Head, job_id: str, root: Path) -> None:
    spec, _ = head.read_spec(job_id)
    sync(head, spec, Places(root / "result", gather_absolute=True), Heard(), overwrite=False)


def test_a_head_may_die_at_any_call(tmp_path: Path) -> None:
    store, machine, _, _ = live(tmp_path / "whole", None)
    journal = store._world.calls
    assert isinstance(journal, Journal)
    points = journal.by_head
    assert points >= LEAST_POINTS
    taken_up = 0

    for fatal in range(1, points + 1):
        root = tmp_path / str(fatal)
        store, machine, heard, new_head = live(root, fatal)
        survivor = store._world.calls
        assert isinstance(survivor, Journal)
        survivor.fatal = None
        if not heard.job_ids:
            # it died before anybody was told of a job
            assert machine.runs == []
            continue
        taken_up += 1
        (job_id,) = heard.job_ids
        end = wait(new_head(), job_id, Heard())
        bring(new_head(), job_id, root)

        assert end.outcome.value == "succeeded", fatal
        assert len(machine.runs) == 1, fatal
        commits = [key for key in store.objects if key.endswith("/commit.json")]
        assert len(commits) == 1, fatal
        for source in (root / "in").iterdir():
            expected = source.read_bytes()[::-1]
            assert (root / "result" / "out" / source.name).read_bytes() == expected, fatal
        assert not list(root.rglob(".s3runner-*")), fatal

    assert taken_up >= points // 2

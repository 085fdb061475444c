"""The pod's side of a job without a pod: an attempt on a store in memory, and a stand-in shim."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import samples
from memory_store import MemoryStore

from s3runner.model import POD_FINAL, Outcome
from s3runner.staging.layout import JobLayout, StoreLayout
from s3runner.staging.manifest import document_digest
from s3runner.staging.records import Commit, Generation, Result, Spec
from s3runner.store.retrying import Retry, RetryingStore
from s3runner.worker.attempt import Attempt
from s3runner.worker.commit import publish
from s3runner.worker.stage_out import bring_out

JOB: JobLayout = StoreLayout(samples.STORE.prefix).job(samples.JOB_ID)


def memory_store(**levers: object) -> MemoryStore:
    """Return the bucket that `samples.STORE` names."""
    return MemoryStore(samples.STORE.bucket, **levers)  # type: ignore[arg-type]


class _Pauses:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def patient(store: MemoryStore) -> RetryingStore:
    """Return the store with retries that take no time."""
    pauses = _Pauses()
    return RetryingStore(store, Retry(1.0, clock=lambda: pauses.now, sleep=pauses.sleep))


def put(store: MemoryStore, key: str, body: bytes) -> None:
    """Let an object be there, without a call that the store's levers would count."""
    store._objects()[key] = (body, store._world.clock())


def open_attempt(
    root: Path,
    store: MemoryStore,
    *,
    job_id: str = samples.JOB_ID,
    uid: str = "pod-1",
    spec_digest: str | None = None,
) -> Attempt:
    """Return an attempt of a job that is stored, with a control directory of its own."""
    job = StoreLayout(samples.STORE.prefix).job(job_id)
    control = root / uid / "control"
    control.mkdir(parents=True)
    return Attempt(
        job_id=job_id,
        generation_number=1,
        spec_digest=spec_digest or document_digest(store.objects[job.spec]),
        uid=uid,
        control=str(control),
        work=str(root / uid / "work"),
        references=str(root / uid / "references"),
        config=samples.STORE,
        store=patient(store),
    )


def store_job(
    store: MemoryStore, *, final: tuple[Outcome, ...] = POD_FINAL, **changes: object
) -> Spec:
    """Store a job's spec and its first generation, as a head does; forget the calls of that."""
    spec = samples.spec(**changes)
    body = spec.dump()
    put(store, JOB.spec, body)
    record = Generation(1, JOB.job_name(1), document_digest(body), final)
    put(store, JOB.generation(1), record.dump())
    store.calls.clear()
    return spec


def end_of(attempt: Attempt, outcome: Outcome, **more: object) -> Result:
    """Return the result of a tool that ended so."""
    return Result(attempt.job_id, 1, attempt.uid, outcome, **more)  # type: ignore[arg-type]


def finish(attempt: Attempt, outcome: Outcome = Outcome.SUCCEEDED) -> int:
    """Stage out what lies in the work directory, and commit."""
    Path(attempt.work).mkdir(exist_ok=True)
    return publish(
        attempt, bring_out(attempt, end_of(attempt, outcome, tool_exit_code=0), with_outputs=True)
    )


def committed(store: MemoryStore, job: JobLayout = JOB) -> Commit | None:
    """Return the commit that lies in the store."""
    body = store.objects.get(job.commit)
    return None if body is None else Commit.load(body, job.commit)


def stored_result(store: MemoryStore, attempt: Attempt) -> Result:
    """Return what the attempt said of itself."""
    return Result.load(store.objects[attempt.keys.result], attempt.keys.result)


def in_thread(*steps: Callable[[], None]) -> threading.Thread:
    """Do these beside the test; whoever needs their end joins the thread."""

    def work() -> None:
        for step in steps:
            step()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def play_shim(attempt: Attempt, *, exit_code: int = 0, work: Callable[[], None]) -> None:
    """Do what the tool's container does: run, leave streams and code, say so, hang up."""
    up = os.open(attempt.control_file("up"), os.O_WRONLY)
    os.write(up, b"started\n")
    work()
    Path(attempt.control_file("stdout")).write_text("said\n")
    Path(attempt.control_file("exit_code")).write_text(f"{exit_code} 0 0\n")
    os.write(up, f"exit {exit_code} 0 0\n".encode())
    os.close(up)

"""Two pods of one job that commit at the same moment, over every store: one of them decides it."""

from __future__ import annotations

import json
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from fake_cluster import FakeCluster, Heard
from samples import JOB_ID, STORE, spec

from s3runner.model import POD_FINAL, Destination, Outcome, Output
from s3runner.runner.head import Head
from s3runner.runner.landing import Places
from s3runner.runner.sync import sync
from s3runner.staging.digest_cache import DigestCache
from s3runner.staging.manifest import document_digest
from s3runner.staging.records import Generation, Result
from s3runner.store.protocol import ObjectStore
from s3runner.store.retrying import Retry, RetryingStore
from s3runner.worker.attempt import Attempt
from s3runner.worker.commit import publish
from s3runner.worker.stage_out import bring_out

ROUNDS = 10
PODS = ("pod-1", "pod-2")


class AtOnce(RetryingStore):
    """A store whose users all come with their commit before any of them is let through."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store, Retry(60.0))
        self._start = threading.Barrier(len(PODS), timeout=60)
        self.told: list[bool] = []
        """What each was told of its commit: whether it is there."""

    def put_if_absent(self, key: str, body: bytes) -> bool:
        assert key.endswith("/commit.json")
        self._start.wait()
        is_there = super().put_if_absent(key, body)
        self.told.append(is_there)
        return is_there


def store_job(store: ObjectStore) -> Head:
    """Store a job below a prefix of its own; return a head that knows it."""
    config = replace(STORE, bucket=store.bucket, prefix=f"runs/{secrets.token_hex(8)}")
    head = Head(
        store=RetryingStore(store, Retry(60.0)),
        config=config,
        pod_config=config,
        cluster=FakeCluster(),
        destination=Destination(),
        cache=DigestCache(None, time.time_ns),
        qualify=lambda: None,
    )
    keys, body = head.layout.job(JOB_ID), spec(outputs=(Output("id"), Output("tree"))).dump()
    record = Generation(1, keys.job_name(1), document_digest(body), POD_FINAL)
    head.store.put_if_absent(keys.spec, body)
    head.store.put_if_absent(keys.generation(1), record.dump())
    return head


def run_pod(head: Head, store: RetryingStore, root: Path, uid: str) -> int:
    """Write the pod's own UID wherever there is room for it, bring all of it out, and commit."""
    (root / uid / "work" / "tree").mkdir(parents=True)
    (root / uid / "control").mkdir()
    for name in ("id", "tree/a", "tree/b"):
        (root / uid / "work" / name).write_text(uid)
    (root / uid / "control" / "stdout").write_text(uid)
    attempt = Attempt(
        job_id=JOB_ID,
        generation_number=1,
        spec_digest=head.read_spec(JOB_ID)[1],
        uid=uid,
        control=str(root / uid / "control"),
        work=str(root / uid / "work"),
        references=str(root / uid / "references"),
        config=head.config,
        store=store,
    )
    ended = Result(JOB_ID, 1, uid, Outcome.SUCCEEDED, tool_exit_code=0)
    return publish(attempt, bring_out(attempt, ended, with_outputs=True))


def test_of_two_pods_that_commit_at_once_one_decides_and_all_bytes_are_its_own(
    store: ObjectStore, tmp_path: Path
) -> None:
    """Both exit 0: for the one that lost there is nothing left to do."""
    for number in range(ROUNDS):
        head, root = store_job(store), tmp_path / f"{number}"
        together = AtOnce(store)
        with ThreadPoolExecutor(len(PODS)) as threads:
            runs = [threads.submit(run_pod, head, together, root, uid) for uid in PODS]
            codes = [run.result() for run in runs]

        commit = head.read_commit(JOB_ID)
        assert commit is not None
        assert codes == [0, 0]
        # where an answer was lost both may have been told no
        assert (len(together.told), together.told.count(True) <= 1) == (len(PODS), True)
        places = Places(root / "into", gather_absolute=False)
        sync(head, head.read_spec(JOB_ID)[0], places, Heard(), overwrite=False)
        found = [root / "into" / name for name in ("id", "tree/a", "tree/b", ".s3runner/stdout")]
        assert {path.read_text() for path in found} == {commit.attempt}
        told = json.loads((root / "into" / ".s3runner" / "result.json").read_text())
        assert told["attempt"] == commit.attempt

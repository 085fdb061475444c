"""Any tree comes back identical, over every store: as an input, and as an output that is synced."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_cluster import FakeCluster, Heard
from forest import LARGE, Directory, File, Link, directories, ground, plant, trees
from hostile import snapshot
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from samples import JOB_ID, STORE, spec

from s3runner.errors import SpecError, StagingError, UnsupportedError
from s3runner.model import POD_FINAL, Destination, Entry, Kind, Manifest, Outcome, Output
from s3runner.runner.head import Head
from s3runner.runner.landing import Places
from s3runner.runner.sync import sync
from s3runner.staging.digest_cache import DigestCache
from s3runner.staging.download import materialise
from s3runner.staging.layout import StoreLayout
from s3runner.staging.manifest import (
    document_digest,
    dump_document,
    dump_manifest,
    load_manifest,
    parse_document,
)
from s3runner.staging.records import Generation, Result
from s3runner.staging.scan import scan
from s3runner.staging.upload import stage_in
from s3runner.store.meter import Meter
from s3runner.store.protocol import ObjectStore
from s3runner.store.retrying import Retry, RetryingStore
from s3runner.worker.attempt import Attempt
from s3runner.worker.commit import publish
from s3runner.worker.stage_out import bring_out

# only a failure takes so long: the tree is made smaller, for up to five minutes, before it is shown
pytestmark = pytest.mark.timeout(900)

NO_CACHE = DigestCache(None, time.time_ns)

whatever = settings(
    max_examples=max(1, settings().max_examples // 8),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""Each example goes below a prefix of its own, so one bucket serves them all."""


def _place(root: Path) -> Callable[[str], str]:
    return lambda path: f"{root}/{path}"


def _through_json(manifest: Manifest) -> Manifest:
    return load_manifest(parse_document(dump_document(dump_manifest(manifest)), "here"), "here")


@whatever
@given(tree=trees)
@example(tree=LARGE)
def test_any_input_comes_out_of_fetch_identical(
    store: ObjectStore, tmp_path: Path, tree: Directory | File
) -> None:
    with ground(tmp_path) as here:
        plant(here / "tree", tree)
        before = snapshot(here / "tree")
        layout = StoreLayout(f"runs/{secrets.token_hex(8)}")
        found = scan("in/tree", str(here / "tree"))

        manifest = stage_in(store, layout, [found], NO_CACHE, meter=Meter())
        materialise(store, _through_json(manifest), _place(here / "pod"), meter=Meter())

        assert snapshot(here / "pod" / "in" / "tree") == before
        assert snapshot(here / "tree") == before


@whatever
@given(tree=trees)
@example(tree=LARGE)
def test_any_output_comes_out_of_sync_identical(
    store: ObjectStore, tmp_path: Path, tree: Directory | File
) -> None:
    with ground(tmp_path) as here:
        (here / "work").mkdir()
        plant(here / "work" / "out", tree)
        before = snapshot(here / "work" / "out")
        config = replace(STORE, bucket=store.bucket, prefix=f"runs/{secrets.token_hex(8)}")
        head = Head(
            store=RetryingStore(store, Retry(20.0)),
            config=config,
            pod_config=config,
            cluster=FakeCluster(),
            destination=Destination(),
            cache=NO_CACHE,
            qualify=lambda: None,
        )

        _run_job(head, here)
        stored, _ = head.read_spec(JOB_ID)
        sync(head, stored, Places(here / "into", gather_absolute=False), Heard(), overwrite=False)

        assert snapshot(here / "into" / "out") == before
        assert snapshot(here / "work" / "out") == before


def _run_job(head: Head, here: Path) -> None:
    """Store a job, bring out what lies in `work` as its pod does, and commit."""
    keys = head.layout.job(JOB_ID)
    body = spec(outputs=(Output("out"),)).dump()
    record = Generation(1, keys.job_name(1), document_digest(body), POD_FINAL)
    head.store.put_if_absent(keys.spec, body)
    head.store.put_if_absent(keys.generation(1), record.dump())
    (here / "control").mkdir()
    attempt = Attempt(
        job_id=JOB_ID,
        generation_number=1,
        spec_digest=document_digest(body),
        uid="pod-1",
        control=str(here / "control"),
        work=str(here / "work"),
        references=str(here / "references"),
        config=head.config,
        store=head.store,
    )
    ended = Result(JOB_ID, 1, "pod-1", Outcome.SUCCEEDED, tool_exit_code=0)
    assert publish(attempt, bring_out(attempt, ended, with_outputs=True)) == 0


@whatever
@given(
    tree=directories,
    target=st.sampled_from(
        [b"/", b"/etc/passwd", b"..", b"../out", b"gone/../../out", b"./../x/.."]
    ),
)
def test_a_link_out_of_any_tree_is_refused_by_its_name_on_both_sides(
    tmp_path: Path, tree: Directory, target: bytes
) -> None:
    with ground(tmp_path) as here:
        content = {**tree.content, b"bad": Link(0, target, 0)}
        plant(here / "tree", replace(tree, content=content))

        with pytest.raises(StagingError) as caught:
            scan("in", str(here / "tree"))

        bad = f"{here}/tree/bad"
        assert bad in {failure.source for failure in caught.value.failures}
        assert all(isinstance(failure, UnsupportedError) for failure in caught.value.failures)
    link = Entry("in/bad", Kind.SYMLINK, 0o777, 0, target=os.fsdecode(target))
    with pytest.raises(SpecError, match="leaves its directory"):
        _through_json(Manifest((Entry("in", Kind.DIR, 0o755, 0), link)))

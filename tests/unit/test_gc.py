"""gc takes what nobody needs, and nothing else: by age, by name, and while jobs are staged in."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from attempts import patient
from memory_store import MemoryControl, MemoryStore
from samples import STORE, spec

from s3runner.cli.gc import document_of, lines_of
from s3runner.errors import (
    InputError,
    StagingError,
    StoreAccessError,
    StoreUnavailableError,
)
from s3runner.model import Entry, Kind, Manifest, Outcome, Output, Pack, StoredAt
from s3runner.runner.gc import Collector, Garbage
from s3runner.runner.sources import RemoteSources
from s3runner.staging.digest_cache import DigestCache
from s3runner.staging.expiry import (
    DAY_S,
    Lifetimes,
    StoredJob,
    expired_jobs,
    keys_named,
    removal_steps,
)
from s3runner.staging.layout import StoreLayout
from s3runner.staging.manifest import document_digest, dump_document, dump_manifest
from s3runner.staging.records import Commit, ExternalManifest, Result, Spec
from s3runner.staging.renewing import Renewal
from s3runner.staging.scan import scan, scan_outputs
from s3runner.staging.upload import stage_in, stage_out
from s3runner.store.meter import Meter
from s3runner.store.protocol import OpenUpload
from s3runner.store.retrying import Retry

LAYOUT = StoreLayout(STORE.prefix)
TIMES = Lifetimes(blob_s=30 * DAY_S, job_s=90 * DAY_S)
NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
BLOB = LAYOUT.blob("sha256:" + "a" * 64)
NO_INPUTS = Manifest()
OTHER_BLOB = LAYOUT.blob("sha256:" + "b" * 64 + "-3")


class Shelf(MemoryStore):
    """A bucket with a clock, and something that happens before one of its calls."""

    def __init__(self, **levers: object) -> None:
        self.time = NOW
        super().__init__(STORE.bucket, clock=lambda: self.time, **levers)  # type: ignore[arg-type]
        self.before: dict[int, Callable[[], object]] = {}

    def _begin(self, method: str, key: str) -> bool:
        happening = self.before.pop(len(self.calls), None)
        if happening is not None:
            happening()
        return super()._begin(method, key)

    def put_aged(self, key: str, body: bytes = b"x", *, days: float = 0) -> None:
        """Let an object be there that is so old."""
        self._objects()[key] = (body, self.time - timedelta(days=days))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def collector(shelf: Shelf, control: MemoryControl | None = None) -> Collector:
    retry = Retry(1.0, sleep=lambda _: None)
    return Collector(patient(shelf), control or MemoryControl(shelf), STORE, TIMES, retry)


def collect(
    shelf: Shelf, control: MemoryControl | None = None, *, dry_run: bool = False
) -> Garbage:
    return collector(shelf, control).collect(dry_run=dry_run)


def at(key: str, **more: object) -> Manifest:
    """Return inputs that are one file at this key."""
    digest = "sha256:" + "a" * 64
    place = StoredAt(key, **more)  # type: ignore[arg-type]
    return Manifest((Entry("in", Kind.FILE, 0o644, 0, 1, digest, at=place),))


def put_job(
    shelf: Shelf,
    job_id: str,
    inputs: Manifest | ExternalManifest = NO_INPUTS,
    *,
    ended_days_ago: float | None = None,
) -> str:
    """Store a job with one attempt; return the key of its output."""
    keys = LAYOUT.job(job_id)
    attempt = keys.attempt("pod-1")
    shelf.put_aged(keys.spec, spec(job_id=job_id, inputs=inputs).dump(), days=200)
    for key in (keys.generation(1), attempt.result, attempt.manifest, attempt.rest):
        shelf.put_aged(key, days=200)
    shelf.put_aged(attempt.out("o"), days=200)
    if ended_days_ago is not None:
        commit = Commit("pod", Outcome.SUCCEEDED, "pod-1", "sha256:" + "0" * 64, 1)
        shelf.put_aged(keys.commit, commit.dump(), days=ended_days_ago)
    return attempt.out("o")


def test_a_blob_goes_when_it_is_old_and_no_job_names_it(shelf: Shelf) -> None:
    shelf.put_aged(BLOB, b"old", days=31)
    shelf.put_aged(OTHER_BLOB, b"young", days=29)

    found = collect(shelf)

    assert [item.key for item in found.blobs] == [BLOB]
    assert found.size == 3
    assert list(shelf.objects) == [OTHER_BLOB]


@pytest.mark.parametrize("where", ["inline", "beside", "pack", "by bucket"])
def test_a_blob_stays_while_a_job_without_a_commit_names_it(shelf: Shelf, where: str) -> None:
    shelf.put_aged(BLOB, days=400)
    inputs: Manifest | ExternalManifest = at(BLOB)
    if where == "pack":
        inputs = Manifest((), (Pack(BLOB, 1, "sha256:" + "a" * 64),))
    elif where == "by bucket":
        inputs = at(BLOB, bucket=STORE.bucket, etag='"e"')
    elif where == "beside":
        body = dump_document(dump_manifest(at(BLOB)))
        shelf.put_aged(LAYOUT.job("open").inputs, body)
        inputs = ExternalManifest(LAYOUT.job("open").inputs, document_digest(body))
    put_job(shelf, "open", inputs)
    before = shelf.objects

    assert collect(shelf) == Garbage()
    assert shelf.objects == before

    put_job(shelf, "open", inputs, ended_days_ago=1)
    assert [item.key for item in collect(shelf).blobs] == [BLOB]


def test_the_same_key_in_another_bucket_is_another_object(shelf: Shelf) -> None:
    shelf.put_aged(BLOB, days=31)
    put_job(shelf, "open", at(BLOB, bucket="elsewhere", etag='"e"'))
    assert [item.key for item in collect(shelf).blobs] == [BLOB]


@pytest.mark.parametrize(
    ("ended", "kept", "goes"),
    [
        (None, False, False),
        (None, True, False),
        (91, False, True),
        (91, True, False),
        (89, False, False),
    ],
    ids=["not ended", "not ended, kept", "expired", "expired, kept", "young"],
)
def test_a_job_goes_by_the_age_of_its_commit(
    shelf: Shelf,
    ended: float | None,
    kept: bool,
    goes: bool,
) -> None:
    put_job(shelf, "job", ended_days_ago=ended)
    if kept:
        shelf.put_aged(LAYOUT.job("job").keep, days=300)
    before = shelf.objects

    found = collect(shelf)

    assert [job.job_id for job in found.jobs] == (["job"] if goes else [])
    assert shelf.objects == ({} if goes else before)


def test_a_job_stays_while_another_one_needs_an_output_of_it(shelf: Shelf) -> None:
    output = put_job(shelf, "first", ended_days_ago=100)
    put_job(shelf, "unneeded", ended_days_ago=100)
    put_job(shelf, "second", at(output))

    assert [job.job_id for job in collect(shelf).jobs] == ["unneeded"]
    assert output in shelf.objects

    put_job(shelf, "second", at(output), ended_days_ago=1)
    assert [job.job_id for job in collect(shelf).jobs] == ["first"]


def test_a_damaged_commit_ends_nothing(shelf: Shelf) -> None:
    shelf.put_aged(BLOB, days=400)
    put_job(shelf, "job", at(BLOB))
    shelf.put_aged(LAYOUT.job("job").commit, b"{", days=400)
    assert collect(shelf) == Garbage()


def test_jobs_are_listed_after_what_may_go(shelf: Shelf) -> None:
    shelf.put_aged(BLOB, days=31)
    collect(shelf)
    lists = [key for method, key in shelf.calls if method == "list"]
    assert lists[-1] == LAYOUT.jobs_prefix
    assert LAYOUT.blobs_prefix in lists


@pytest.mark.parametrize("damage", ["spec", "newer spec", "inputs", "missing inputs"])
def test_nothing_goes_while_a_jobs_needs_cannot_be_read(shelf: Shelf, damage: str) -> None:
    shelf.put_aged(BLOB, days=400)
    put_job(shelf, "old", ended_days_ago=400)
    keys = LAYOUT.job("open")
    put_job(shelf, "open", ExternalManifest(keys.inputs, "sha256:" + "0" * 64))
    if damage == "inputs":
        shelf.put_aged(keys.inputs, b"{}")
    elif damage == "spec":
        shelf.put_aged(keys.spec, b"{")
    elif damage == "newer spec":
        shelf.put_aged(keys.spec, b'{"protocol": 2}')
    before = shelf.objects

    with pytest.raises(StagingError) as caught:
        collect(shelf)

    assert caught.value.code == (22 if damage == "inputs" else 20)
    assert "jobs/open/" in str(caught.value)
    assert f"delete {STORE.uri('lab/jobs/open/')}" in caught.value.hint
    assert shelf.objects == before


def test_a_dry_run_tells_the_same_and_deletes_nothing(shelf: Shelf) -> None:
    shelf.put_aged(BLOB, days=31)
    shelf.put_aged(LAYOUT.probe("0199e2a4-0000-7000-8000-000000000001"), days=2)
    put_job(shelf, "old", ended_days_ago=100)
    control = MemoryControl(shelf, [(OpenUpload(BLOB, "u", 7), NOW - timedelta(days=2))])
    before = shelf.objects

    would = collect(shelf, control, dry_run=True)

    assert shelf.objects == before
    assert len(control.uploads) == 1
    assert {method for method, _ in shelf.calls} <= {"list", "get", "head"}
    assert would == collect(shelf, control)
    assert (shelf.objects, control.uploads) == ({}, [])


def test_what_is_not_ours_stays(shelf: Shelf) -> None:
    keys = [
        *("blobs/" + "a" * 2, "elsewhere/jobs/x/commit.json", "lab2/blobs/" + BLOB[10:]),
        *("lab/blobs/aa/readme", "lab/blobs/ab/" + "a" * 64, "lab/probes/mine", "lab/other"),
        *("lab/references/hg38/1.json", "lab/jobs/loose", "lab/jobs/nothing/inputs.json"),
    ]
    for key in keys:
        shelf.put_aged(key, days=1000)
    assert collect(shelf) == Garbage()
    assert sorted(shelf.objects) == sorted(keys)


@pytest.mark.parametrize(
    ("job", "goes"),
    [("", True), ("gone", True), ("ended", True), ("open", False), ("kept", False)],
    ids=["a blob's", "no job's", "of a job that ended", "of one that has not", "of a kept one"],
)
def test_an_idle_upload_goes_unless_its_job_is_open_or_kept(
    shelf: Shelf,
    job: str,
    goes: bool,
) -> None:
    put_job(shelf, "open")
    put_job(shelf, "ended", ended_days_ago=1)
    put_job(shelf, "kept", ended_days_ago=1)
    shelf.put_aged(LAYOUT.job("kept").keep)
    key = LAYOUT.job(job).attempt("pod-1").out("big") if job else BLOB
    old, new = OpenUpload(key, "old", 7), OpenUpload(key, "new", 7)
    foreign = OpenUpload("other/big", "old", 7)
    days_ago = NOW - timedelta(days=2)
    control = MemoryControl(shelf, [(old, days_ago), (new, NOW), (foreign, days_ago)])

    assert collect(shelf, control).uploads == ((old,) if goes else ())
    assert [up for up, _ in control.uploads] == [*([] if goes else [old]), new, foreign]


def test_the_stores_clock_is_asked_again(shelf: Shelf) -> None:
    shelf.put_aged(BLOB, days=31)
    control = MemoryControl(shelf, fail=[StoreUnavailableError("no answer")])
    assert [item.key for item in collect(shelf, control).blobs] == [BLOB]


def test_the_next_gc_goes_on_where_one_was_stopped() -> None:
    whole = Shelf()
    put_job(whole, "old", ended_days_ago=100)
    deletes = len(whole.objects)
    for number in range(1, deletes + 1):
        shelf = Shelf(fail={("delete", number): RuntimeError("stopped here")})
        put_job(shelf, "old", ended_days_ago=100)
        with pytest.raises(RuntimeError, match="stopped here"):
            collect(shelf)
        left = set(shelf.objects)
        assert LAYOUT.job("old").commit in left, "it would count as running, for ever"
        assert LAYOUT.job("old").spec not in left or number == 1
        assert [job.job_id for job in collect(shelf).jobs] == ["old"]
        assert shelf.objects == {}


def test_a_job_that_is_kept_meanwhile_stays(shelf: Shelf) -> None:
    put_job(shelf, "old", ended_days_ago=100)
    keep = LAYOUT.job("old").keep
    found = collector(shelf)._find()
    shelf.put_aged(keep)
    assert collector(shelf)._remove(found).jobs == ()
    assert LAYOUT.job("old").spec in shelf.objects


def test_many_small_jobs_go_in_few_requests_and_in_order(shelf: Shelf) -> None:
    jobs = [f"old-{number:03}" for number in range(200)]
    for job in jobs:
        put_job(shelf, job, ended_days_ago=100)
    control = MemoryControl(shelf)

    assert {job.job_id for job in collect(shelf, control).jobs} == set(jobs)

    assert shelf.objects == {}
    assert len(control.deleted) == 2 * 4, "1400 objects, in two groups of four steps"
    order = [key for keys in control.deleted for key in keys]
    for job in jobs:
        keys = LAYOUT.job(job)
        mine = [key for key in order if key.startswith(f"{keys.root}/")]
        assert (mine[0], mine[-1]) == (keys.spec, keys.commit)


def test_a_large_job_goes_in_batches(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3runner.runner.gc._BATCH", 10)
    put_job(shelf, "old", ended_days_ago=100)
    for number in range(25):
        shelf.put_aged(LAYOUT.job("old").attempt("pod-1").out(f"d/{number}"), days=200)
    control = MemoryControl(shelf)

    assert [job.job_id for job in collect(shelf, control).jobs] == ["old"]

    assert shelf.objects == {}
    assert sorted(map(len, control.deleted)) == [1, 1, 2, 8, 10, 10]


@pytest.mark.parametrize("what", ["spec", "result", "output", "commit"])
def test_what_the_store_does_not_let_go_is_named_and_hinders_nothing_else(
    shelf: Shelf, what: str
) -> None:
    shelf.put_aged(BLOB, days=31)
    output = put_job(shelf, "stuck", ended_days_ago=100)
    put_job(shelf, "old", ended_days_ago=100)
    keys = LAYOUT.job("stuck")
    result = keys.attempt("pod-1").result
    stuck = {"spec": keys.spec, "result": result, "output": output, "commit": keys.commit}[what]
    denied = StoreAccessError("access denied (DeleteObjects)", target=STORE.uri(stuck))
    control = MemoryControl(shelf, keep={stuck: denied})

    with pytest.raises(StagingError) as caught:
        collect(shelf, control)

    assert caught.value.failures == (denied,)
    assert str(caught.value) == f"gc {STORE.uri(stuck)}: access denied (DeleteObjects)"
    assert {stuck, keys.commit} <= set(shelf.objects), "without a commit it would run again"
    assert all("/stuck/" in key for key in shelf.objects)

    control.keep.clear()
    assert [job.job_id for job in collect(shelf, control).jobs] == ["stuck"]
    assert shelf.objects == {}


def test_an_object_that_the_store_wants_to_delete_later_is_asked_for_again(shelf: Shelf) -> None:
    output = put_job(shelf, "old", ended_days_ago=100)
    busy = StoreUnavailableError("the store said SlowDown (DeleteObjects)")
    control = MemoryControl(shelf, keep={output: busy})
    retry = Retry(9.0, sleep=lambda _: control.keep.clear())

    found = Collector(patient(shelf), control, STORE, TIMES, retry).collect(dry_run=False)

    assert [job.job_id for job in found.jobs] == ["old"]
    assert shelf.objects == {}


def test_a_repeated_delete_does_not_hit_what_was_put_meanwhile() -> None:
    shelf = Shelf(lose=[("delete", 1)])
    shelf.put_aged(BLOB, days=31)
    found = shelf.head(BLOB)
    retry = Retry(9.0, sleep=lambda _: shelf.put_aged(BLOB, b"new"))
    store = patient(shelf)
    store._retry = retry
    assert not store.delete_unless_renewed(found)
    assert shelf.objects == {BLOB: b"new"}


def test_the_order_of_removal_is_spec_documents_rest_commit() -> None:
    keys = LAYOUT.job("j")
    attempt = keys.attempt("u")
    found = [keys.commit, attempt.out("manifest.json"), attempt.result, keys.spec, attempt.manifest]
    assert removal_steps(keys, found) == [
        [keys.spec],
        [attempt.result, attempt.manifest],
        [attempt.out("manifest.json")],
        [keys.commit],
    ]


def test_a_job_is_not_expired_at_the_very_moment() -> None:
    job = StoredJob("j", committed=NOW - timedelta(days=90))
    assert list(expired_jobs({"j": job}, NOW, 90 * DAY_S)) == []
    assert list(expired_jobs({"j": job}, NOW + timedelta(seconds=1), 90 * DAY_S)) == [job]


def submit(shelf: Shelf, source: Path) -> None:
    """Do what a head does: stage in, then store the spec that names what is staged."""
    tree = scan("in", str(source))
    cache = DigestCache(None, time.time_ns)
    store = patient(shelf)
    staged = stage_in(store, LAYOUT, [tree], cache, meter=Meter(), blob_ttl_s=TIMES.blob_s)
    job_id = secrets.token_hex(4)
    store.put_if_absent(LAYOUT.job(job_id).spec, spec(job_id=job_id, inputs=staged).dump())


def stored_before(shelf: Shelf, source: Path, *, days: float) -> str:
    """Let the input be there from a job that has gone since; return its key."""
    submit(shelf, source)
    (blob,) = [key for key in shelf.objects if key.startswith(LAYOUT.blobs_prefix)]
    body = shelf.objects[blob]
    shelf._objects().clear()
    shelf.put_aged(blob, body, days=days)
    shelf.calls.clear()
    return blob


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.write_bytes(b"input")
    return path


AGES = pytest.mark.parametrize("days", [1, 11, 29, 31, 400])
"""Reused; renewed although gc leaves it; the same, on the last day; renewed while gc wants it."""


@AGES
def test_a_job_that_is_submitted_while_gc_runs_has_its_inputs(source: Path, days: float) -> None:
    now = datetime.now(timezone.utc)  # stage-in goes by the head's clock
    rehearsal = Shelf()
    rehearsal.time = now
    stored_before(rehearsal, source, days=days)
    collect(rehearsal)
    for step, (method, key) in enumerate([*rehearsal.calls, ("end", "")]):
        if method == "delete" and rehearsal.calls[step - 1] == ("head", key):
            continue  # between look and delete nobody can tell: that is for fetch to report
        shelf = Shelf()
        shelf.time = now
        blob = stored_before(shelf, source, days=days)
        shelf.before[step] = partial(submit, shelf, source)
        collect(shelf)
        if step in shelf.before:
            submit(shelf, source)
        assert blob in shelf.objects, f"gone: submitted before gc's call {step} ({method})"


@AGES
def test_gc_that_runs_while_a_job_is_submitted_leaves_its_inputs(source: Path, days: float) -> None:
    now = datetime.now(timezone.utc)
    rehearsal = Shelf()
    rehearsal.time = now
    stored_before(rehearsal, source, days=days)
    submit(rehearsal, source)
    for step in range(len(rehearsal.calls)):
        shelf = Shelf()
        shelf.time = now
        blob = stored_before(shelf, source, days=days)
        shelf.before[step] = partial(collect, shelf)
        submit(shelf, source)
        assert shelf.before == {}
        assert blob in shelf.objects, f"gone: gc ran before call {step} of stage-in"


OUTPUT_AGES = pytest.mark.parametrize("days", [1, 29, 31, 89, 91, 400])
"""Referred to where it lies; put again although gc leaves the job; the same, while it goes."""


def output_stored_before(root: Path, *, days: float) -> tuple[Shelf, str]:
    """Let a job have ended so long ago; return the store and the URI of its output directory."""
    shelf = Shelf()
    shelf.time = datetime.now(timezone.utc) - timedelta(days=days)
    keys, work = LAYOUT.job("old"), root / secrets.token_hex(4)
    (work / "d").mkdir(parents=True)
    for name in ("a", "b"):
        (work / "d" / name).write_text(name)
    attempt = keys.attempt("pod-1")
    found = scan_outputs([Output("d")], str(work), [str(work)])
    tree = stage_out(shelf, attempt, found, declared_files={"d"}, meter=Meter())
    body = dump_document(dump_manifest(tree))
    result = Result("old", 1, "pod-1", Outcome.SUCCEEDED, manifest_digest=document_digest(body))
    commit = Commit("pod", Outcome.SUCCEEDED, "pod-1", document_digest(result.dump()), 1)
    for key, document in {
        keys.spec: spec(job_id="old").dump(),
        attempt.manifest: body,
        attempt.result: result.dump(),
        keys.commit: commit.dump(),
    }.items():
        shelf.put_aged(key, document)
    shelf.time = datetime.now(timezone.utc)
    shelf.calls.clear()
    return shelf, STORE.uri(attempt.out("d"))


def submit_output(shelf: Shelf, uri: str) -> None:
    """Do what a head does with an input by URI; one that has gone makes no job."""
    store = patient(shelf)
    try:
        found = RemoteSources(store, STORE).resolve("in", uri)
        (inputs,) = Renewal(store, LAYOUT, TIMES).put_again([found], Meter())
    except (InputError, StagingError):
        return
    store.put_if_absent(LAYOUT.job("next").spec, spec(job_id="next", inputs=inputs).dump())


def inputs_are_there(shelf: Shelf) -> bool:
    """Tell whether the job, if there is one, has all that its inputs name."""
    keys = LAYOUT.job("next")
    if keys.spec not in shelf.objects:
        return True
    inputs = Spec.load(shelf.objects[keys.spec], "").inputs
    assert isinstance(inputs, Manifest)
    assert inputs.entries
    return keys_named(inputs, STORE.bucket) <= set(shelf.objects)


@OUTPUT_AGES
def test_an_input_by_uri_is_there_wherever_its_job_is_submitted_during_gc(
    tmp_path: Path, days: float
) -> None:
    rehearsal, _ = output_stored_before(tmp_path, days=days)
    collect(rehearsal)
    for step in range(len(rehearsal.calls)):
        shelf, uri = output_stored_before(tmp_path, days=days)
        shelf.before[step] = partial(submit_output, shelf, uri)
        collect(shelf)
        assert shelf.before == {}
        assert inputs_are_there(shelf), f"gone: submitted before gc's call {step}"


@pytest.mark.parametrize(
    ("days", "later"),
    [
        *[(1, 0), (29, 0), (31, 0), (89, 0), (91, 0), (400, 0)],
        *[(1, 59), (29, 59), (31, 19), (89, 19), (91, 19), (400, 19)],
    ],
)
def test_an_input_by_uri_is_there_wherever_gc_runs_during_its_submission(
    tmp_path: Path, days: float, later: float
) -> None:
    """A stage-in may take two thirds of the time that gc leaves jobs (or, then, blobs) alone."""
    rehearsal, uri = output_stored_before(tmp_path, days=days)
    submit_output(rehearsal, uri)

    def collect_later(shelf: Shelf) -> None:
        shelf.time += timedelta(days=later)
        collect(shelf)

    for step in range(len(rehearsal.calls)):
        shelf, uri = output_stored_before(tmp_path, days=days)
        shelf.before[step] = partial(collect_later, shelf)
        submit_output(shelf, uri)
        assert shelf.before == {}
        assert inputs_are_there(shelf), f"gone: gc ran before call {step} of the submission"


def test_the_verb_shows_each_thing_that_would_go(shelf: Shelf) -> None:
    shelf.put_aged(BLOB, b"x" * 2048, days=31)
    put_job(shelf, "old", ended_days_ago=100)
    size = sum(len(body) for key, body in shelf.objects.items() if "/old/" in key)
    control = MemoryControl(shelf, [(OpenUpload(BLOB, "u", 7), NOW - timedelta(days=2))])

    document = document_of(collect(shelf, control, dry_run=True), STORE, dry_run=True)

    assert document == {
        "dry_run": True,
        "bytes": 2048 + 7 + size,
        "jobs": [{"job_id": "old", "uri": STORE.uri("lab/jobs/old/"), "objects": 7, "size": size}],
        "blobs": [{"uri": STORE.uri(BLOB), "size": 2048}],
        "uploads": [{"uri": STORE.uri(BLOB), "size": 7}],
        "probes": [],
        "marks": [],
    }
    lines = list(lines_of(document))
    assert lines[0].startswith(
        "s3runner: gc: would remove 1 job, 1 blob, 1 incomplete upload, 0 probes ("
    )
    assert f"  blob {STORE.uri(BLOB)} (2.0 KiB)" in lines
    assert len(lines) == 4
    assert len(list(lines_of({**document, "dry_run": False}))) == 1

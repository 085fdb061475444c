"""Inputs by the URI of another job's output: near that job's end they become blobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from attempts import JOB, finish, memory_store, open_attempt, patient, store_job
from fake_cluster import FakeCluster, Heard, head_of
from samples import STORE

from s3runner.errors import StagingError, StoreUnavailableError
from s3runner.model import Entry, Input, Job, Kind, Manifest, Output, StoredAt
from s3runner.runner.report import STAGE_IN, Silence
from s3runner.runner.sources import RemoteSources
from s3runner.runner.submission import plan, submit
from s3runner.staging.digest import PART
from s3runner.staging.download import materialise
from s3runner.staging.expiry import DEFAULT_LIFETIMES
from s3runner.staging.layout import StoreLayout
from s3runner.staging.renewing import Renewal
from s3runner.store.meter import Meter

LAYOUT = StoreLayout(STORE.prefix)
KEYS = JOB.attempt("pod-1")
LARGE = b"l" * PART + b"a second part"
TREE = {"d/a": b"alpha", "d/sub/b": b"beta", "d/large": LARGE}


class Aged:
    """A job that ended some days ago, with a file, and a directory with a pack."""

    def __init__(self, root: Path, days: float) -> None:
        self.age = timedelta(days=days)
        self.store = memory_store(clock=lambda: datetime.now(timezone.utc) - self.age)
        store_job(self.store, outputs=(Output("o"), Output("d")))
        attempt = open_attempt(root, self.store)
        for name, body in {"o": b"one", **TREE}.items():
            path = Path(attempt.work) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        assert finish(attempt) == 0
        self.store.calls.clear()
        self.age = timedelta()

    def blobs(self) -> list[str]:
        return sorted(key for key in self.store.objects if key.startswith(LAYOUT.blobs_prefix))

    def outputs(self) -> Manifest:
        return RemoteSources(self.store, STORE).resolve("in", STORE.uri(KEYS.out("d")))

    def renewed(self, *manifests: Manifest, meter: Meter | None = None) -> Sequence[Manifest]:
        renewal = Renewal(patient(self.store), LAYOUT, DEFAULT_LIFETIMES)
        return renewal.put_again(manifests, meter or Meter())


@pytest.fixture
def old(tmp_path: Path) -> Aged:
    return Aged(tmp_path, days=31)


def test_the_outputs_of_a_young_job_stay_where_they_are(tmp_path: Path) -> None:
    young = Aged(tmp_path, days=29)
    outputs = young.outputs()
    young.store.calls.clear()

    assert young.renewed(outputs) == (outputs,)

    assert [method for method, _ in young.store.calls] == ["head"], "one question a job"
    assert young.blobs() == []


def test_the_outputs_of_a_kept_job_stay_where_they_are(old: Aged) -> None:
    """Links lead to them, and gc leaves them alone."""
    old.store.put_if_absent(JOB.keep, b"{}")
    outputs = old.outputs()

    assert old.renewed(outputs) == (outputs,)

    assert old.blobs() == []


def test_those_of_an_old_one_become_blobs_with_the_same_bytes(tmp_path: Path, old: Aged) -> None:
    meter = Meter()

    (tree,) = old.renewed(old.outputs(), meter=meter)

    places = {entry.at.key for entry in tree.entries if entry.at is not None}
    assert sorted(places) == old.blobs()
    assert {pack.key for pack in tree.packs} < places
    assert meter.phase.bytes == sum(len(old.store.objects[key]) for key in old.blobs())
    for key in [key for key in old.store.objects if key.startswith(f"{JOB.root}/")]:
        old.store.delete(key)
    materialise(patient(old.store), tree, lambda path: f"{tmp_path}/{path}", meter=Meter())
    assert (tmp_path / "in" / "sub" / "b").read_bytes() == b"beta"
    assert (tmp_path / "in" / "large").read_bytes() == LARGE


def test_a_blob_that_is_there_is_not_put_again(old: Aged) -> None:
    first = old.renewed(old.outputs())
    old.store.calls.clear()

    assert old.renewed(old.outputs()) == first

    assert {method for method, _ in old.store.calls} == {"head", "get"}, "documents are read"


def test_what_is_not_an_output_of_ours_stays(old: Aged) -> None:
    foreign = StoredAt("data/x", bucket="elsewhere", etag='"e"')
    manifest = Manifest((Entry("in", Kind.FILE, 0o644, 0, 4, at=foreign),))

    assert old.renewed(manifest) == (manifest,)
    assert old.store.calls == []


@pytest.mark.parametrize("part", [0, 1])
def test_damaged_bytes_never_become_a_blob(old: Aged, part: int) -> None:
    outputs = old.outputs()
    damaged = bytearray(LARGE)
    damaged[part * PART] ^= 1
    old.store.damage(KEYS.out("d/large"), bytes(damaged))

    with pytest.raises(StagingError) as caught:
        old.renewed(outputs)

    assert caught.value.code == 22
    (large,) = [entry for entry in outputs.entries if entry.path == "in/large"]
    assert LAYOUT.blob(large.digest) not in old.blobs()


def test_an_answer_that_breaks_off_is_asked_for_again(tmp_path: Path) -> None:
    old = Aged(tmp_path, days=31)
    outputs = old.outputs()
    old.store._world.fail = {("get", 3): StoreUnavailableError("no answer")}

    old.renewed(outputs)

    assert len(old.blobs()) == 2


def test_an_output_that_went_meanwhile_is_a_missing_input(old: Aged) -> None:
    outputs = old.outputs()
    for key in old.store.objects:
        old.store.delete(key)

    with pytest.raises(StagingError) as caught:
        old.renewed(outputs)

    assert caught.value.code == 21
    assert "expired" in str(caught.value)


READ: dict[str, Callable[[str], str]] = {
    "a file": lambda _: STORE.uri(KEYS.out("o")),
    "a directory": lambda _: STORE.uri(KEYS.out("d")),
    "a member of a pack": lambda pack: STORE.uri(pack) + "#d/a",
}


@pytest.mark.parametrize("what", READ)
def test_a_submitted_job_names_blobs_and_the_plan_has_said_so(old: Aged, what: str) -> None:
    head, heard = head_of(old.store, FakeCluster()), Heard()
    uri = READ[what](KEYS.pack(0))
    job = Job(name="j", command="x", inputs=(Input("in", uri),))

    planned = plan(head, job)
    assert old.blobs() == [], "a plan writes nothing"
    submitted, _ = head.read_spec(submit(head, job, heard))

    assert isinstance(submitted.inputs, Manifest)
    places = {entry.at.key for entry in submitted.inputs.entries if entry.at is not None}
    assert sorted(places) == old.blobs()
    assert {item.uri for item in planned.uploads} == {STORE.uri(key) for key in places}
    assert all("end is near" in item.reason for item in planned.uploads)
    assert planned.elsewhere == (), "the pod fetches blobs"
    assert heard.phases[STAGE_IN].bytes == planned.upload_bytes
    again = plan(head, replace(job, name="k"))
    assert (again.uploads, len(again.present)) == ((), len(places))


def test_a_store_that_is_young_is_asked_once_for_several_inputs(tmp_path: Path) -> None:
    young = Aged(tmp_path, days=1)
    uris = (STORE.uri(KEYS.out("o")), STORE.uri(KEYS.out("d")))
    inputs = tuple(Input(f"in{number}", uri) for number, uri in enumerate(uris))

    submit(
        head_of(young.store, FakeCluster()), Job(name="j", command="x", inputs=inputs), Silence()
    )

    assert young.blobs() == []
    assert len([call for call in young.store.calls if call[0] == "head"]) == 1


def test_of_several_jobs_only_the_old_one_is_copied(old: Aged) -> None:
    key = LAYOUT.job("young").attempt("u").out("y")
    old.store._objects()[key] = (b"y", datetime.now(timezone.utc))
    entry = Entry("y", Kind.FILE, 0o644, 0, 1, "sha256:" + "a" * 64, at=StoredAt(key))
    young = Manifest((entry,))

    renewed = old.renewed(young, old.outputs())

    assert renewed[0] == young
    assert len(old.blobs()) == 2

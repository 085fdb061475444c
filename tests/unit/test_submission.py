from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from attempts import (
    memory_store,
    open_attempt,
    put,
    stored_result,
)
from fake_cluster import FakeCluster, Heard, head_of
from memory_store import MemoryStore
from samples import STORE

from s3runner.errors import (
    InputError,
    SettingsError,
    SpecError,
    StagingError,
    StoreAccessError,
)
from s3runner.model import Input, Job, Outcome, Output, Reference
from s3runner.runner.report import Silence
from s3runner.runner.submission import new_job_id, plan, submit
from s3runner.staging.layout import JobLayout, StoreLayout
from s3runner.staging.manifest import document_digest
from s3runner.staging.records import Commit, ExternalManifest, Generation, Spec
from s3runner.worker.fetch import fetch

READS = ("get", "head", "list")
ECHO = Job(name="echo", command="echo x > out", outputs=(Output("out"),))


def of(job_id: str) -> JobLayout:
    return StoreLayout(STORE.prefix).job(job_id)


def reading(directory: Path, count: int = 1) -> Job:
    """Return a job that reads a directory of so many files with long names."""
    source = directory / "data"
    source.mkdir()
    for number in range(count):
        (source / f"{number:0200}").write_text(str(number))
    return Job(name="reads", command="ls data", inputs=(Input("data", str(source)),))


def writes(calls: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [call for call in calls if call[0] not in READS]


def test_what_a_job_needs_is_there_before_the_job_is(tmp_path: Path) -> None:
    store = memory_store()
    cluster = FakeCluster()
    head = head_of(store, cluster, qualify=lambda: store.calls.append(("qualify", "")))

    job_id = submit(head, reading(tmp_path), Silence())

    keys = of(job_id)
    assert [call for call in writes(store.calls) if "/blobs/" not in call[1]] == [
        ("qualify", ""),
        ("put_if_absent", keys.spec),
        ("put_if_absent", keys.generation(1)),
        ("submit", keys.job_name(1)),
        ("put_if_absent", keys.generation_created(1)),
    ]
    blobs = [store.calls.index(call) for call in store.calls if call[0] == "put"]
    assert blobs
    assert store.calls.index(("qualify", "")) < min(blobs)
    assert max(blobs) < store.calls.index(("put_if_absent", keys.spec))


def test_the_documents_name_each_other(tmp_path: Path) -> None:
    store = memory_store()
    cluster = FakeCluster()
    heard = Heard()

    job_id = submit(head_of(store, cluster), reading(tmp_path), heard)

    keys = of(job_id)
    digest = document_digest(store.objects[keys.spec])
    generation = Generation.load(store.objects[keys.generation(1)], "")
    assert (generation.number, generation.job_name) == (1, keys.job_name(1))
    assert generation.spec_digest == digest
    assert generation.stage_in is not None
    assert generation.stage_in.files == 1
    submitted = cluster.jobs[keys.job_name(1)]
    assert submitted["metadata"]["annotations"]["s3runner/spec-digest"] == digest
    created = json.loads(store.objects[keys.generation_created(1)])
    assert created["job_uid"] == f"uid-of-{keys.job_name(1)}"
    assert heard.states == ["staged"]


def test_the_id_is_told_when_the_spec_is_stored_and_not_before(tmp_path: Path) -> None:
    store = memory_store()
    calls: list[tuple[str, str]] = []
    heard = Heard(on_job_id=lambda _: calls.extend(writes(store.calls)))

    job_id = submit(head_of(store, FakeCluster()), reading(tmp_path), heard)

    assert heard.job_ids == [job_id]
    assert calls[-1] == ("put_if_absent", of(job_id).spec)


def test_a_spec_that_cannot_be_stored_makes_no_job() -> None:
    store = memory_store(fail={("put_if_absent", 1): StoreAccessError("denied")})
    heard = Heard()

    with pytest.raises(StoreAccessError):
        submit(head_of(store, FakeCluster()), ECHO, heard)

    assert heard.job_ids == []
    assert [call for call in store.calls if call[0] == "submit"] == []


@pytest.mark.parametrize("number", [1, 2, 3], ids=["spec", "generation", "created"])
def test_a_lost_answer_reads_back_as_ours(number: int) -> None:
    store = memory_store(lose=[("put_if_absent", number)])
    cluster = FakeCluster()

    job_id = submit(head_of(store, cluster), ECHO, Silence())

    assert list(cluster.jobs) == [of(job_id).job_name(1)]


class Occupied(MemoryStore):
    """A store in which somebody else's document always comes first."""

    def put_if_absent(self, key: str, body: bytes) -> bool:
        super().put_if_absent(key, b'{"protocol":1}')
        return super().put_if_absent(key, body)


def test_anothers_document_in_the_specs_place_stops_the_job() -> None:
    store = Occupied(STORE.bucket)
    cluster = FakeCluster()
    heard = Heard()

    with pytest.raises(SpecError, match="there already"):
        submit(head_of(store, cluster), ECHO, heard)

    assert (heard.job_ids, cluster.jobs) == ([], {})


def test_the_spec_knows_which_inputs_came_from_where_on_this_disk(tmp_path: Path) -> None:
    """Also below a directory whose name is no text."""
    store = memory_store()
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(odd)
    Path(odd, "here").write_text("x")
    put(store, "there", b"x")
    inputs = (Input("a/here", f"{odd}/here"), Input("b", "s3://runs/there"))

    job_id = submit(
        head_of(store, FakeCluster()), Job(name="j", command="x", inputs=inputs), Silence()
    )

    spec = Spec.load(store.objects[of(job_id).spec], "")
    assert spec.sources == {"a/here": f"{odd}/here"}


def test_a_small_manifest_stands_in_the_spec(tmp_path: Path) -> None:
    store = memory_store()

    job_id = submit(head_of(store, FakeCluster()), reading(tmp_path), Silence())

    assert of(job_id).inputs not in store.objects


def test_a_large_manifest_lies_beside_the_spec_and_is_fetched_from_there(tmp_path: Path) -> None:
    store = memory_store()

    job_id = submit(head_of(store, FakeCluster()), reading(tmp_path, 200), Silence())

    keys = of(job_id)
    body = store.objects[keys.inputs]
    assert len(body) >= 64 * 1024
    assert len(store.objects[keys.spec]) < 4096
    spec = Spec.load(store.objects[keys.spec], "")
    assert spec.inputs == ExternalManifest(keys.inputs, document_digest(body))
    order = [key for _, key in writes(store.calls)]
    assert order.index(keys.inputs) < order.index(keys.spec)
    attempt = open_attempt(tmp_path, store, job_id=job_id)
    assert fetch(attempt) == 0
    assert (Path(attempt.work) / "data" / f"{199:0200}").read_text() == "199"


def test_a_damaged_large_manifest_is_an_integrity_failure(tmp_path: Path) -> None:
    store = memory_store()
    job_id = submit(head_of(store, FakeCluster()), reading(tmp_path, 200), Silence())
    key = of(job_id).inputs
    store.damage(key, store.objects[key].replace(b'"mode":420', b'"mode":511', 1))
    attempt = open_attempt(tmp_path, store, job_id=job_id)

    assert fetch(attempt) == 22
    assert stored_result(store, attempt).outcome is Outcome.INTEGRITY_FAILED


def test_every_input_that_cannot_be_had_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    store = memory_store()
    gone = [Input(name, str(tmp_path / name)) for name in ("first", "second")]
    remote = Input("third", "s3://runs/not/there")
    wanted = Job(name="j", command="x", inputs=(*gone, remote))

    with pytest.raises(StagingError) as raised:
        submit(head_of(store, FakeCluster()), wanted, Silence())

    assert len(raised.value.failures) == 3
    assert all(name in str(raised.value) for name in ("first", "second", "s3://runs/not/there"))
    assert writes(store.calls) == []


def test_a_store_that_is_refused_gets_nothing(tmp_path: Path) -> None:
    store = memory_store()

    def refuse() -> None:
        raise StoreAccessError("this store does not keep conditional writes")

    with pytest.raises(StoreAccessError):
        submit(head_of(store, FakeCluster(), refuse), reading(tmp_path), Silence())

    assert store.objects == {}


def test_what_no_job_object_can_express_is_refused_before_anything_goes_up(tmp_path: Path) -> None:
    store = memory_store()
    hides = Job(
        name="j", command="x", inputs=(Input("/usr/lib/x", str(tmp_path)),), outputs=(Output("o"),)
    )

    with pytest.raises(SettingsError):
        submit(head_of(store, FakeCluster()), hides, Silence())

    assert store.calls == []


def test_a_job_that_is_ended_while_it_is_made_is_deleted() -> None:
    """Another head may commit (a cancel) between the spec and the create."""
    store = memory_store()
    end = Commit("head", Outcome.CANCELLED, None, None, 1).dump()
    cluster = FakeCluster(on_submit=lambda name: put(store, of(name[:-3]).commit, end))

    job_id = submit(head_of(store, cluster), ECHO, Silence())

    assert store.calls[-1] == ("delete", of(job_id).job_name(1))


def test_two_submissions_share_their_inputs_and_nothing_else(tmp_path: Path) -> None:
    store = memory_store()
    wanted = reading(tmp_path, 3)

    first = submit(head_of(store, FakeCluster()), wanted, Silence())
    blobs = {key for key in store.objects if "/blobs/" in key}
    second = submit(head_of(store, FakeCluster()), wanted, Silence())

    assert first != second
    assert {key for key in store.objects if "/blobs/" in key} == blobs
    assert len([call for call in store.calls if call[0] == "put"]) == len(blobs)


def test_job_ids_are_of_version_7_and_sort_by_time() -> None:
    ids = [new_job_id(clock_ms) for clock_ms in (0, 1, 1_700_000_000_000, 1_700_000_000_001)]

    assert ids == sorted(ids)
    assert {(job_id[14], job_id[19] in "89ab") for job_id in ids} == {("7", True)}
    assert len({new_job_id(5) for _ in range(100)}) == 100
    assert abs(int(new_job_id().replace("-", "")[:12], 16) - time.time() * 1000) < 60_000


def test_plan_writes_nothing_and_tells_what_submit_will_do(tmp_path: Path) -> None:
    store = memory_store()
    cluster = FakeCluster()
    wanted = reading(tmp_path, 3)

    planned = plan(head_of(store, cluster), wanted)

    assert writes(store.calls) == []
    assert cluster.jobs == {}
    heard = Heard()
    submit(head_of(store, cluster), wanted, heard)
    staged = heard.phases["stage_in"]
    assert {item.uri for item in planned.uploads} == {
        STORE.uri(key) for key in store.objects if "/blobs/" in key
    }
    assert planned.requests == staged.requests
    again = plan(head_of(store, cluster), wanted)
    assert (again.uploads, len(again.present)) == ((), len(planned.uploads))


def test_references_are_resolved_like_inputs_and_named_in_the_spec() -> None:
    store = memory_store()
    put(store, "refs/hg/genome.fa", b"ACGT")
    references = (
        Reference("hg", "s3://runs/refs/hg/"),
        Reference("one", "s3://runs/refs/hg/genome.fa", "here/g.fa"),
    )

    job_id = submit(
        head_of(store, FakeCluster()), Job(name="j", command="x", references=references), Silence()
    )

    spec = Spec.load(store.objects[of(job_id).spec], "")
    assert spec.references == {
        "hg": "/s3runner/references/hg",
        "one": "/s3runner/work/here/g.fa",
    }
    assert not isinstance(spec.inputs, ExternalManifest)
    assert {entry.path for entry in spec.inputs.entries} == {
        "/s3runner/references/hg",
        "/s3runner/references/hg/genome.fa",
        "here/g.fa",
    }


def test_a_missing_input_has_the_input_errors_code(tmp_path: Path) -> None:
    wanted = Job(name="j", command="x", inputs=(Input("a", str(tmp_path / "gone")),))

    with pytest.raises(StagingError) as raised:
        submit(head_of(memory_store(), FakeCluster()), wanted, Silence())

    assert raised.value.code == InputError.code

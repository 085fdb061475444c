"""A staged input that is gone from the store when a pod wants it: it is put again, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attempts import finish, memory_store, open_attempt
from fake_cluster import FakeCluster, Heard, head_of, job, pod
from memory_store import MemoryStore
from samples import STORE

from s3runner.cluster.protocol import Observation
from s3runner.errors import StagingError, StoreAccessError
from s3runner.model import Input, Job, Outcome
from s3runner.runner.follow import wait
from s3runner.runner.report import JobEnd, Silence
from s3runner.runner.submission import submit
from s3runner.staging.layout import StoreLayout
from s3runner.staging.records import Generation
from s3runner.worker.attempt import Attempt
from s3runner.worker.fetch import fetch

LAYOUT = StoreLayout(STORE.prefix)
LARGE = 1024 * 1024 + 5
FAILED = Observation(job("Failed", "PodFailurePolicy"), (pod("pod-1", fetch=21),))
AGAIN = Observation(job("Failed", "PodFailurePolicy"), (pod("pod-2", fetch=21),))
DONE = Observation(job("Complete"), (pod("pod-2", stager=0),))


def inputs(directory: Path) -> Job:
    """Return a job with a large file, two small ones that share a pack, and a tree."""
    (directory / "large").write_bytes(b"l" * LARGE)
    for name in ("small-1", "small-2"):
        (directory / name).write_text(name)
    tree = directory / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "large").write_bytes(b"t" * LARGE)
    for number in range(300):
        (tree / "deep" / f"with-a-long-name-{number:0150}").write_text(str(number))
    names = ("large", "small-1", "small-2", "tree")
    wanted = tuple(Input(f"in/{name}", str(directory / name)) for name in names)
    return Job(name="reads", command="x", inputs=wanted)


def blobs(store: MemoryStore) -> list[str]:
    return [key for key in store.objects if key.startswith(LAYOUT.blobs_prefix)]


def lose(store: MemoryStore, keys: list[str]) -> None:
    for key in keys:
        store.delete(key)


def submitted(
    directory: Path, store: MemoryStore, asked: Job
) -> tuple[str, Callable[..., Attempt]]:
    """Submit; return the job's id and how its pods are opened, the second one's number is 2."""
    job_id = submit(head_of(store, FakeCluster()), asked, Silence())

    def open_pod(number: int = 1) -> Attempt:
        found = open_attempt(directory, store, job_id=job_id, uid=f"pod-{number}")
        return Attempt(**{**vars(found), "generation_number": number})

    return job_id, open_pod


def generation(store: MemoryStore, job_id: str, number: int) -> Generation:
    return Generation.load(store.objects[LAYOUT.job(job_id).generation(number)], "")


def follow(
    store: MemoryStore, job_id: str, *seen: Observation, then: Callable[[], object] | None = None
) -> tuple[JobEnd, Heard]:
    heard = Heard()
    cluster = FakeCluster(*seen, meanwhile=[then] if then is not None else [])
    return wait(head_of(store, cluster), job_id, heard), heard


@pytest.mark.parametrize("lost", ["large", "all", "packs"])
def test_a_lost_input_is_put_again_and_the_job_succeeds(tmp_path: Path, lost: str) -> None:
    store = memory_store()
    job_id, open_pod = submitted(tmp_path, store, inputs(tmp_path))
    everything = blobs(store)
    large = {key for key in everything if len(store.objects[key]) == LARGE}
    chosen = {"all": set(everything), "large": large, "packs": set(everything) - large}[lost]
    assert chosen
    (tmp_path / "tree" / "came later").write_text("no matter")
    lose(store, sorted(chosen))
    assert fetch(open_pod()) == 21
    brought: list[int] = []

    def run() -> None:
        second = open_pod(2)
        brought.append(fetch(second))
        work = Path(second.work) / "in"
        assert (work / "large").read_bytes() == b"l" * LARGE
        assert (work / "small-2").read_text() == "small-2"
        assert len(list((work / "tree" / "deep").iterdir())) == 301
        finish(second)

    # the new Job is seen once before its pod has run
    end, heard = follow(store, job_id, FAILED, Observation(job()), DONE, then=run)

    assert (brought, end.outcome, end.generation) == ([0], Outcome.SUCCEEDED, 2)
    assert sorted(blobs(store)) == sorted(everything)
    assert generation(store, job_id, 2).spent == {"input_failed": 1}
    assert [note.split(" ", 1)[1] for note in heard.notes] == [
        "is gone from the store: stage-in once more"
    ]


def changed(directory: Path) -> str:
    (directory / "large").write_bytes(b"L" * LARGE)
    return str(directory / "large")


def shorter(directory: Path) -> str:
    (directory / "large").write_bytes(b"l")
    return str(directory / "large")


def removed(directory: Path) -> str:
    (directory / "large").unlink()
    return str(directory / "large")


def removed_below(directory: Path) -> str:
    (directory / "tree" / "deep" / "large").unlink()
    return "in/tree/deep/large"


@pytest.mark.parametrize("happens", [changed, shorter, removed, removed_below])
def test_a_source_that_is_not_what_it_was_ends_the_job_by_name(
    tmp_path: Path, happens: Callable[[Path], str]
) -> None:
    store = memory_store()
    job_id, open_pod = submitted(tmp_path, store, inputs(tmp_path))
    lose(store, blobs(store))
    assert fetch(open_pod()) == 21
    name = happens(tmp_path)

    end, _ = follow(store, job_id, FAILED)

    assert (end.outcome, end.code, end.generation) == (Outcome.INPUT_FAILED, 21, 1)
    assert end.error is not None
    assert (end.error["operation"], end.error["source"]) == ("stage-in", name)
    assert "submit the job again" in str(end.error["hint"])
    assert blobs(store) == []
    assert LAYOUT.job(job_id).generation_created(2) not in store.objects


def test_an_input_that_is_lost_again_ends_the_job(tmp_path: Path) -> None:
    store = memory_store()
    job_id, open_pod = submitted(tmp_path, store, inputs(tmp_path))
    lose(store, blobs(store))
    assert fetch(open_pod()) == 21

    def lose_again() -> None:
        lose(store, blobs(store))
        assert fetch(open_pod(2)) == 21

    end, _ = follow(store, job_id, FAILED, Observation(job()), AGAIN, then=lose_again)

    assert (end.outcome, end.generation) == (Outcome.INPUT_FAILED, 2)
    assert generation(store, job_id, 3).spent == {"input_failed": 2}
    assert blobs(store) == []


def test_an_input_that_was_never_ours_is_not_staged_again(tmp_path: Path) -> None:
    store = memory_store()
    key = "elsewhere/x"
    store.put(key, lambda: iter((b"x",)), size=1, part_size=1)
    asked = Job(name="j", command="x", inputs=(Input("x", f"s3://{STORE.bucket}/{key}"),))
    job_id, open_pod = submitted(tmp_path, store, asked)
    store.delete(key)
    assert fetch(open_pod()) == 21

    end, heard = follow(store, job_id, FAILED)

    assert (end.outcome, heard.notes) == (Outcome.INPUT_FAILED, [])
    assert LAYOUT.job(job_id).generation_created(2) not in store.objects


def test_a_spec_that_names_no_sources_ends_as_before(tmp_path: Path) -> None:
    """An older head may have stored it, or the blob is another job's output put again."""
    store = memory_store()
    job_id, open_pod = submitted(tmp_path, store, inputs(tmp_path))
    lost = blobs(store)
    lose(store, lost)
    assert fetch(open_pod()) == 21
    key = LAYOUT.job(job_id).spec
    named = store.objects[key]
    start = named.index(b'"sources":{')
    store.damage(key, named[:start] + b'"sources":{' + named[named.index(b"}", start) :])

    end, _ = follow(store, job_id, FAILED)

    assert end.outcome is Outcome.INPUT_FAILED
    assert end.error is not None
    assert end.error["source"] in {STORE.uri(key) for key in lost}


def test_a_store_that_refuses_now_is_no_end_of_the_job(tmp_path: Path) -> None:
    denied = StoreAccessError("denied")
    refused: dict[tuple[str, int], Exception] = {("put", 0): denied}
    store = memory_store(fail=refused)
    job_id, open_pod = submitted(tmp_path, store, inputs(tmp_path))
    lose(store, blobs(store))
    assert fetch(open_pod()) == 21
    puts = sum(call == "put" for call, _ in store.calls)
    refused.update({("put", puts + number): denied for number in range(1, 20)})

    with pytest.raises(StagingError) as raised:
        follow(store, job_id, FAILED)

    assert raised.value.code == denied.code

    assert LAYOUT.job(job_id).generation(2) not in store.objects

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from attempts import (
    JOB,
    committed,
    end_of,
    finish,
    in_thread,
    memory_store,
    open_attempt,
    play_shim,
    put,
    store_job,
    stored_result,
)
from memory_store import Call, MemoryStore

from s3runner.errors import SpecError, StoreAccessError, StoreUnavailableError
from s3runner.model import POD_FINAL, Outcome, Output, code_of
from s3runner.staging.manifest import document_digest
from s3runner.staging.records import Commit
from s3runner.worker.attempt import Attempt
from s3runner.worker.commit import publish, read_commit
from s3runner.worker.fetch import fetch
from s3runner.worker.stager import stage


@pytest.fixture(autouse=True)
def _keep_the_signal_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def an_attempt(root: Path, store: MemoryStore, **job: object) -> Attempt:
    store_job(store, **job)  # type: ignore[arg-type]
    return open_attempt(root, store)


@pytest.mark.parametrize("outcome", list(Outcome), ids=lambda outcome: outcome.value)
def test_a_pod_commits_the_final_outcomes_and_no_others(tmp_path: Path, outcome: Outcome) -> None:
    store = memory_store()
    attempt = an_attempt(tmp_path, store)

    code = publish(attempt, end_of(attempt, outcome))

    expected = code_of(outcome)
    assert code == (70 if expected is None else expected)
    assert (committed(store) is not None) == (outcome in POD_FINAL)
    assert stored_result(store, attempt).outcome is outcome


def test_the_generation_decides_what_is_final(tmp_path: Path) -> None:
    store = memory_store()
    attempt = an_attempt(tmp_path, store, final=(Outcome.OUT_OF_MEMORY,))

    assert publish(attempt, end_of(attempt, Outcome.TOOL_FAILED)) == 10
    assert committed(store) is None
    assert publish(attempt, end_of(attempt, Outcome.OUT_OF_MEMORY)) == 11
    assert committed(store) is not None


@pytest.mark.parametrize("how", ["not final", "not by a pod"])
def test_without_a_commit_the_code_is_never_0(tmp_path: Path, how: str) -> None:
    store = memory_store()
    final = (Outcome.SUCCEEDED,) if how == "not by a pod" else ()
    attempt = an_attempt(tmp_path, store, final=final)

    code = publish(attempt, end_of(attempt, Outcome.SUCCEEDED), may_be_final=how == "not final")

    assert code == 70
    assert committed(store) is None


def test_the_commit_names_the_attempt_and_the_digest_of_its_result(tmp_path: Path) -> None:
    store = memory_store()
    attempt = an_attempt(tmp_path, store)

    publish(attempt, end_of(attempt, Outcome.TOOL_FAILED, tool_exit_code=3))

    digest = document_digest(store.objects[attempt.keys.result])
    assert committed(store) == Commit("pod", Outcome.TOOL_FAILED, "pod-1", digest, 1)


def test_the_result_is_stored_before_the_commit(tmp_path: Path) -> None:
    store = memory_store()
    attempt = an_attempt(tmp_path, store)

    publish(attempt, end_of(attempt, Outcome.SUCCEEDED))

    assert store.calls == [
        ("put", attempt.keys.result),
        ("get", JOB.generation(1)),
        ("put_if_absent", JOB.commit),
    ]


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.TOOL_FAILED])
def test_our_own_commit_whose_answer_was_lost_is_still_ours(
    tmp_path: Path, outcome: Outcome
) -> None:
    store = memory_store(lose=[("put_if_absent", 1)])
    attempt = an_attempt(tmp_path, store)

    assert publish(attempt, end_of(attempt, outcome)) == code_of(outcome)

    assert [call for call in store.calls if call[1] == JOB.commit] == [
        ("put_if_absent", JOB.commit),
        ("put_if_absent", JOB.commit),
        ("get", JOB.commit),
    ]


def test_a_result_whose_answer_was_lost_is_stored_again(tmp_path: Path) -> None:
    store = memory_store(lose=[("put", 1)])
    attempt = an_attempt(tmp_path, store)

    assert publish(attempt, end_of(attempt, Outcome.TOOL_FAILED)) == 10


def test_who_finds_anothers_commit_exits_0_and_changes_nothing(tmp_path: Path) -> None:
    store = memory_store()
    first = an_attempt(tmp_path, store)
    second = open_attempt(tmp_path, store, uid="pod-2")
    publish(first, end_of(first, Outcome.SUCCEEDED))
    before = store.objects[JOB.commit]

    assert publish(second, end_of(second, Outcome.TOOL_FAILED)) == 0

    assert store.objects[JOB.commit] == before


def test_another_result_of_the_same_attempt_is_not_ours(tmp_path: Path) -> None:
    """A container that is started again commits nothing if what it did differs."""
    store = memory_store()
    attempt = an_attempt(tmp_path, store)
    publish(attempt, end_of(attempt, Outcome.TOOL_FAILED, tool_exit_code=1))
    before = store.objects[JOB.commit]

    assert publish(attempt, end_of(attempt, Outcome.TOOL_FAILED, tool_exit_code=2)) == 0

    assert store.objects[JOB.commit] == before


@pytest.mark.parametrize(
    "error", [StoreAccessError("denied"), StoreUnavailableError("no answer")], ids=repr
)
def test_a_commit_that_cannot_be_stored_is_an_error_and_no_code(
    tmp_path: Path, error: Exception
) -> None:
    store = memory_store(fail={("put_if_absent", number): error for number in range(1, 200)})
    attempt = an_attempt(tmp_path, store)

    with pytest.raises(type(error)):
        publish(attempt, end_of(attempt, Outcome.SUCCEEDED))


def test_no_commit_is_tried_when_the_result_cannot_be_stored(tmp_path: Path) -> None:
    store = memory_store(fail={("put", 1): StoreAccessError("denied")})
    attempt = an_attempt(tmp_path, store)

    with pytest.raises(StoreAccessError):
        publish(attempt, end_of(attempt, Outcome.SUCCEEDED))

    assert committed(store) is None


def test_a_damaged_commit_is_no_commit_and_no_absence(tmp_path: Path) -> None:
    store = memory_store()
    attempt = an_attempt(tmp_path, store)
    put(store, JOB.commit, b'{"protocol":1,"outcome":"succ')

    with pytest.raises(SpecError, match="damaged"):
        read_commit(attempt)


def write_output(attempt: Attempt) -> None:
    (Path(attempt.work) / "out.bam").write_text("aligned")
    (Path(attempt.work) / "qc").mkdir()
    (Path(attempt.work) / "qc" / "a.txt").write_text("a")


@pytest.mark.parametrize(
    ("exit_code", "code"), [pytest.param(0, 0, id="the tool succeeds"), pytest.param(3, 10)]
)
def test_a_whole_attempt_writes_below_itself_and_the_commit(
    tmp_path: Path, exit_code: int, code: int
) -> None:
    store = memory_store()
    attempt = an_attempt(tmp_path, store)

    assert fetch(attempt) == 0
    shim = in_thread(
        partial(play_shim, attempt, exit_code=exit_code, work=partial(write_output, attempt))
    )
    assert stage(attempt) == code

    shim.join()
    written = [key for method, key in store.calls if method.startswith(("put", "delete"))]
    assert written[-1] == JOB.commit
    assert all(key.startswith(f"{attempt.keys.root}/") for key in written[:-1])
    assert written[-2] == attempt.keys.result
    assert {attempt.keys.out("out.bam"), attempt.keys.rest, attempt.keys.manifest} <= set(written)
    result = stored_result(store, attempt)
    assert result.tool_exit_code == exit_code
    assert result.manifest_digest == document_digest(store.objects[attempt.keys.manifest])
    assert set(result.phases) == {"fetch", "run", "stage_out"}


def test_a_missing_output_is_committed_as_such_and_named(tmp_path: Path) -> None:
    store = memory_store()
    attempt = an_attempt(tmp_path, store, outputs=(Output("gone.txt"),))

    assert finish(attempt) == 26

    commit = committed(store)
    assert commit is not None
    assert commit.outcome is Outcome.OUTPUT_MISSING
    error = stored_result(store, attempt).error
    assert error is not None
    assert "gone.txt" in error["reason"]


def test_a_stager_of_a_superseded_attempt_does_nothing(tmp_path: Path) -> None:
    store = memory_store()
    attempt = an_attempt(tmp_path, store)
    Path(attempt.control_file("superseded")).touch()

    assert stage(attempt) == 0
    assert store.calls == []


def test_a_stager_that_finds_a_commit_after_the_tool_stages_nothing_out(tmp_path: Path) -> None:
    store = memory_store()
    attempt = an_attempt(tmp_path, store, outputs=())
    fetch(attempt)

    def meanwhile() -> None:
        other = open_attempt(tmp_path, store, uid="pod-2")
        finish(other)
        store.calls.clear()

    shim = in_thread(partial(play_shim, attempt, work=meanwhile))
    assert stage(attempt) == 0

    shim.join()
    assert [call for call in store.calls if call[0] != "get"] == []


def test_a_commit_whose_every_answer_is_lost_still_names_the_result_that_is_there(
    tmp_path: Path,
) -> None:
    """The pod knows no better than to fail; the head finds a commit that fits its result."""
    store = memory_store(lose=[("put_if_absent", number) for number in range(1, 200)])
    attempt = an_attempt(tmp_path, store, outputs=())
    fetch(attempt)
    shim = in_thread(partial(play_shim, attempt, work=lambda: None))

    with pytest.raises(StoreUnavailableError):
        stage(attempt)

    shim.join()
    commit = committed(store)
    assert commit is not None
    assert commit.result_digest == document_digest(store.objects[attempt.keys.result])


@pytest.mark.parametrize(
    ("call", "key"),
    [
        pytest.param(("get", 1), JOB.commit, id="the commit cannot be looked at"),
        pytest.param(("put", 1), JOB.attempt("pod-1").rest, id="the streams cannot be stored"),
        pytest.param(("put", 2), JOB.attempt("pod-1").manifest, id="nor the manifest"),
    ],
)
def test_a_store_that_denies_stage_out_is_the_attempts_result(
    tmp_path: Path, call: Call, key: str
) -> None:
    store = memory_store()
    attempt = an_attempt(tmp_path, store, outputs=())
    fetch(attempt)
    store.calls.clear()
    store._world.fail = {call: StoreAccessError("access denied")}
    shim = in_thread(partial(play_shim, attempt, work=lambda: None))

    assert stage(attempt) == 23

    shim.join()
    assert (call[0], key) in store.calls
    assert stored_result(store, attempt).outcome is Outcome.ACCESS_DENIED
    assert committed(store) is None


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"seconds": "x"}', '{"seconds": NaN}', '{"bytes": 1e999}', "[" * 4000]
)
def test_a_tool_that_spoils_the_fetch_phases_cost_fails_nothing(tmp_path: Path, text: str) -> None:
    store = memory_store()
    attempt = an_attempt(tmp_path, store, outputs=())
    fetch(attempt)

    def spoil() -> None:
        Path(attempt.control_file("fetched.json")).write_text(text)

    shim = in_thread(partial(play_shim, attempt, work=spoil))
    assert stage(attempt) == 0

    shim.join()
    assert set(stored_result(store, attempt).phases) == {"run", "stage_out"}

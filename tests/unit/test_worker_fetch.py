from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
from attempts import (
    JOB,
    committed,
    end_of,
    memory_store,
    open_attempt,
    patient,
    put,
    store_job,
    stored_result,
)
from hostile import NAMES
from memory_store import MemoryStore
from samples import STORE

from s3runner.errors import StoreAccessError
from s3runner.model import POD_FINAL, Destination, Entry, Kind, Manifest, Outcome, StoredAt
from s3runner.pod_model import KubernetesPlace, PodCredentials, PodShape
from s3runner.staging.digest_cache import DigestCache
from s3runner.staging.layout import StoreLayout
from s3runner.staging.manifest import load_manifest, parse_document
from s3runner.staging.scan import scan
from s3runner.staging.upload import stage_in
from s3runner.store.meter import Meter
from s3runner.store.retrying import read
from s3runner.worker.attempt import Attempt
from s3runner.worker.commit import publish
from s3runner.worker.fetch import command_script, fetch

SHOW_WORDS = r"import os,sys; sys.stdout.buffer.write(b'\0'.join(map(os.fsencode, sys.argv[1:])))"


def staged(root: Path, store: MemoryStore) -> Manifest:
    """Stage in one large file, which is a blob of its own, and a directory, which is a pack."""
    source = root / "source"
    (source / "dir").mkdir(parents=True)
    (source / "large").write_bytes(b"l" * (1024**2 + 1))
    (source / "dir" / "a").write_text("alpha")
    (source / "dir" / "b").write_text("beta")
    trees = [scan(name, str(source / name)) for name in ("large", "dir")]
    cache = DigestCache(None, time.time_ns)
    return stage_in(patient(store), StoreLayout(STORE.prefix), trees, cache, meter=Meter())


def with_inputs(
    root: Path, store: MemoryStore, final: tuple[Outcome, ...] = POD_FINAL, **job: object
) -> Attempt:
    store_job(store, final=final, inputs=staged(root, store), **job)
    return open_attempt(root, store)


def blob_of(attempt: Attempt, path: str) -> str:
    entry = next(entry for entry in attempt.inputs.entries if entry.path == path)
    assert entry.at is not None
    return entry.at.key


def test_the_inputs_and_all_that_shim_and_stager_need_are_laid_out(tmp_path: Path) -> None:
    attempt = with_inputs(tmp_path, memory_store(), command="sort in")

    assert fetch(attempt) == 0

    work = Path(attempt.work)
    assert (work / "large").stat().st_size == 1024**2 + 1
    assert (work / "dir" / "b").read_text() == "beta"
    assert Path(attempt.control_file("command")).read_text() == "sort in\n"
    assert Path(attempt.control_file("tool_shim.sh")).read_text().startswith("#!/bin/sh")
    assert '"files": 3' in Path(attempt.control_file("fetched.json")).read_text()
    assert not Path(attempt.control_file("superseded")).exists()


def test_the_fifos_are_for_everyone_whatever_the_umask(tmp_path: Path) -> None:
    attempt = with_inputs(tmp_path, memory_store())
    before = os.umask(0o077)
    try:
        fetch(attempt)
    finally:
        os.umask(before)

    for name in ("up", "down"):
        found = os.stat(attempt.control_file(name)).st_mode
        assert stat.S_ISFIFO(found)
        assert stat.S_IMODE(found) == 0o666


def test_fetch_writes_nothing_to_the_store_when_all_is_well(tmp_path: Path) -> None:
    store = memory_store()
    attempt = with_inputs(tmp_path, store)

    fetch(attempt)

    assert {method for method, _ in store.calls} == {"get"}


def test_an_attempt_of_a_committed_job_is_superseded(tmp_path: Path) -> None:
    store = memory_store()
    attempt = with_inputs(tmp_path, store)
    other = open_attempt(tmp_path, store, uid="pod-2")
    publish(other, end_of(other, Outcome.SUCCEEDED))
    store.calls.clear()

    assert fetch(attempt) == 0

    assert Path(attempt.control_file("superseded")).exists()
    # its container starts all the same, and ends at once
    assert Path(attempt.control_file("tool_shim.sh")).exists()
    assert store.calls == [("get", JOB.commit)]
    assert not Path(attempt.work).exists()


def test_a_missing_input_is_a_staging_failure_left_to_the_head(tmp_path: Path) -> None:
    store = memory_store()
    attempt = with_inputs(tmp_path, store)
    key = blob_of(attempt, "large")
    store.delete(key)

    assert fetch(attempt) == 21

    result = stored_result(store, attempt)
    assert result.outcome is Outcome.INPUT_FAILED
    assert result.error is not None
    assert key in result.error["source"]
    assert result.error["target"] == f"{attempt.work}/large"
    assert result.error["operation"] == "fetch"
    assert committed(store) is None


def test_a_missing_input_is_committed_where_the_generation_says_so(tmp_path: Path) -> None:
    store = memory_store()
    attempt = with_inputs(tmp_path, store, final=(Outcome.INPUT_FAILED,))
    store.delete(blob_of(attempt, "large"))

    assert fetch(attempt) == 21

    commit = committed(store)
    assert commit is not None
    assert (commit.outcome, commit.attempt) == (Outcome.INPUT_FAILED, "pod-1")


@pytest.mark.parametrize("path", ["large", "dir/a"], ids=["a blob", "a member of a pack"])
def test_damaged_bytes_are_an_integrity_failure(tmp_path: Path, path: str) -> None:
    store = memory_store()
    attempt = with_inputs(tmp_path, store)
    key = blob_of(attempt, path)
    body = bytearray(store.objects[key])
    body[-1] ^= 1
    store.damage(key, bytes(body))

    assert fetch(attempt) == 22

    assert stored_result(store, attempt).outcome is Outcome.INTEGRITY_FAILED
    assert not Path(attempt.work, path).exists()


def test_a_changed_foreign_object_is_an_input_failure(tmp_path: Path) -> None:
    store = memory_store()
    put(store, "data/x", b"new")
    at = StoredAt("data/x", etag='"of before"')
    store_job(store, inputs=Manifest((Entry("x", Kind.FILE, 0o644, 0, 3, at=at),)))
    attempt = open_attempt(tmp_path, store)

    assert fetch(attempt) == 21
    assert stored_result(store, attempt).outcome is Outcome.INPUT_FAILED


def test_the_digest_of_a_foreign_object_is_kept(tmp_path: Path) -> None:
    """The head never read it: without this nobody could say what the tool had worked on."""
    store = memory_store()
    put(store, "data/x", b"new")
    at = StoredAt("data/x", etag=store.head("data/x").etag)
    store_job(store, inputs=Manifest((Entry("x", Kind.FILE, 0o644, 0, 3, at=at),)))
    attempt = open_attempt(tmp_path, store)

    assert fetch(attempt) == 0

    body = read(patient(store), attempt.keys.inputs)
    kept = load_manifest(parse_document(body, "here"), "here")
    assert [entry.digest for entry in kept.entries] == [f"sha256:{sha256(b'new').hexdigest()}"]


@pytest.mark.parametrize("number", [1, 2, 3], ids=["the commit", "the spec", "an input"])
def test_a_denied_read_is_access_denied(tmp_path: Path, number: int) -> None:
    store = memory_store(fail={("get", number): StoreAccessError("access denied")})
    store_job(store, inputs=staged(tmp_path, store))
    attempt = open_attempt(tmp_path, store)

    assert fetch(attempt) == 23
    assert stored_result(store, attempt).outcome is Outcome.ACCESS_DENIED


def test_where_even_the_result_is_denied_the_error_is_all_there_is(tmp_path: Path) -> None:
    denied = StoreAccessError("access denied")
    store = memory_store(fail={("get", 1): denied, ("put", 1): denied})
    store_job(store)
    attempt = open_attempt(tmp_path, store)

    with pytest.raises(StoreAccessError) as raised:
        fetch(attempt)
    assert raised.value.code == 23


def test_another_spec_than_the_jobs_is_refused(tmp_path: Path) -> None:
    store = memory_store()
    store_job(store)
    attempt = open_attempt(tmp_path, store, spec_digest=f"sha256:{'0' * 64}")

    assert fetch(attempt) == 22
    assert stored_result(store, attempt).outcome is Outcome.INTEGRITY_FAILED


def test_a_full_disk_is_no_space(tmp_path: Path) -> None:
    store = memory_store()
    at = StoredAt("lab/blobs/aa/huge", etag='"x"')
    huge = [Entry(f"{n}", Kind.FILE, 0o644, 0, 4 * 1024**4, at=at) for n in range(10_000)]
    store_job(store, inputs=Manifest(tuple(huge)))
    attempt = open_attempt(tmp_path, store)

    assert fetch(attempt) == 24
    assert stored_result(store, attempt).outcome is Outcome.NO_SPACE


def run_script(script: bytes, directory: Path) -> subprocess.CompletedProcess[bytes]:
    path = directory / "command"
    path.write_bytes(script)
    return subprocess.run(["sh", path], cwd=directory, capture_output=True, check=False)


def test_a_list_reaches_the_program_word_for_word(tmp_path: Path) -> None:
    words = [*(os.fsdecode(name) for name in NAMES.values()), "", "$$", "!!", "a;b&c|d>e"]

    ran = run_script(command_script((sys.executable, "-c", SHOW_WORDS, *words)), tmp_path)

    assert ran.stderr == b""
    assert ran.stdout.split(b"\0") == [os.fsencode(word) for word in words]
    assert sorted(os.listdir(tmp_path)) == ["command"]


def test_a_lists_program_may_have_a_hostile_name_too(tmp_path: Path) -> None:
    program = tmp_path / "it's $(a) `tool`\n"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)

    assert run_script(command_script((str(program),)), tmp_path).stdout == b"ran\n"


def test_a_list_is_executed_and_leaves_no_shell_in_between(tmp_path: Path) -> None:
    ran = run_script(
        command_script((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")), tmp_path
    )

    assert ran.returncode == -9


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("echo a; echo b", b"a\nb\n"),
        ("set -- x 'y z'\nprintf '%s,' \"$@\"", b"x,y z,"),
        ("cat <<END\n$((1 + 2))\nEND\n", b"3\n"),
        ("echo '\n\n'", b"\n\n\n"),
        ("printf %s caf\udce9 # not UTF-8", b"caf\xe9"),
    ],
)
def test_text_is_a_script_of_the_shell(tmp_path: Path, command: str, out: bytes) -> None:
    assert run_script(command_script(command), tmp_path).stdout == out


@pytest.mark.parametrize(("tool_user", "mode"), [("worker", 0o600), ("image", 0o644)])
def test_a_tool_with_a_user_of_its_own_can_read_its_inputs(
    tmp_path: Path, tool_user: str, mode: int
) -> None:
    (tmp_path / "in").write_text("x")
    (tmp_path / "in").chmod(0o600)
    store = memory_store()
    cache = DigestCache(None, time.time_ns)
    trees = [scan("in", str(tmp_path / "in"))]
    layout = StoreLayout(STORE.prefix)
    manifest = stage_in(patient(store), layout, trees, cache, meter=Meter())
    keys = PodCredentials(service_account="worker")
    place = KubernetesPlace(keys, pod=PodShape(tool_user=tool_user))
    store_job(store, inputs=manifest, destination=Destination(kubernetes=place))
    attempt = open_attempt(tmp_path, store)

    assert fetch(attempt) == 0
    assert stat.S_IMODE(os.stat(attempt.place("in")).st_mode) == mode

"""Documents in the store that are damaged, or of a newer protocol: refused, and nothing changes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Desk, Ran
from conftest import S3Access

from s3runner.installed import job_scripts_dir
from s3runner.staging.manifest import document_digest

Job = dict[str, bytes]
"""What lies in the store for a job, by the end of each key."""

SPEC, RECORD, COMMIT = "spec.json", "generations/1.json", "commit.json"
RESULT, MANIFEST, INPUTS = "/result.json", "/manifest.json", "inputs.json"


class Bucket:
    """A job that has ended, and what a test makes of its documents."""

    def __init__(self, desk: Desk, **job: object) -> None:
        self.desk = desk
        ran = desk.run_job(name="x", command="echo 1 > o", outputs=["o"], **job)
        assert ran.code == 0, ran.stderr
        self.job_id: str = ran.json["job_id"]
        self.uri: str = ran.json["outputs"][0]["uri"]

    def key(self, name: str) -> str:
        (found,) = (key for key in self.desk.keys(f"jobs/{self.job_id}/") if key.endswith(name))
        return found

    def read(self, name: str) -> bytes:
        body: bytes = self.desk.store.get(self.key(name), b"".join)
        return body

    def write(self, name: str, body: bytes) -> None:
        key = self.key(name)
        self.desk.store.put(key, lambda: iter((body,)), size=len(body), part_size=2**24)

    def change(self, name: str, **fields: object) -> str:
        """Write a document with other fields; return its digest."""
        document = {**json.loads(self.read(name)), **fields}
        body = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        self.write(name, body)
        return document_digest(body)

    def all(self) -> dict[str, bytes]:
        """Return everything there is."""
        return {key: self.desk.store.get(key, b"".join) for key in self.desk.keys("")}

    def say(self, verb: str) -> Ran:
        words = {"cat": [self.uri], "ls": [self.uri], "list": [], "gc": []}
        return self.desk.run(verb, *words.get(verb, [self.job_id]))

    def run_pod(self, part: str) -> subprocess.CompletedProcess[str]:
        """Run what a container of a further attempt runs, without a cluster around it."""
        control = self.desk.directory / "pod" / "control"
        control.mkdir(parents=True, exist_ok=True)
        digest = json.loads(self.read(RECORD))["spec_digest"]
        job = {"job_id": self.job_id, "generation": 1, "spec_digest": digest}
        environment = {
            **self.desk.environment,
            "S3RUNNER_STORE": json.dumps(dataclasses.asdict(self.desk.access.config)),
            "S3RUNNER_JOB": json.dumps(job),
            "S3RUNNER_ATTEMPT": "further",
            "S3RUNNER_CONTROL": str(control),
            "S3RUNNER_WORK": str(control.parent / "work"),
            "S3RUNNER_REFERENCES": str(control.parent / "references"),
        }
        command = [sys.executable, str(job_scripts_dir() / "execute_job.py"), part]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=120
        )


@pytest.fixture
def bucket(tmp_path: Path, moto_access: S3Access) -> Bucket:
    return Bucket(Desk(tmp_path, moto_access))


def newer_spec(bucket: Bucket) -> None:
    bucket.change(RECORD, spec_digest=bucket.change(SPEC, protocol=2))


def newer_result(bucket: Bucket) -> None:
    bucket.change(COMMIT, result_digest=bucket.change(RESULT, protocol=2))


def newer_manifest(bucket: Bucket) -> None:
    digest = bucket.change(MANIFEST, protocol=2)
    bucket.change(COMMIT, result_digest=bucket.change(RESULT, manifest_digest=digest))


NEWER = [
    pytest.param(newer_spec, SPEC, ["status", "wait", "sync", "logs", "cancel"], id="spec"),
    pytest.param(
        lambda bucket: bucket.change(RECORD, protocol=2),
        RECORD,
        ["status", "wait", "sync", "cancel"],
        id="generation",
    ),
    pytest.param(
        lambda bucket: bucket.change(COMMIT, protocol=2),
        COMMIT,
        ["status", "wait", "sync", "logs", "cancel"],
        id="commit",
    ),
    pytest.param(
        newer_result, RESULT, ["status", "wait", "sync", "logs", "ls", "cat"], id="result"
    ),
    pytest.param(newer_manifest, MANIFEST, ["sync", "logs", "ls", "cat"], id="manifest"),
]


@pytest.mark.parametrize(("renew", "name", "verbs"), NEWER)
def test_a_newer_protocol_is_refused_by_every_verb_that_reads_it(
    bucket: Bucket, renew: Callable[[Bucket], object], name: str, verbs: list[str]
) -> None:
    """What it means is for its own version to know; nothing is guessed, nothing changed."""
    renew(bucket)
    before = bucket.all()
    here = sorted(bucket.desk.directory.rglob("x/**"))

    for verb in verbs:
        ran = bucket.say(verb)

        assert ran.code == 3, (verb, ran.stderr)
        assert f"/{bucket.key(name)}: protocol 2 is not the one this version" in ran.stderr, verb
        assert "[E20]" in ran.stderr
        assert "hint: use the same s3runner on head and pods" in ran.stderr
    listed = bucket.say("list")
    assert listed.code == 0
    assert ("protocol 2" in listed.stderr) is (name in (SPEC, COMMIT))
    assert bucket.say("gc").code == 0
    assert bucket.all() == before
    assert sorted(bucket.desk.directory.rglob("x/**")) == here


@pytest.mark.parametrize(
    ("part", "renew", "name"),
    [
        pytest.param("fetch", newer_spec, SPEC, id="spec"),
        pytest.param("fetch", lambda b: b.change(COMMIT, protocol=2), COMMIT, id="commit"),
    ],
)
def test_a_newer_protocol_is_code_20_in_the_pod(
    bucket: Bucket, part: str, renew: Callable[[Bucket], object], name: str
) -> None:
    """The tool does not start; the attempt leaves its result and no commit."""
    renew(bucket)
    if name != COMMIT:
        bucket.desk.store.delete(bucket.key(COMMIT))
    before = bucket.all()

    ran = bucket.run_pod(part)

    assert ran.returncode == 20, ran.stdout + ran.stderr
    assert "protocol 2 is not the one this version speaks" in ran.stdout
    new = {key: body for key, body in bucket.all().items() if before.get(key) != body}
    assert [key.rsplit("/", 2)[1:] for key in new] == [["further", "result.json"]]
    (result,) = (json.loads(body) for body in new.values())
    assert result["outcome"] == "bad_spec"
    assert name in result["error"]["source"]
    assert not (bucket.desk.directory / "pod" / "control" / "up").exists()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda body: body[:-20],
    "a flipped byte": lambda body: body.replace(b'"protocol"', b'"qrotocol"'),
    "no JSON": lambda _: b"<html>proxy error</html>",
    "a list": lambda _: b"[]",
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("name", [SPEC, RECORD, COMMIT])
def test_a_damaged_document_is_named_and_believed_in_nothing(bucket: Bucket, name: str) -> None:
    """Nothing names these three by a digest, so what cannot be understood is all that is known."""
    whole = bucket.read(name)
    for what, damage in DAMAGES.items():
        bucket.write(name, damage(whole))
        before = bucket.all()

        ran = bucket.desk.run("sync", bucket.job_id, "--into", "elsewhere", "--json")

        assert (ran.code, ran.json["code"]) == (3, 20), (what, ran.stderr)
        assert ran.json["error"]["source"].endswith(bucket.key(name)), what
        assert ran.json["error"]["operation"] in ("wait", "sync"), what
        assert ran.json["error"]["hint"], what
        assert ran.json["outcome"] is None, what
        assert bucket.all() == before, what
    assert not (bucket.desk.directory / "elsewhere").exists()
    bucket.write(name, whole)
    assert bucket.desk.run("sync", bucket.job_id, "--into", "elsewhere").code == 0


@pytest.mark.parametrize("name", [RESULT, MANIFEST])
def test_a_document_with_other_bytes_than_its_digest_is_an_integrity_failure(
    bucket: Bucket, name: str
) -> None:
    """It may have been damaged on the way, so it is asked for again before that is said."""
    whole = bucket.read(name)
    for what in ("a flipped byte", "a list"):
        bucket.write(name, DAMAGES[what](whole))
        before = bucket.all()

        ran = bucket.desk.run("sync", bucket.job_id, "--into", "elsewhere", "--json")

        assert (ran.code, ran.json["code"]) == (3, 22), (what, ran.stderr)
        error = ran.json["error"]
        assert error["source"].endswith(bucket.key(name)), what
        assert (error["tries"], bool(error["hint"])) == (5, True), what
        assert bucket.all() == before, what
    assert not (bucket.desk.directory / "elsewhere").exists()
    bucket.write(name, whole)
    assert bucket.desk.run("sync", bucket.job_id, "--into", "elsewhere").code == 0


def test_damaged_inputs_never_reach_the_tool(tmp_path: Path, moto_access: S3Access) -> None:
    """A manifest that is too large for the spec lies beside it, named by its digest."""
    (tmp_path / "many").mkdir()
    for number in range(400):
        (tmp_path / "many" / f"a name as long as people like them {number}").touch()
    bucket = Bucket(Desk(tmp_path, moto_access), inputs={"many": "./many"})
    bucket.desk.store.delete(bucket.key(COMMIT))
    bucket.write(INPUTS, bucket.read(INPUTS).replace(b"like them 7", b"like them 8"))

    ran = bucket.run_pod("fetch")

    assert ran.returncode == 22, ran.stdout + ran.stderr
    assert f"{bucket.key(INPUTS)}: damaged document" in ran.stdout
    assert "(5 tries) [E22]" in ran.stdout
    assert not (tmp_path / "pod" / "work").exists()

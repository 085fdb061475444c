"""A bucket that vanishes and keys that end, at every step of a job: told, and nothing hangs."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Desk, Ran
from conftest import Rgw, S3Access, S3Server, bucket_client
from holding import HOLD, while_it_holds
from service_rule import require_program
from waiting import found_below, wait_until

from s3runner.model import Credentials

HOLDS = {
    "name": "holds",
    "command": f"{HOLD}; echo 1 > o; echo said",
    "outputs": ["o"],
    "walltime": "90s",
}

WITHOUT_RETRY = {"retry_budget_s": 3}


class Gate:
    """The store's address for pods, behind which nothing is let through until it opens."""

    def __init__(self, target: str) -> None:
        self._target = ("127.0.0.1", int(target.rsplit(":", 1)[1]))
        self._opened = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = [self._server]
        self.endpoint = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def open(self) -> None:
        self._opened.set()

    def close(self) -> None:
        self._opened.set()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._server.accept()
                self._opened.wait()
                callee = socket.create_connection(self._target)
                self._ends += [caller, callee]
                for one, other in ((caller, callee), (callee, caller)):
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    @staticmethod
    def _copy(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


@pytest.fixture
def gate(moto_server: S3Server) -> Iterator[Gate]:
    held = Gate(moto_server.endpoint)
    yield held
    held.close()


def delete_bucket(server: S3Server, access: S3Access) -> None:
    client, bucket = bucket_client(server), access.config.bucket
    for item in client.list_objects_v2(Bucket=bucket).get("Contents", ()):
        client.delete_object(Bucket=bucket, Key=item["Key"])
    client.delete_bucket(Bucket=bucket)


def refuses_for_want_of_a_bucket(ran: Ran, access: S3Access, operation: str) -> None:
    assert (ran.code, ran.json["code"]) == (3, 23), ran.stderr
    error = ran.json["error"]
    assert error["operation"] == operation
    assert error["reason"].startswith("no such bucket (")
    assert access.config.bucket in error["source"] + error["target"]
    assert error["hint"] == "create the bucket, or correct store.url"
    assert error["tries"] <= 1


def test_a_bucket_that_goes_before_fetch_is_named_by_pod_and_head(
    tmp_path: Path, moto_server: S3Server, moto_access: S3Access, gate: Gate
) -> None:
    """The pod cannot even leave a result; its container's log and the head say why."""
    desk = Desk(tmp_path, moto_access, store={**WITHOUT_RETRY, "pod_endpoint": gate.endpoint})
    (tmp_path / "in").write_text("x")
    job = desk.write_job(name="x", command="true", inputs={"in": "./in"})
    job_id = desk.run("submit", job).stdout.strip()
    delete_bucket(moto_server, moto_access)
    gate.open()

    logs = tmp_path / "home"
    wait_until(lambda: any(b"no such bucket" in read(p) for p in found_below(logs, "*fetch*")))
    refuses_for_want_of_a_bucket(desk.run("wait", job_id, "--json"), moto_access, "wait")


def read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def test_a_bucket_that_goes_while_the_tool_runs_ends_the_command_with_its_name(
    tmp_path: Path, moto_server: S3Server, moto_access: S3Access
) -> None:
    """There is nothing left to decide the job with, and that is what is said."""
    desk = Desk(tmp_path, moto_access, store=WITHOUT_RETRY)

    ran = while_it_holds(
        desk, lambda: delete_bucket(moto_server, moto_access), "run", desk.write_job(**HOLDS)
    )

    refuses_for_want_of_a_bucket(ran, moto_access, "wait")
    assert ran.json["outcome"] is None
    assert not (tmp_path / "holds").exists()


def test_a_bucket_that_goes_before_sync_leaves_what_is_here(
    tmp_path: Path, moto_server: S3Server, moto_access: S3Access
) -> None:
    desk = Desk(tmp_path, moto_access, store=WITHOUT_RETRY)
    ran = desk.run_job(name="x", command="echo 1 > o", outputs=["o"])
    delete_bucket(moto_server, moto_access)

    refuses_for_want_of_a_bucket(
        desk.run("sync", ran.json["job_id"], "--json"), moto_access, "sync"
    )
    assert (tmp_path / "x" / "o").read_text() == "1\n"


class Keys:
    """Keys of the gateway's user that a test makes and ends."""

    def __init__(self, rgw: Rgw) -> None:
        require_program("radosgw-admin")
        assert rgw.tls.ca_file is not None
        self._conf = str(Path(rgw.tls.ca_file).with_name("ceph.conf"))
        self._made: list[Credentials] = []

    def make(self) -> Credentials:
        keys = Credentials(f"K{secrets.token_hex(8)}", secrets.token_hex(16))
        self._admin("create", keys, f"--secret-key={keys.secret_key}")
        self._made.append(keys)
        return keys

    def end(self, keys: Credentials) -> None:
        self._made.remove(keys)
        self._admin("rm", keys)

    def end_all(self) -> None:
        for keys in list(self._made):
            self.end(keys)

    def _admin(self, action: str, keys: Credentials, *more: str) -> None:
        command = ["radosgw-admin", "-c", self._conf, "-n", "client.admin", "key", action]
        subprocess.run(
            [*command, "--uid=s3runner", f"--access-key={keys.access_key}", *more],
            check=True,
            capture_output=True,
            timeout=60,
        )


@pytest.fixture
def keys(rgw: Rgw) -> Iterator[Keys]:
    made = Keys(rgw)
    yield made
    made.end_all()


def refuses_the_keys(ran: Ran, operation: str) -> None:
    assert (ran.code, ran.json["code"]) == (3, 23), ran.stderr
    error = ran.json["error"]
    assert error["operation"] == operation
    assert "access denied: unknown access key (" in error["reason"]
    assert "check the access key and secret" in error["hint"]
    assert error["tries"] <= 1


def test_keys_that_end_while_the_tool_runs_are_replaced_and_the_job_ends_well(
    tmp_path: Path, rgw_access: S3Access, keys: Keys
) -> None:
    """What the tool made is lost with its pod; with new keys it runs once more."""
    first = keys.make()
    desk = Desk(tmp_path, dataclasses.replace(rgw_access, credentials=first), store=WITHOUT_RETRY)

    ended = while_it_holds(desk, lambda: keys.end(first), "run", desk.write_job(**HOLDS))
    refuses_the_keys(ended, "wait")
    assert f"s3runner wait {ended.json['job_id']}" in ended.stderr
    assert first.secret_key not in ended.stdout + ended.stderr

    again = dataclasses.replace(rgw_access, credentials=keys.make())
    synced = while_it_holds(desk, lambda: None, "sync", ended.json["job_id"], **again.environment)

    assert synced.code == 0, synced.stderr
    assert (synced.json["outcome"], synced.json["generation"]) == ("succeeded", 2)
    assert "generation 1 ended as access_denied" in synced.stderr
    assert (tmp_path / "holds" / "o").read_text() == "1\n"


def test_keys_that_end_before_sync_are_named_and_new_ones_bring_the_results(
    tmp_path: Path, rgw_access: S3Access, keys: Keys
) -> None:
    first = keys.make()
    desk = Desk(tmp_path, dataclasses.replace(rgw_access, credentials=first), store=WITHOUT_RETRY)
    job = desk.write_job(name="x", command="echo 1 > o", outputs=["o"])
    waited = desk.run("submit", job).stdout.strip()
    assert desk.run("wait", waited).code == 0
    keys.end(first)

    refuses_the_keys(desk.run("sync", waited, "--json"), "sync")
    assert not (tmp_path / "x").exists()

    again = dataclasses.replace(rgw_access, credentials=keys.make())
    assert desk.run("sync", waited, **again.environment).code == 0
    assert (tmp_path / "x" / "o").read_text() == "1\n"


def test_keys_that_end_before_stage_in_store_nothing(
    tmp_path: Path, rgw_access: S3Access, keys: Keys
) -> None:
    first = keys.make()
    keys.end(first)
    desk = Desk(tmp_path, dataclasses.replace(rgw_access, credentials=first), store=WITHOUT_RETRY)
    (tmp_path / "in").write_text("x")

    ran = desk.run_job(name="x", command="true", inputs={"in": "./in"})

    refuses_the_keys(ran, "submit")
    assert desk.directory.joinpath("x").exists() is False
    assert Desk(tmp_path, rgw_access).keys() == []

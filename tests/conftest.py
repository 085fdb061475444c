"""Stores for every test: in memory, moto, and a real Ceph gateway over HTTP and TLS.

Fixtures, each started only when a test first asks for it:

* `store`: a raw `ObjectStore` on a fresh bucket, once for each of the four stores.
* `s3_access`: `S3Access` (StoreConfig, Credentials) of a fresh bucket, once for each of the three
  that speak S3; `moto_access`, `rgw_access` and `rgw_tls_access` are one of them.
* `moto_config`, `rgw_config`: other names of `moto_access` and `rgw_access`.
* `moto_server`, `rgw`: the servers themselves (`S3Server`, `Rgw`).

A service that is not on this machine skips its tests, which the run's last lines say, or fails them
under `S3RUNNER_TEST_REQUIRE=all` (`service_rule.missing_service`). `S3RUNNER_TEST_RGW_ENV` names a
file of `ceph_rgw start`'s output to use a gateway that runs already.

`HYPOTHESIS_PROFILE` is `ci`, the same examples at each run, or `nightly`, others and more of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from memory_store import MemoryStore
from service_rule import MARK, missing_service

from s3runner.model import Credentials, StoreConfig
from s3runner.store.obstore_store import ObstoreStore
from s3runner.store.protocol import ObjectStore

CEPH_RGW = str(Path(__file__).parent / "services" / "ceph_rgw")
SERVICES_DIR = "S3RUNNER_TEST_SERVICES_DIR"
"""Set by the process that leads the run; test processes under xdist share its services."""

_STARTED, _PROGRAM_MISSING, _PORT_TAKEN = 0, 3, 4

S3_SERVERS = ("moto", "rgw-http", "rgw-tls")


settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("nightly", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@dataclass(frozen=True)
class S3Server:
    """A running S3 endpoint."""

    endpoint: str
    credentials: Credentials
    ca_file: str | None = None

    def fresh_bucket(self) -> S3Access:
        """Make a bucket that nobody else has."""
        config = StoreConfig(
            bucket=f"test-{secrets.token_hex(8)}",
            prefix="runs",
            endpoint=self.endpoint,
            ca_pem=Path(self.ca_file).read_text() if self.ca_file else None,
            insecure_http=self.endpoint.startswith("http:"),
            retry_budget_s=20.0,
        )
        bucket_client(self).create_bucket(Bucket=config.bucket)
        return S3Access(config, self.credentials)


@dataclass(frozen=True)
class S3Access:
    """A bucket and the keys to it."""

    config: StoreConfig
    credentials: Credentials

    @property
    def environment(self) -> dict[str, str]:
        """The variables that hand the keys to a program under test."""
        return {
            "AWS_ACCESS_KEY_ID": self.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret_key,
        }

    def open(self) -> ObstoreStore:
        """Return the raw store."""
        return ObstoreStore(self.config, self.credentials)


@dataclass(frozen=True)
class Rgw:
    """A running Ceph gateway: the same objects over HTTP and TLS."""

    http: S3Server
    tls: S3Server


@functools.cache
def bucket_client(server: S3Server) -> Any:
    """Make a server's boto3 client once: each costs a third of a second."""
    import boto3  # noqa: PLC0415 # slow, and most tests need no server

    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.credentials.access_key,
        aws_secret_access_key=server.credentials.secret_key,
        verify=server.ca_file,
    )


@pytest.fixture(params=["memory", *S3_SERVERS])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """A raw store on a fresh, empty bucket: each of the four in turn."""
    if request.param == "memory":
        return MemoryStore()
    return _access(request, request.param).open()


@pytest.fixture(params=S3_SERVERS)
def s3_access(request: pytest.FixtureRequest) -> S3Access:
    """A fresh bucket and its keys: each S3 server in turn."""
    return _access(request, request.param)


@pytest.fixture
def moto_access(moto_server: S3Server) -> S3Access:
    """A fresh bucket on moto."""
    return moto_server.fresh_bucket()


@pytest.fixture
def rgw_access(rgw: Rgw) -> S3Access:
    """A fresh bucket on the Ceph gateway, over HTTP."""
    return rgw.http.fresh_bucket()


@pytest.fixture
def rgw_tls_access(rgw: Rgw) -> S3Access:
    """A fresh bucket on the Ceph gateway, over TLS with a private authority."""
    return rgw.tls.fresh_bucket()


@pytest.fixture
def moto_config(moto_access: S3Access) -> S3Access:
    """The same as `moto_access`."""
    return moto_access


@pytest.fixture
def rgw_config(rgw_access: S3Access) -> S3Access:
    """The same as `rgw_access`."""
    return rgw_access


def _access(request: pytest.FixtureRequest, server: str) -> S3Access:
    names = {"moto": "moto_access", "rgw-http": "rgw_access", "rgw-tls": "rgw_tls_access"}
    access = request.getfixturevalue(names[server])
    assert isinstance(access, S3Access)
    return access


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A moto server in a process of its own, one for each test process."""
    if importlib.util.find_spec("moto") is None:
        missing_service("moto", "it is not installed")
    log = tmp_path_factory.mktemp("moto") / "log"
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        port = _announced_port(log, process)
        yield S3Server(f"http://127.0.0.1:{port}", Credentials("moto", "motosecret"))
    finally:
        process.terminate()
        process.wait()


def _announced_port(log: Path, process: subprocess.Popen[bytes]) -> int:
    for _ in range(600):
        match = re.search(r"Running on http://127\.0\.0\.1:(\d+)", log.read_text())
        if match:
            return int(match[1])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
            break
    pytest.fail(f"moto does not start: {log.read_text()[-500:]}")


@pytest.fixture(scope="session")
def rgw() -> Rgw:
    """A Ceph gateway, one for the whole run."""
    running = os.environ.get("S3RUNNER_TEST_RGW_ENV")
    return _read_rgw(Path(running)) if running else _read_rgw(_started_rgw())


def _started_rgw() -> Path:
    """Start the run's gateway, or wait for the test process that does; return its settings."""
    services = Path(os.environ[SERVICES_DIR])
    settings, absent = services / "rgw.env", services / "rgw.absent"
    with (services / "rgw.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not settings.exists() and not absent.exists():
            reason = _start_rgw(services, settings)
            if reason:
                absent.write_text(reason)
    if absent.exists():
        missing_service("ceph_rgw", absent.read_text())
    return settings


def _start_rgw(services: Path, settings: Path) -> str:
    """Return why there can be no gateway here; an empty string when there is one."""
    if os.geteuid() != 0:
        return "it needs root"
    told = ""
    for number in range(5):
        http, https = _two_ports()
        command = [CEPH_RGW, "start", str(services / f"rgw.{number}"), str(http), str(https)]
        started = subprocess.run(command, capture_output=True, text=True, check=False)
        if started.returncode == _STARTED:
            settings.write_text(started.stdout)
            return ""
        told = started.stderr.strip()
        if started.returncode == _PROGRAM_MISSING:
            return told.splitlines()[-1].removeprefix("ceph_rgw: ")
        if started.returncode != _PORT_TAKEN:
            break
    pytest.fail(f"the gateway does not start: {told}", pytrace=False)


def _two_ports() -> tuple[int, int]:
    """Return an HTTP port with free room for the daemons 1000 above it, and an HTTPS port."""
    while True:
        http = 10_000 + secrets.randbelow(20_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as sockets:
            for port in (http, http + 1, *range(http + 1000, http + 1030)):
                sockets.enter_context(socket.create_server(("127.0.0.1", port)))
            return http, http + 1


def _read_rgw(settings: Path) -> Rgw:
    values: Mapping[str, str] = dict(
        line.split("=", 1) for line in settings.read_text().splitlines() if "=" in line
    )
    keys = Credentials(values["RGW_ACCESS_KEY_ID"], values["RGW_SECRET_ACCESS_KEY"])
    return Rgw(
        http=S3Server(values["RGW_HTTP_ENDPOINT"], keys),
        tls=S3Server(values["RGW_HTTPS_ENDPOINT"], keys, values["RGW_CA_BUNDLE"]),
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the place where the run's services live; xdist's processes inherit it."""
    if not hasattr(config, "workerinput"):
        os.environ[SERVICES_DIR] = tempfile.mkdtemp(prefix="s3runner-test-services-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the services that this run started."""
    if hasattr(config, "workerinput") or SERVICES_DIR not in os.environ:
        return
    services = Path(os.environ.pop(SERVICES_DIR))
    for directory in services.glob("rgw.[0-9]"):
        subprocess.run([CEPH_RGW, "stop", directory], check=False)
    shutil.rmtree(services, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which services were missing, and so what did not run."""
    lost: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for category in ("skipped", "failed", "error"):
        for report in terminalreporter.stats.get(category, []):
            match = re.search(re.escape(MARK) + r"([^\n']*)", str(report.longrepr))
            if match:
                lost[match[1]][report.nodeid.split("::")[0]] += 1
    if lost:
        terminalreporter.section("services that were missing", yellow=True)
    for service, suites in sorted(lost.items()):
        told = ", ".join(f"{suite} ({count} tests)" for suite, count in sorted(suites.items()))
        terminalreporter.line(f"{service}: did not run: {told}")

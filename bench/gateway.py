"""The S3 server that benches talk to: a Ceph gateway of their own, or moto where it is missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s3runner.cli.demo_store import ACCESS_KEY, SECRET_KEY, embedded_store
from s3runner.model import Credentials, StoreConfig
from s3runner.store.control import create_bucket

_RGW = Path(__file__).parent.parent / "tests" / "services" / "ceph_rgw"


@dataclass(frozen=True)
class Bucket:
    """A fresh bucket, and what speaks to it."""

    config: StoreConfig
    credentials: Credentials
    server: str

    @property
    def settings(self) -> str:
        """A settings file for it."""
        url = f"s3://{self.config.bucket}/{self.config.prefix}"
        return f"store: {{url: '{url}', endpoint: '{self.config.endpoint}', insecure_http: true}}\n"


@contextlib.contextmanager
def bench_bucket(directory: Path, memory: str = "8G") -> Iterator[Bucket]:
    """Run a server for as long as the context; `memory` is the gateway's share of it."""
    with _endpoint(directory, memory) as (endpoint, credentials, server):
        config = StoreConfig(bucket="bench", prefix="runs", endpoint=endpoint, insecure_http=True)
        create_bucket(config, credentials)
        yield Bucket(config, credentials, server)


@contextlib.contextmanager
def _endpoint(directory: Path, memory: str) -> Iterator[tuple[str, Credentials, str]]:
    if shutil.which("radosgw") is None:
        with embedded_store() as endpoint:
            yield endpoint, Credentials(ACCESS_KEY, SECRET_KEY), "moto"
        return
    home = directory / "rgw"
    started = subprocess.run(
        [_RGW, "start", home, "7680", "7681"],
        env={**os.environ, "RGW_MEMORY": memory},
        check=True,
        capture_output=True,
        text=True,
    )
    values = dict(line.split("=", 1) for line in started.stdout.splitlines() if "=" in line)
    try:
        keys = Credentials(values["RGW_ACCESS_KEY_ID"], values["RGW_SECRET_ACCESS_KEY"])
        yield values["RGW_HTTP_ENDPOINT"], keys, "Ceph gateway"
    finally:
        subprocess.run([_RGW, "stop", home], check=True)

"""A worker without keys: a service account's token becomes keys at the STS (IRSA on EKS)."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import S3Access
from service_rule import require_program

ROLE = "arn:aws:iam::123456789012:role/s3runner-worker"
ANSWER = """<AssumeRoleWithWebIdentityResponse \
xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>\
<AccessKeyId>{0}</AccessKeyId><SecretAccessKey>{1}</SecretAccessKey>\
<SessionToken>from-sts</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""

READ = """
import json, os
from s3runner.worker.attempt import Attempt
from s3runner.store.retrying import read
attempt = Attempt.from_environment(os.environ)
print(read(attempt.store, os.environ["KEY"]).decode())
"""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "sts.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -subj /CN=sts -days 2"
    # no CA: rustls takes none for a server
    marks = ("-addext", "basicConstraints=critical,CA:FALSE")
    names = ("-addext", "subjectAltName=IP:127.0.0.1", *marks)
    openssl = require_program("openssl")
    made = [openssl, *words.split(), *names, "-keyout", str(path), "-out", str(tmp_path / "c")]
    subprocess.run(made, check=True, capture_output=True)
    path.write_text(path.read_text() + (tmp_path / "c").read_text())
    return path


class Sts:
    """Answers every request with the store's keys, and remembers what was asked."""

    def __init__(self, certificate: Path, access: S3Access) -> None:
        self.asked: list[dict[str, list[str]]] = []
        sts, keys = self, access.credentials

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length).decode()
                sts.asked.append(parse_qs(urlsplit(self.path).query or body))
                answer = ANSWER.format(keys.access_key, keys.secret_key).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)


@pytest.fixture
def sts(certificate: Path, moto_access: S3Access) -> Iterator[Sts]:
    made = Sts(certificate, moto_access)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def worker_reads(access: S3Access, home: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Read an object in a process that has what EKS puts into a container, and no keys."""
    token = home / "token"
    token.write_text("signed-by-the-cluster")
    key = f"{access.config.prefix}/hello"
    access.open().put_if_absent(key, b"hello")
    config = replace(access.config, ca_pem=(home / "c").read_text(), retry_budget_s=0)
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ROLE_ARN": ROLE,
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL_STS": endpoint,
        "S3RUNNER_STORE": json.dumps(asdict(config)),
        "S3RUNNER_JOB": json.dumps({"job_id": "j", "generation": 1, "spec_digest": "sha256:0"}),
        "S3RUNNER_ATTEMPT": "uid",
        "S3RUNNER_CONTROL": "/c",
        "S3RUNNER_WORK": "/w",
        "S3RUNNER_REFERENCES": "/r",
        "KEY": key,
    }
    return subprocess.run(
        [sys.executable, "-c", READ],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_worker_turns_its_service_accounts_token_into_keys(
    sts: Sts, moto_access: S3Access, tmp_path: Path
) -> None:
    ran = worker_reads(moto_access, tmp_path, f"https://127.0.0.1:{sts.server.server_address[1]}")

    assert ran.stdout == "hello\n", ran.stderr
    (asked,) = sts.asked
    assert asked["Action"] == ["AssumeRoleWithWebIdentity"]
    assert asked["RoleArn"] == [ROLE]
    assert asked["WebIdentityToken"] == ["signed-by-the-cluster"]


def test_a_service_that_is_away_is_no_denial(
    certificate: Path, moto_access: S3Access, tmp_path: Path
) -> None:
    """A pod's network may be late; the next try gets the keys."""
    del certificate
    ran = worker_reads(moto_access, tmp_path, "https://127.0.0.1:1")

    assert "StoreUnavailableError" in ran.stderr
    assert "no answer from the service that gives credentials" in ran.stderr

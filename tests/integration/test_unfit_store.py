"""A store that ignores conditions: the command finds out before it stores anything of a job."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import gate
import pytest
from command import Desk
from conftest import S3Access


class Unconditional(gate._Handler):
    """Hands requests on without their condition; the store does not check their signature."""

    def _forward(self) -> None:
        del self.headers["If-None-Match"]
        super()._forward()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815  # http.server's names


@pytest.fixture
def forgetful(moto_access: S3Access) -> Iterator[S3Access]:
    """A bucket of a store that overwrites whatever is there."""
    assert moto_access.config.endpoint is not None
    handler = type("Handler", (Unconditional,), {"gate": gate.Gate(moto_access.config.endpoint)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        config = dataclasses.replace(moto_access.config, endpoint=endpoint)
        yield S3Access(config, moto_access.credentials)
        server.shutdown()
        thread.join()


def test_on_a_store_without_conditional_writes_no_job_is_started(
    tmp_path: Path, forgetful: S3Access
) -> None:
    desk = Desk(tmp_path, forgetful)
    (tmp_path / "in").write_text("hello\n")

    for _ in range(2):  # and what was found is not remembered as good
        ran = desk.run_job(name="x", command="cat in", inputs={"in": "./in"})

        assert (ran.code, ran.json["code"], ran.json["job_id"]) == (3, 30, None), ran.stderr
        assert "this store does not keep conditional writes" in ran.stderr
        assert desk.keys() == []

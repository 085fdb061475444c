"""Ctrl-C, or TERM, while files travel: the command ends soon, and says what it leaves."""

from __future__ import annotations

import dataclasses
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access

BUDGET_S = 200
SOON_S = 30
"""Far from the budget, far above what a loaded machine needs."""


class ClosedDoor:
    """An endpoint that takes connections and hangs up; `knocks` counts them."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.knocks = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            try:
                visitor, _ = self._socket.accept()
            except OSError:
                return
            visitor.close()
            with self._changed:
                self.knocks += 1
                self._changed.notify_all()

    def wait_for_knocks(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.knocks >= count, timeout=60)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def door() -> Iterator[ClosedDoor]:
    door = ClosedDoor()
    yield door
    door.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_does_not_wait_for_the_retry_budget(
    tmp_path: Path, moto_access: S3Access, door: ClosedDoor, number: signal.Signals
) -> None:
    config = dataclasses.replace(moto_access.config, endpoint=door.endpoint)
    desk = Desk(
        tmp_path, S3Access(config, moto_access.credentials), store={"retry_budget_s": BUDGET_S}
    )
    inputs = {name: f"s3://{config.bucket}/{name}" for name in ("a", "b", "c")}
    job = desk.write_job(name="x", command="true", inputs=inputs)

    with desk.start("run", job) as process:
        try:
            # by the fifth try of each the pauses last seconds
            door.wait_for_knocks(5 * len(inputs))
            process.send_signal(number)
            _, stderr = process.communicate(timeout=SOON_S)
        finally:
            process.kill()

    assert process.returncode == 130, stderr
    assert "nothing was started" in stderr
    assert "Traceback" not in stderr

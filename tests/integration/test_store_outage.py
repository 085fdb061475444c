"""The store goes away at each hop of a job, for less than its retry budget: the job goes on."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access
from gate import Gate, gate_before

REFUSED = 6
"""Requests that are refused before the store is back: the pauses between them double."""

HOPS = {
    "stage-in": "^PUT .*/blobs/",
    "fetch": "^GET .*/blobs/",
    "stage-out": "^PUT .*/out/",
    "commit": "^PUT .*/commit.json",
    "sync": "^GET .*/out/",
}
"""The first request of each hop, with which the store goes away."""


class Outage:
    """Refuses everything from the first request of a kind on, until it has refused enough."""

    def __init__(self, begins: str) -> None:
        self._begins = re.compile(begins)
        self._lock = threading.Lock()
        self.refused = 0

    def __call__(self, request: str) -> bool:
        with self._lock:
            if self.refused == REFUSED or not (self.refused or self._begins.search(request)):
                return False
            self.refused += 1
            return True


@pytest.fixture
def gate(moto_access: S3Access) -> Iterator[Gate]:
    assert moto_access.config.endpoint is not None
    with gate_before(moto_access.config.endpoint) as gate:
        yield gate


@pytest.mark.parametrize("hop", HOPS)
def test_a_store_that_is_away_for_a_while_fails_no_job(
    tmp_path: Path, moto_access: S3Access, gate: Gate, hop: str
) -> None:
    """Head and pods reach it through the gate; nothing is run twice because of it."""
    config = dataclasses.replace(moto_access.config, endpoint=gate.address)
    access = S3Access(config, moto_access.credentials)
    desk = Desk(tmp_path, access, store={"retry_budget_s": 300})
    (tmp_path / "in").write_text("hello\n")
    outage = Outage(HOPS[hop])
    gate.refuse(outage)

    ran = desk.run_job(name="x", command="cat in > o", inputs={"in": "./in"}, outputs=["o"])

    assert outage.refused == REFUSED
    assert ran.code == 0, ran.stderr
    assert (ran.json["outcome"], ran.json["attempts"], ran.json["generation"]) == (
        *("succeeded", 1),
        1,
    )
    assert (tmp_path / "x" / "o").read_text() == "hello\n"

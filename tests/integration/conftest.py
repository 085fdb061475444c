"""What several of these tests work at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kube_api import FakeKube


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[FakeKube]:
    """A Kubernetes API of the test's own, whose pods run on this machine."""
    directory = tmp_path / "kube"
    directory.mkdir()
    with FakeKube(directory) as running:
        yield running

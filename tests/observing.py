"""What tests/observed records: Jobs with their pods and events as a cluster leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from s3runner.cluster.protocol import Observation

RECORDED = sorted((Path(__file__).parent / "observed").glob("*.yaml"))


def observed(name: str) -> Observation:
    """Return one of them by its file's name."""
    return load(next(path for path in RECORDED if path.stem == name))[0]


def load(path: Path) -> tuple[Observation, dict[str, Any]]:
    """Return an observation, and how it is to be read."""
    document = yaml.safe_load(path.read_text())
    seen = Observation(
        document["job"],
        tuple(document["pods"]),
        frozenset(document.get("vanished", ())),
        tuple(document.get("events", ())),
    )
    return seen, document["expected"]

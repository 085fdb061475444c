"""What tests/observed holds: Jobs with their pods and events as a cluster leaves them.

Most files are recordings of a real API server (`source: recorded, …` names its version), with other
names and addresses and with those parts of the specs that are read. What could not be brought about
there is written by hand after Kubernetes' source, in the same form (`source: written`).
"""

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

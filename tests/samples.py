"""Values that several tests start from."""

from __future__ import annotations

from s3runner.model import Destination, Manifest, Output, Quantity, Resources, Retry, StoreConfig
from s3runner.staging.records import Spec

JOB_ID = "0199e2a4-0000-7000-8000-000000000001"

STORE = StoreConfig(bucket="runs", prefix="lab", endpoint="https://s3.example")


def spec(**changes: object) -> Spec:
    """Return a small complete spec with `changes`."""
    values: dict[str, object] = {
        "job_id": JOB_ID,
        "name": "sort-bam",
        "command": "samtools sort -o out.bam in.bam",
        "image": "quay.io/biocontainers/samtools:1.21",
        "env": {"LANG": "C", "PRICE": "$(5) $HOME"},
        "inputs": Manifest(),
        "outputs": (Output("out.bam"), Output("qc/*.txt", optional=True)),
        "references": {"hg38": "/s3runner/references/hg38"},
        "roots": (),
        "resources": Resources(Quantity(request="500m", limit="2"), Quantity(limit="8Gi")),
        "walltime_s": 7200.0,
        "retry": Retry(),
        "destination": Destination(),
        "cluster": {"kind": "local", "machine": "m", "state_dir": "/s"},
        "created": "2026-01-01T00:00:00+00:00",
        "version": "0.1.0",
    }
    return Spec(**{**values, **changes})  # type: ignore[arg-type]

"""Bringing out what the attempt made: declared outputs, streams and exit code.

Logs come back whatever happened; a job's outputs never hide that its tool failed.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from s3runner.errors import OutputMissingError, S3RunnerError
from s3runner.model import Manifest, Outcome, outcome_of
from s3runner.staging.manifest import document_digest, dump_document, dump_manifest
from s3runner.staging.records import Result
from s3runner.staging.scan import OutputScan, scan_outputs
from s3runner.staging.upload import put_pack, stage_out
from s3runner.store.meter import Meter
from s3runner.store.retrying import RetryingStore
from s3runner.worker.attempt import Attempt

REST = ".s3runner"
"""Where streams and exit code stand in the manifest, and below the place of the outputs."""

_WITH_OUTPUTS = (
    Outcome.SUCCEEDED,
    Outcome.TOOL_FAILED,
    Outcome.WALLTIME,
    Outcome.OUT_OF_MEMORY,
    Outcome.NO_SPACE,
)
"""After these the outputs that exist come back; an interruption leaves time for logs only."""


def bring_out(attempt: Attempt, result: Result) -> Result:
    """Upload what `result.outcome` lets come back; return the result with its manifest.

    A tool that succeeded may still end as output_missing, unsupported or another failure of ours.
    """
    meter = Meter()
    store = attempt.store.with_meter(meter)
    manifest = Manifest()
    if result.outcome in _WITH_OUTPUTS:
        try:
            scan = _scan(attempt)
            manifest = stage_out(
                store,
                attempt.keys,
                scan,
                declared_files={output.path for output in attempt.spec.outputs},
                meter=meter,
            )
            result = replace(result, warnings=(*result.warnings, *scan.warnings))
            if scan.missing and result.outcome is Outcome.SUCCEEDED:
                names = ", ".join(scan.missing)
                missing = OutputMissingError(
                    f"the tool did not write {names}",
                    operation="stage-out",
                    source=attempt.place(scan.missing[0]),
                    hint="an output that may be absent is declared {path: …, optional: true}",
                )
                result = replace(result, outcome=Outcome.OUTPUT_MISSING, error=missing.to_json())
        except S3RunnerError as error:
            result = _without_outputs(result, error)
    manifest = _with_rest(attempt, store, manifest, meter)
    body = dump_document(dump_manifest(manifest))
    store.put(attempt.keys.manifest, lambda: iter((body,)), size=len(body), part_size=len(body))
    phases = {**result.phases, "stage_out": meter.phase}
    return replace(result, phases=phases, manifest_digest=document_digest(body))


def _without_outputs(result: Result, error: S3RunnerError) -> Result:
    error.during("stage-out")
    print(f"s3runner: {error} [E{error.code}]", flush=True)
    if result.outcome is Outcome.SUCCEEDED:
        return replace(result, outcome=outcome_of(error.code), error=error.to_json())
    return replace(result, warnings=(*result.warnings, str(error)))


def _scan(attempt: Attempt) -> OutputScan:
    roots = (os.path.realpath(attempt.work), *(os.path.realpath(r) for r in attempt.spec.roots))
    return scan_outputs(attempt.spec.outputs, attempt.work, roots)


def _with_rest(
    attempt: Attempt, store: RetryingStore, manifest: Manifest, meter: Meter
) -> Manifest:
    names = ("stdout", "stderr", "exit_code")
    members = [
        (f"{REST}/{name}", attempt.control_file(name))
        for name in names
        if Path(attempt.control_file(name)).is_file()
    ]
    if not members:
        return manifest
    pack, entries = put_pack(store, attempt.keys.rest, members, meter=meter)
    return Manifest((*manifest.entries, *entries), (*manifest.packs, pack))

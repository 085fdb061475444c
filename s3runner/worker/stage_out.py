"""Bringing out what the attempt made: declared outputs, streams and exit code.

Logs come back whatever happened; a job's outputs never hide that its tool failed.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from s3runner.errors import OutputMissingError, S3RunnerError
from s3runner.model import Manifest, Outcome, outcome_of
from s3runner.staging.manifest import document_digest, dump_document, dump_manifest
from s3runner.staging.plan import make_manifest
from s3runner.staging.records import Result
from s3runner.staging.scan import scan_outputs
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


def bring_out(attempt: Attempt, result: Result, *, with_outputs: bool) -> Result:
    """Upload what the outcome lets come back; return the result with its manifest and costs.

    A tool that succeeded may still end as output_missing, unsupported or another failure of ours.
    """
    meter = Meter()
    store = attempt.store.with_meter(meter)
    manifest = Manifest()
    if with_outputs and result.outcome in _WITH_OUTPUTS:
        try:
            manifest, result = _bring_outputs(attempt, store, meter, result)
        except S3RunnerError as error:
            result = _without_outputs(result, error)
    manifest, result = _with_streams(attempt, store, meter, manifest, result)
    body = dump_document(dump_manifest(manifest))
    store.put(attempt.keys.manifest, lambda: iter((body,)), size=len(body), part_size=len(body))
    phases = {**result.phases, "stage_out": meter.phase}
    return replace(result, phases=phases, manifest_digest=document_digest(body))


def _bring_outputs(
    attempt: Attempt, store: RetryingStore, meter: Meter, result: Result
) -> tuple[Manifest, Result]:
    spec = attempt.spec
    scan = scan_outputs(
        spec.outputs,
        attempt.work,
        [os.path.realpath(root) for root in (attempt.work, *spec.roots)],
    )
    manifest = stage_out(
        store,
        attempt.keys,
        scan,
        declared_files={output.path for output in spec.outputs},
        meter=meter,
    )
    result = replace(result, warnings=(*result.warnings, *scan.warnings))
    if scan.missing and result.outcome is Outcome.SUCCEEDED:
        missing = OutputMissingError(
            f"the tool did not write {', '.join(scan.missing)}",
            operation="stage-out",
            source=attempt.place(scan.missing[0]),
            hint="an output that may be absent is declared {path: …, optional: true}",
        )
        result = replace(result, outcome=Outcome.OUTPUT_MISSING, error=missing.to_json())
    return manifest, result


def _without_outputs(result: Result, error: S3RunnerError) -> Result:
    error.during("stage-out")
    print(f"s3runner: {error} [E{error.code}]", flush=True)
    if result.outcome is Outcome.SUCCEEDED:
        return replace(result, outcome=outcome_of(error.code), error=error.to_json())
    return replace(result, warnings=(*result.warnings, str(error)))


def _with_streams(
    attempt: Attempt, store: RetryingStore, meter: Meter, manifest: Manifest, result: Result
) -> tuple[Manifest, Result]:
    """Add streams and exit code; what the tool put in their place is left out with a warning."""
    members, warnings = [], list(result.warnings)
    for name in ("stdout", "stderr", "exit_code"):
        path = attempt.control_file(name)
        if not os.path.lexists(path):
            continue
        if stat.S_ISREG(os.lstat(path).st_mode):
            members.append((f"{REST}/{name}", path))
        else:
            warnings.append(f"the tool replaced its {name} by something that is no file")
    if members:
        pack, entries = put_pack(store, attempt.keys.rest, members, meter=meter)
        manifest = make_manifest((*manifest.entries, *entries), (*manifest.packs, pack))
    return manifest, replace(result, warnings=tuple(warnings))

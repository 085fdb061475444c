"""The init container: bring the inputs in, and lay out what shim and stager need.

It runs before the user's image, so whatever fails here fails before the tool has run.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from s3runner.errors import S3RunnerError
from s3runner.installed import job_scripts_dir
from s3runner.model import Phase, outcome_of
from s3runner.staging.download import materialise
from s3runner.staging.manifest import dump_document, dump_manifest
from s3runner.staging.placing import local_error
from s3runner.store.meter import Meter
from s3runner.store.origin import Elsewhere
from s3runner.store.retrying import Retry
from s3runner.worker.attempt import Attempt
from s3runner.worker.commit import failed, publish, read_commit


def fetch(attempt: Attempt) -> int:
    """Run the fetch hop; return the container's exit code.

    A failure is written as this attempt's result (and committed where the generation lets a pod
    decide it). If even that cannot be written, the code alone speaks and the head commits.
    """
    try:
        if read_commit(attempt) is None:
            _fetch_inputs(attempt)
            return 0
    except S3RunnerError as error:
        error.during("fetch")
        print(f"s3runner: {error} [E{error.code}]", flush=True)
        code = publish(attempt, failed(attempt, outcome_of(error.code), error.to_json()))
        if code != 0:
            return code
    # the job was decided without us: shim and stager look for this first
    _put_shim(attempt)
    Path(attempt.control_file("superseded")).touch()
    return 0


def _fetch_inputs(attempt: Attempt) -> None:
    manifest = attempt.inputs
    meter = Meter()
    fetched = materialise(
        attempt.store.with_meter(meter),
        manifest,
        attempt.place,
        meter=meter,
        widen=attempt.spec.destination.tool_has_own_user,
        elsewhere=Elsewhere(
            Retry(budget_s=attempt.config.retry_budget_s), meter, attempt.config.ca_pem
        ),
    )
    phase = meter.phase
    if fetched != manifest:
        # nobody had hashed these before; which bytes this attempt worked on is known from here on
        body = dump_document(dump_manifest(fetched))
        attempt.store.put(
            attempt.keys.inputs, lambda: iter((body,)), size=len(body), part_size=len(body)
        )
    print(f"s3runner: fetched {phase.files} files, {phase.bytes} bytes", flush=True)
    try:
        _lay_out(attempt, phase)
    except OSError as error:
        raise local_error(error, os.fsdecode(error.filename or attempt.control)) from error


def _lay_out(attempt: Attempt, phase: Phase) -> None:
    """Put there what shim and stager need; the FIFOs last, for they wait for those."""
    Path(attempt.work).mkdir(exist_ok=True)
    _put_shim(attempt)
    Path(attempt.control_file("command")).write_bytes(command_script(attempt.spec.command))
    Path(attempt.control_file("fetched.json")).write_text(json.dumps(phase.to_json()))
    for name in ("up", "down"):
        os.mkfifo(attempt.control_file(name))
        # mkfifo's mode is cut by the umask, and the tool may run as another user
        Path(attempt.control_file(name)).chmod(0o666)


def _put_shim(attempt: Attempt) -> None:
    shim = (job_scripts_dir() / "tool_shim.sh").read_bytes()
    Path(attempt.control_file("tool_shim.sh")).write_bytes(shim)


def command_script(command: str | tuple[str, ...]) -> bytes:
    """Return the shell script that runs the command: a string as it is, a list quoted."""
    text = command if isinstance(command, str) else f"exec {shlex.join(command)}"
    return os.fsencode(text.rstrip("\n") + "\n")

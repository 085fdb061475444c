"""`s3runner run`: submit, wait, sync."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from s3runner import wiring
from s3runner.cli.chosen import chosen_settings
from s3runner.cli.follow import Landing, run_to_end
from s3runner.cli.options import (
    into_option,
    job_file_argument,
    json_option,
    overwrite_option,
    place_options,
)
from s3runner.cli.rendering import listener_for
from s3runner.cli.report import Invocation
from s3runner.jobfile import load_job


@click.command("run")
@job_file_argument
@place_options
@into_option
@overwrite_option
@json_option
@click.pass_obj
def command(
    invocation: Invocation,
    *,
    job_file: Path,
    into: Path | None,
    overwrite: bool,
) -> int:
    """Run a job: submit it, wait for it, and bring its outputs back.

    Exits 0 when the job succeeded, 1 when it ended otherwise. Ctrl-C leaves the job running and
    says how to take it up again.
    """
    settings, name = chosen_settings(invocation)
    job = load_job(job_file, settings.references)
    runner = wiring.build(settings, name, os.environ)
    listener = listener_for(sys.stderr)
    return run_to_end(runner, job, invocation, listener, Landing(into, overwrite))

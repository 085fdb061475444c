"""`s3runner sync`: wait for a job, then bring its results here."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from s3runner.cli.follow import Landing, take_up
from s3runner.cli.opening import open_for
from s3runner.cli.options import (
    into_option,
    job_id_argument,
    json_option,
    overwrite_option,
    place_options,
)
from s3runner.cli.rendering import listener_for
from s3runner.cli.report import Invocation


@click.command("sync")
@job_id_argument
@place_options
@into_option
@overwrite_option
@json_option
@click.pass_obj
def command(  # one parameter an option
    invocation: Invocation,
    *,
    job_id: str,
    into: Path | None,
    overwrite: bool,
) -> int:
    """Wait for a job to end, whoever submitted it, and bring its results here.

    May be called again: what is here already and does not differ is left alone. Exits 0 when the
    job succeeded, 1 when it ended otherwise.
    """
    runner = open_for(job_id, invocation)
    listener = listener_for(sys.stderr)
    return take_up(runner, job_id, invocation, listener, Landing(into, overwrite))

"""`s3runner wait`: follow a job that somebody submitted to its end."""

from __future__ import annotations

import sys

import click

from s3runner.cli.follow import take_up
from s3runner.cli.opening import open_for
from s3runner.cli.options import job_id_argument, json_option, place_options
from s3runner.cli.rendering import listener_for
from s3runner.cli.report import Invocation


@click.command("wait")
@job_id_argument
@place_options
@json_option
@click.pass_obj
def command(invocation: Invocation, *, job_id: str) -> int:
    """Wait for a job to end, whoever submitted it; bring nothing back.

    Exits 0 when the job succeeded, 1 when it ended otherwise. A job whose submitter died before it
    was started is started.
    """
    runner = open_for(job_id, invocation)
    return take_up(runner, job_id, invocation, listener_for(sys.stderr), None)

"""`s3runner cancel`: end a job that was submitted."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from s3runner.cli.opening import open_for
from s3runner.cli.options import (
    destination_option,
    galaxy_config_option,
    job_conf_option,
    job_id_argument,
    json_option,
    settings_option,
)
from s3runner.cli.rendering import listener_for
from s3runner.cli.report import Invocation


@click.command("cancel")
@job_id_argument
@click.option(
    "--force", is_flag=True, help="End it also if its cluster is out of reach; its pods run on."
)
@settings_option
@destination_option
@job_conf_option
@galaxy_config_option
@json_option
@click.pass_obj
def command(
    invocation: Invocation,
    *,
    job_id: str,
    force: bool,
    settings_path: Path | None,
    destination: str | None,
) -> None:
    """End a job: from now on nothing that its pods do can decide it, and they are stopped.

    Returns when no pod is left. A job that has ended already stays as it is. Exits 0 in both cases,
    3 if a pod does not end.
    """
    runner = open_for(job_id, invocation, settings_path, destination)
    end, ours = runner.cancel(job_id, force=force)
    invocation.learn(job_id=job_id, end=end)
    said = "cancelled" if ours else f"had ended already ({end.outcome.value})"
    listener = listener_for(sys.stderr)
    listener.say(f"s3runner: job {job_id} {said}")
    if not runner.await_pods(job_id, listener):
        listener.warning("its cluster is out of reach: pods that run there were not stopped")

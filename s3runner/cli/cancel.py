"""`s3runner cancel`: end a job that was submitted."""

from __future__ import annotations

import sys

import click

from s3runner.cli.opening import open_for
from s3runner.cli.options import job_id_argument, json_option, place_options
from s3runner.cli.rendering import listener_for
from s3runner.cli.report import Invocation


@click.command("cancel")
@job_id_argument
@click.option(
    "--force", is_flag=True, help="End it also if its cluster is out of reach; its pods run on."
)
@place_options
@json_option
@click.pass_obj
def command(
    invocation: Invocation,
    *,
    job_id: str,
    force: bool,
) -> None:
    """End a job: from now on nothing that its pods do can decide it, and they are stopped.

    Returns when no pod is left. A job that has ended already stays as it is. Exits 0 in both cases,
    3 if a pod does not end.
    """
    runner = open_for(job_id, invocation)
    end, ours = runner.cancel(job_id, force=force)
    invocation.learn(job_id=job_id, end=end)
    said = "cancelled" if ours else f"had ended already ({end.outcome.value})"
    listener = listener_for(sys.stderr)
    listener.say(f"s3runner: job {job_id} {said}")
    if not runner.await_pods(job_id, listener):
        listener.warning("its cluster is out of reach: pods that run there were not stopped")

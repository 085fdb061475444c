"""`s3runner cancel`: end a job that was submitted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from s3runner import wiring
from s3runner.cli.chosen import chosen_settings
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
from s3runner.model import code_of
from s3runner.runner.report import JobEnd


@click.command("cancel")
@job_id_argument
@settings_option
@destination_option
@job_conf_option
@galaxy_config_option
@json_option
@click.pass_obj
def command(
    invocation: Invocation, *, job_id: str, settings_path: Path | None, destination: str | None
) -> None:
    """End a job: from now on nothing that its pods do can decide it, and they are stopped.

    Returns when no pod is left. A job that has ended already stays as it is. Exits 0 in both cases,
    3 if a pod does not end.
    """
    settings, name = chosen_settings(invocation, settings_path, destination)
    runner = wiring.build(settings, name, os.environ)
    outcome, ours = runner.cancel(job_id)
    invocation.learn(job_id=job_id, end=JobEnd(outcome, code_of(outcome)))
    said = "cancelled" if ours else f"had ended already ({outcome.value})"
    listener = listener_for(sys.stderr)
    listener.say(f"s3runner: job {job_id} {said}")
    runner.await_pods(job_id, listener)

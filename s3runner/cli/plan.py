"""`s3runner plan`: what `run` would do, with nothing written anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import click
import yaml

from s3runner import wiring
from s3runner.cli.chosen import chosen_settings
from s3runner.cli.options import job_file_argument, json_option, place_options
from s3runner.cli.rendering import plan_lines
from s3runner.cli.report import Invocation
from s3runner.jobfile import load_job


class _NoAliases(yaml.SafeDumper):
    """Writes a dict that stands in two places twice, as people would."""

    def ignore_aliases(self, data: object) -> bool:
        """Tell PyYAML that nothing is shared."""
        del data
        return True


@click.command("plan")
@job_file_argument
@place_options
@json_option
@click.pass_obj
def command(
    invocation: Invocation,
    *,
    job_file: Path,
) -> int:
    """Show what running a job would upload, and the Kubernetes Job it would make.

    Writes nothing but this machine's own cache of digests. The Job goes to stdout as YAML, the
    rest to stderr; with --json both are one object.
    """
    settings, destination = chosen_settings(invocation)
    job = load_job(job_file, settings.references)
    plan = wiring.build(settings, destination, os.environ).plan(job)
    invocation.document = plan.to_json()
    for line in plan_lines(plan):
        click.echo(line, err=True)
    if not invocation.wants_json:
        click.echo(yaml.dump(plan.job_object, Dumper=_NoAliases, sort_keys=False), nl=False)
    return 0

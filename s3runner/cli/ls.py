"""`s3runner ls`: what a job brought out, or what lies at a URI, without a sync."""

from __future__ import annotations

import os
from pathlib import Path

import click

from s3runner import wiring
from s3runner.cli.options import destination_option, json_option, settings_option
from s3runner.cli.rendering import show_size
from s3runner.cli.report import Invocation
from s3runner.errors import printable
from s3runner.settings import load_settings


@click.command("ls")
@click.argument("name", metavar="JOB_ID|URI")
@settings_option
@destination_option
@json_option
@click.pass_obj
def command(
    invocation: Invocation, *, name: str, settings_path: Path | None, destination: str | None
) -> None:
    """List a job's outputs, or what lies at an s3:// URI and below it.

    One line an entry on stdout: size, path, URI. The URIs are those that other jobs take as inputs.
    """
    invocation.settings = settings_path
    runner = wiring.build(load_settings(settings_path), destination, os.environ)
    found = runner.outputs_of(name)
    invocation.document = {"outputs": [output.to_json() for output in found]}
    if not invocation.wants_json:
        for output in found:
            size = show_size(output.size) if output.kind.value == "file" else output.kind.value
            click.echo(f"{size:>9}  {printable(output.path)}  {printable(output.uri)}".rstrip())

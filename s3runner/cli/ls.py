"""`s3runner ls`: what a job brought out, or what lies at a URI, without a sync."""

from __future__ import annotations

import click

from s3runner.cli.opening import open_runner
from s3runner.cli.options import json_option, place_options
from s3runner.cli.rendering import show_size
from s3runner.cli.report import Invocation
from s3runner.errors import printable


@click.command("ls")
@click.argument("name", metavar="JOB_ID|URI")
@place_options
@json_option
@click.pass_obj
def command(invocation: Invocation, *, name: str) -> None:
    """List a job's outputs, or what lies at an s3:// URI and below it.

    One line an entry on stdout: size, path, URI. The URIs are those that other jobs take as inputs.
    """
    runner = open_runner(invocation)
    found = runner.outputs_of(name)
    invocation.document = {"outputs": [output.to_json() for output in found]}
    if not invocation.wants_json:
        for output in found:
            size = show_size(output.size) if output.kind.value == "file" else output.kind.value
            click.echo(f"{size:>9}  {printable(output.path)}  {printable(output.uri)}".rstrip())

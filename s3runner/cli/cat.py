"""`s3runner cat`: a stored file's bytes, without a sync."""

from __future__ import annotations

import sys

import click

from s3runner.cli.opening import open_runner
from s3runner.cli.options import place_options
from s3runner.cli.report import Invocation


@click.command("cat")
@click.argument("uri", metavar="URI")
@place_options
@click.pass_obj
def command(invocation: Invocation, *, uri: str) -> None:
    """Write a stored file to stdout: an output by its URI, a pack's member, any other object.

    Each part of an output is verified before it is written.
    """
    runner = open_runner(invocation)
    for piece in runner.read(uri):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()

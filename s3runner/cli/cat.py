"""`s3runner cat`: a stored file's bytes, without a sync."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from s3runner import wiring
from s3runner.cli.options import destination_option, settings_option
from s3runner.cli.report import Invocation
from s3runner.settings import load_settings


@click.command("cat")
@click.argument("uri", metavar="URI")
@settings_option
@destination_option
@click.pass_obj
def command(
    invocation: Invocation, *, uri: str, settings_path: Path | None, destination: str | None
) -> None:
    """Write a stored file to stdout: an output by its URI, a pack's member, any other object.

    Each part of an output is verified before it is written.
    """
    invocation.settings = settings_path
    runner = wiring.build(load_settings(settings_path), destination, os.environ)
    for piece in runner.read(uri):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()

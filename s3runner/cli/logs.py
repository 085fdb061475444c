"""`s3runner logs`: what a job's tool wrote to stdout and stderr."""

from __future__ import annotations

import sys

import click

from s3runner.cli.opening import open_for
from s3runner.cli.options import job_id_argument, place_options
from s3runner.cli.report import Invocation


@click.command("logs")
@job_id_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@place_options
@click.pass_obj
def command(
    invocation: Invocation,
    *,
    job_id: str,
    follow: bool,
) -> None:
    """Print the tool's stdout on stdout and its stderr on stderr, byte for byte.

    Of a job that has ended, all of it; before that, what the newest attempt has brought so far.
    With -f also what is still to come, and the job is waited for as `wait` does it. Exits 0
    however the job ends.
    """
    runner = open_for(job_id, invocation)
    runner.logs(job_id, _OwnStreams(), follow=follow)


class _OwnStreams:
    """This process's own stdout and stderr."""

    def write(self, stream: str, piece: bytes) -> None:
        """Pass the bytes on, at once and as they are."""
        target = sys.stdout if stream == "stdout" else sys.stderr
        target.buffer.write(piece)
        target.buffer.flush()

    def note(self, text: str) -> None:
        """Say it on stderr."""
        click.echo(f"s3runner: {text}", err=True)

"""`s3runner demo`: the main job on a store of its own, and what happened, hop by hop."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from s3runner import wiring
from s3runner.cli.demo_data import write_laboratory
from s3runner.cli.demo_store import ACCESS_KEY, SECRET_KEY, embedded_store
from s3runner.cli.follow import Landing, run_to_end
from s3runner.cli.options import json_option
from s3runner.cli.rendering import hop_name, listener_for, show_size
from s3runner.cli.report import Invocation
from s3runner.errors import printable
from s3runner.jobfile import load_job
from s3runner.model import Credentials
from s3runner.runner.report import PHASES, JobReport
from s3runner.runner.runner import Runner
from s3runner.settings import parse_settings
from s3runner.store.control import create_bucket

BUCKET = "demo"

SETTINGS = """\
store: {{url: "s3://{bucket}/runs", endpoint: "{endpoint}", insecure_http: true}}
references: {{genome: "s3://{bucket}/references/genome.fa"}}
destinations: {{default: {{cluster: local}}}}
"""

_MOVES = {
    "stage_in": "this machine -> S3",
    "fetch": "S3 -> pod",
    "run": "the tool, in the pod",
    "stage_out": "pod -> S3",
    "sync": "S3 -> this machine",
}


@click.command("demo")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path("demo-result"),
    metavar="DIR",
    help="Where the results land (default: ./demo-result).",
)
@json_option
@click.pass_obj
def command(invocation: Invocation, *, into: Path) -> int:
    """Run a job against a store of its own, on this machine.

    Starts an S3 server in memory on loopback, makes sequencing reads of two samples, checks their
    quality in a pod that shares nothing with this machine but the bucket, and shows each hop. Needs
    no root and no network.
    """
    listener = listener_for(sys.stderr)
    with contextlib.ExitStack() as stack:
        laboratory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s3runner-demo-")))
        listener.say("s3runner: demo: making reads of two samples, and starting an S3 server")
        job_file = write_laboratory(laboratory)
        endpoint = stack.enter_context(embedded_store())
        text = SETTINGS.format(bucket=BUCKET, endpoint=endpoint)
        settings = parse_settings(text, "the demo's settings", laboratory)
        keys = Credentials(ACCESS_KEY, SECRET_KEY)
        create_bucket(settings.store_config(), keys)
        runner = wiring.build(settings, None, keys.environment)
        _store_reference(runner, laboratory / "genome.fa")
        job = load_job(job_file, settings.references)
        code = run_to_end(runner, job, invocation, listener, Landing(into, overwrite=True))
        for line in _story(runner, invocation.report, into):
            listener.say(line)
    return code


def _store_reference(runner: Runner, genome: Path) -> None:
    """Put the genome where a site's indices would lie: it is no input of the job."""
    body = genome.read_bytes()
    size = len(body)
    runner.head.store.put("references/genome.fa", lambda: iter((body,)), size=size, part_size=size)


def _story(runner: Runner, report: JobReport, into: Path) -> Iterator[str]:
    """Yield what happened: the hops, the result, and what lies in the bucket."""
    yield "\nThe job's way:"
    yield "  hop        from -> to              files     bytes  requests  seconds"
    phases = report.to_json()["phases"]
    for name in PHASES:
        phase = phases[name]
        if phase is not None:
            size = show_size(phase["bytes"])
            yield (
                f"  {hop_name(name):<10} {_MOVES[name]:<22} {phase['files']:>6} {size:>9} "
                f"{phase['requests']:>9} {phase['seconds']:>8.2f}"
            )
    yield f"\nThe result, in {printable(str(into))}/:"
    for path in sorted(into.rglob("*")):
        if path.is_file():
            yield f"  {printable(str(path.relative_to(into))):<26} {show_size(path.stat().st_size)}"
    yield f"\nThe bucket, below s3://{BUCKET}/runs/:"
    for item in sorted(runner.head.store.list("runs/"), key=lambda found: found.key):
        yield f"  {printable(item.key.removeprefix('runs/')):<110} {show_size(item.size):>9}"
    summary = into / "summary.tsv"
    if summary.exists():
        yield "\nsummary.tsv (which sample would you sequence again?):"
        yield from (f"  {line}" for line in _table(summary))


def _table(path: Path) -> Iterator[str]:
    """Yield a tab-separated file in columns."""
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))

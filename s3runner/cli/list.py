"""`s3runner list`: the jobs that lie in the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone

import click

from s3runner.cli.opening import QUESTION_S, open_runner
from s3runner.cli.options import json_option, place_options
from s3runner.cli.rendering import cluster_lines, error_lines, show_age
from s3runner.cli.report import Invocation
from s3runner.errors import ClusterUnavailableError, S3RunnerError, printable
from s3runner.runner.job_status import JobRow, Wanted
from s3runner.runner.report import STATES
from s3runner.yamlfile import seconds_of

_HEADINGS = ("JOB", "NAME", "STATE", "OUTCOME", "AGE")


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read a span of time as job files have it."""
    try:
        return None if value is None else seconds_of(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}", ctx, param) from error


@click.command("list")
@click.option(
    "--state",
    "states",
    type=click.Choice(STATES),
    multiple=True,
    help="Only jobs in this state; may be given several times.",
)
@click.option("--name", metavar="GLOB", help="Only jobs of such a name, as in a shell: 'sort-*'.")
@click.option(
    "--newer-than", callback=_seconds, metavar="TIME", help="Such as 90s, 30m, 2h, 1d or 1h30m."
)
@click.option("--older-than", callback=_seconds, metavar="TIME", help="Likewise.")
@place_options
@json_option
@click.pass_obj
def command(  # click passes an argument for each flag
    invocation: Invocation,
    *,
    states: tuple[str, ...],
    name: str | None,
    newer_than: float | None,
    older_than: float | None,
) -> None:
    """List the jobs below the store's prefix, whoever submitted them, the newest first.

    The age of a job is counted from its submission.
    """
    now = datetime.now(timezone.utc)
    wanted = Wanted(
        states=frozenset(states),
        name=name,
        after=_ago(now, newer_than),
        before=_ago(now, older_than),
    )
    runner = open_runner(invocation, api_budget_s=QUESTION_S)
    rows = runner.list_jobs(wanted)
    invocation.document = {"jobs": [row.to_json() for row in rows]}
    for line in _problem_lines([row.problem for row in rows if row.problem is not None]):
        click.echo(line, err=True)
    if rows and not invocation.wants_json:
        for line in table(rows, now):
            click.echo(line)


def table(rows: Sequence[JobRow], now: datetime) -> list[str]:
    """Return the jobs as lines of equal columns, below a line of headings."""
    cells = [_HEADINGS, *(_cells(row, now) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _problem_lines(problems: Sequence[S3RunnerError]) -> Iterator[str]:
    """Yield what is wrong with single jobs, then that a cluster did not answer for any."""
    for problem in problems:
        if not isinstance(problem, ClusterUnavailableError):
            yield from error_lines(problem)
    yield from cluster_lines(problems)


def _cells(row: JobRow, now: datetime) -> tuple[str, ...]:
    return (
        printable(row.job_id),
        printable(row.name or "-"),
        row.state or _unknown(row),
        row.outcome.value if row.outcome is not None else "-",
        show_age((now - row.created).total_seconds()) if row.created is not None else "-",
    )


def _unknown(row: JobRow) -> str:
    """Say why a job has no state here."""
    if row.problem is None:
        return "elsewhere"
    return "unknown" if isinstance(row.problem, ClusterUnavailableError) else "unreadable"


def _ago(now: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else now - timedelta(seconds=seconds)

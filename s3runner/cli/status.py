"""`s3runner status`: what is known of jobs now, without waiting for anything."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

import click

from s3runner.cli.opening import QUESTION_S, open_for, open_runner
from s3runner.cli.options import job_ids_argument, json_option, place_options
from s3runner.cli.rendering import cluster_lines, show_age, show_count
from s3runner.cli.report import Invocation
from s3runner.errors import printable
from s3runner.runner.job_status import JobStatus
from s3runner.runner.turns import Room


@click.command("status")
@job_ids_argument
@place_options
@json_option
@click.pass_obj
def command(
    invocation: Invocation,
    *,
    job_ids: tuple[str, ...],
) -> None:
    """Show what is known of jobs now: state, outcome, attempts.

    Changes nothing and waits for nothing. A job that runs on another cluster than the
    destination's, or on one that does not answer, is known from the store alone. Exits 0 whatever
    the jobs' outcomes are.
    """
    if len(job_ids) == 1:
        runner = open_for(job_ids[0], invocation, api_budget_s=QUESTION_S)
    else:
        runner = open_runner(invocation, api_budget_s=QUESTION_S)
    found = runner.look_up(job_ids)
    documents = [status.to_json() for status in found]
    invocation.document = documents[0] if len(documents) == 1 else {"jobs": documents}
    for line in cluster_lines(status.row.problem for status in found):
        click.echo(line, err=True)
    if not invocation.wants_json:
        now = datetime.now(timezone.utc)
        for status in found:
            click.echo(status_line(status, now))


def status_line(status: JobStatus, now: datetime) -> str:
    """Return one line on a job: id, name, state and since when, then its counts."""
    row = status.row
    counts = "; ".join(_counts(status))
    state = " ".join(_state(status, now))
    return f"{row.job_id}  {printable(row.name or '-')}  {state} ({counts})"


def _state(status: JobStatus, now: datetime) -> Iterator[str]:
    row, end = status.row, status.end
    state = row.state
    age = None if status.since is None else show_age((now - status.since).total_seconds())
    if end is not None:
        yield f"ended: {end.outcome.value}"
        yield from [f"[E{end.code}]"] if end.code else []
        yield from [f"{age} ago"] if age else []
    elif state == "ended":
        yield f"ended, but not decided: s3runner wait {row.job_id} goes on with it"
    elif state is None and row.problem is not None:
        yield "unknown: its cluster did not answer"
    elif state is None:
        yield "unknown here: it runs on another cluster"
    else:
        yield f"{state}: {printable(status.reason)}" if status.reason else state
        yield from [f"{'- ' if status.reason else ''}for {age}"] if age else []
        yield from [f"- {_waiting(status.room, row.job_id)}"] if status.room else []


def _waiting(room: Room, job_id: str) -> str:
    if room.is_full:
        return f"waiting: {room}"
    return f"{room}: s3runner wait {job_id} starts it"


def _counts(status: JobStatus) -> Iterator[str]:
    yield show_count(status.attempts, "attempt")
    yield f"generation {status.generation}"
    for cause, times in status.spent.items():
        yield f"{times} x {printable(cause)}"

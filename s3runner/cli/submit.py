"""`s3runner submit`: stage jobs in and start them; somebody else waits for them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from s3runner import wiring
from s3runner.cli.chosen import chosen_settings
from s3runner.cli.follow import JobRunner, submit_only
from s3runner.cli.options import job_files_argument, json_option, place_options
from s3runner.cli.rendering import listener_for, show_count
from s3runner.cli.report import Invocation
from s3runner.errors import S3RunnerError, SettingsError, StagingError
from s3runner.jobfile import load_jobs
from s3runner.model import Job, Reference
from s3runner.runner.report import JobReport
from s3runner.runner.runner import Runner


@click.command("submit")
@job_files_argument
@place_options
@json_option
@click.pass_obj
def command(
    invocation: Invocation,
    *,
    job_files: tuple[Path, ...],
) -> None:
    """Submit the jobs of one or more files, and print their ids.

    A file may hold several YAML documents. All files and inputs are looked at before anything is
    uploaded; then one job after another is stored and started. Exits 0 when all of them were.
    """
    invocation.submitted = []
    settings, destination = chosen_settings(invocation)
    jobs = _load(job_files, settings.references)
    runner = wiring.build(settings, destination, os.environ)
    if len(jobs) > 1:
        _check(runner, jobs)
    submit_all(runner, jobs, invocation)


def submit_all(runner: JobRunner, jobs: Sequence[Job], invocation: Invocation) -> None:
    """Submit one job after another; the first failure ends it, and the jobs before it go on."""
    submitted = invocation.submitted = []
    try:
        for job in jobs:
            _submit(runner, job, invocation)
            submitted.append(invocation.report)
    except S3RunnerError:
        if len(jobs) > 1:
            done = f"{len(submitted)} of {show_count(len(jobs), 'job')}"
            click.echo(f"s3runner: {done} had been submitted", err=True)
        raise
    invocation.ended = True


def _submit(runner: JobRunner, job: Job, invocation: Invocation) -> None:
    invocation.report = JobReport()
    listener = listener_for(sys.stderr)
    if not invocation.wants_json:
        # not later: from this moment on the job goes on without us
        listener.announce = click.echo
    submit_only(runner, job, invocation, listener)


def _load(files: Sequence[Path], references: Mapping[str, Reference]) -> list[Job]:
    """Read all files; raise one SettingsError with the mistakes of all."""
    jobs: list[Job] = []
    mistakes: list[str] = []
    for path in files:
        try:
            jobs += load_jobs(path, references)
        except SettingsError as error:  # noqa: PERF203  # all mistakes are told together
            mistakes.append(error.reason)
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return jobs


def _check(runner: Runner, jobs: Sequence[Job]) -> None:
    """Find all that stands in the way of any job; raise it together."""
    failures: list[S3RunnerError] = []
    for job in jobs:
        try:
            runner.check(job)
        except StagingError as error:  # noqa: PERF203  # all failures are told together
            failures += error.failures
        except SettingsError:
            raise
        except S3RunnerError as error:
            failures.append(error)
    if failures:
        raise StagingError("stage-in", failures)

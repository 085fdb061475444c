"""The runner that a verb works with: at the destination that was named, or a stored job's own.

It stands apart from the verbs because all of them have to choose the same one.
"""

from __future__ import annotations

import os

from s3runner import wiring
from s3runner.cli.chosen import chosen_settings
from s3runner.cli.report import Invocation
from s3runner.errors import S3RunnerError, SettingsError
from s3runner.runner.runner import Runner

QUESTION_S = 20.0
"""How long a verb that only asks tries to reach a cluster, before it tells what the store knows."""


def open_runner(invocation: Invocation, *, api_budget_s: float | None = None) -> Runner:
    """Return a runner at the destination that was named, or is the default. Raises SettingsError.

    `api_budget_s` is that of `wiring.build`.
    """
    settings, name = chosen_settings(invocation)
    return wiring.build(settings, name, os.environ, api_budget_s=api_budget_s)


def open_for(job_id: str, invocation: Invocation, *, api_budget_s: float | None = None) -> Runner:
    """Return a runner for a job; the destination that the user named goes first.

    `api_budget_s` is that of `wiring.build`. Raises SettingsError, and the store's errors where the
    spec has to be read for it.
    """
    settings, name = chosen_settings(invocation)
    try:
        return wiring.build_for_job(settings, job_id, name, os.environ, api_budget_s=api_budget_s)
    except SettingsError:
        raise
    except S3RunnerError as error:
        error.during("read")
        raise

"""The options that several verbs take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from s3runner.cli.report import Invocation

F = TypeVar("F", bound=Callable[..., Any])


def _keep(ctx: click.Context, param: click.Parameter, value: Path | str | None) -> None:
    """Put the value where every verb's settings are looked for."""
    invocation: Invocation = ctx.obj
    setattr(invocation, str(param.name), value)


_PATH = click.Path(path_type=Path)
_kept = partial(click.option, expose_value=False, callback=_keep)

_PLACE_OPTIONS = (
    _kept(
        "--settings",
        type=_PATH,
        metavar="FILE",
        help="The settings file; otherwise $S3RUNNER_SETTINGS, ./s3runner.yml, or the user's own.",
    ),
    _kept("--destination", metavar="NAME", help="Where to run, by its name in the settings."),
    _kept(
        "--job-conf",
        type=_PATH,
        metavar="FILE",
        help="Instead of settings: Galaxy's job configuration, of which --destination names one.",
    ),
    _kept(
        "--galaxy-config",
        type=_PATH,
        metavar="FILE",
        help="Galaxy's galaxy.yml beside it, where that holds parameters too.",
    ),
)


def place_options(command: F) -> F:
    """Let a verb take the options that say which store and which destination it is about.

    The invocation keeps them: `opening` makes a runner of them.
    """
    for option in reversed(_PLACE_OPTIONS):
        command = option(command)
    return command


# Its value is read from the raw command line: even one that cannot be parsed gets its object.
json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    help="Print one JSON object on stdout, on failure too.",
)

job_file_argument = click.argument("job_file", type=_PATH, metavar="JOB.YML")

job_files_argument = click.argument(
    "job_files", type=_PATH, metavar="JOB.YML...", nargs=-1, required=True
)

job_ids_argument = click.argument("job_ids", metavar="JOB_ID...", nargs=-1, required=True)

job_id_argument = click.argument("job_id", metavar="JOB_ID")


def _directory(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a place for the results before anything is waited for."""
    if value is not None and value.exists() and not value.is_dir():
        raise click.BadParameter(f"{value}: not a directory", ctx, param)
    return value


into_option = click.option(
    "--into",
    callback=_directory,
    type=_PATH,
    metavar="DIR",
    help="Where the results land; otherwise ./<job name>/, absolute outputs at their own place.",
)

overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace existing directories that differ."
)

"""`s3runner job-conf`: Galaxy's job configuration, as s3runner understands it.

It stands apart from Galaxy's runner, which reads the same parameters when Galaxy starts: here they
can be looked at before that, and elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from s3runner.cli.options import json_option
from s3runner.cli.report import Invocation
from s3runner.errors import SettingsError, printable
from s3runner.galaxy.job_conf import ConfDestination, JobConf, load_galaxy_config, load_job_conf
from s3runner.galaxy.params import GalaxyDestination, Params, destination_of

Understood = tuple[ConfDestination, GalaxyDestination]


@click.group("job-conf", subcommand_metavar="check FILE")
def command() -> None:
    """Look at Galaxy's job configuration, without Galaxy."""


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--galaxy-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Galaxy's own configuration, galaxy.yml, which may hold parameters too.",
)
@click.option("--destination", metavar="ID", help="Only this destination.")
@json_option
@click.pass_obj
def check(
    invocation: Invocation, *, file: Path, galaxy_config: Path | None, destination: str | None
) -> None:
    """Check a job_conf.xml or job_conf.yml, and print what its destinations mean.

    Each destination that s3runner runs is printed in the form of s3runner.yml, as a YAML document
    of its own. Exits 2 with a sentence for each mistake.
    """
    config = load_galaxy_config(galaxy_config)
    found = load_job_conf(file, config)
    wanted = found.destinations if destination is None else (found.destination(destination),)
    understood = _understood(wanted, found, config)
    invocation.document = {"destinations": [_to_json(*each) for each in understood]}
    _tell_of_others(found, wanted)
    if not invocation.wants_json:
        click.echo("---\n".join(_to_yaml(*each) for each in understood), nl=False)


def _understood(
    wanted: Sequence[ConfDestination], found: JobConf, config: Params
) -> list[Understood]:
    """Translate the destinations. Raises one SettingsError with the mistakes of all."""
    understood: list[Understood] = []
    mistakes: list[str] = []
    for each in wanted:
        try:
            meant = destination_of(
                each.runner_params, each.params, config, name=each.name, base_dir=found.base_dir
            )
        except SettingsError as error:  # noqa: PERF203  # all mistakes are told together
            mistakes += [f"{each.origin}: {line}" for line in error.reason.splitlines()]
        else:
            understood.append((each, meant))
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return understood


def _tell_of_others(found: JobConf, wanted: Sequence[ConfDestination]) -> None:
    if not wanted:
        click.echo(f"s3runner: {found.origin}: no destination of s3runner's own runner", err=True)
    if found.others:
        names = ", ".join(printable(name) for name in found.others)
        click.echo(f"s3runner: {found.origin}: of other runners, not checked: {names}", err=True)


def _to_yaml(written: ConfDestination, meant: GalaxyDestination) -> str:
    lines = [f"destination {written.name}, runner {written.runner}"]
    if meant.options.env:
        lines.append(f"variables of the tool: {', '.join(_variables(meant))}")
    return "".join((*(f"# {printable(line)}\n" for line in lines), meant.as_yaml()))


def _to_json(written: ConfDestination, meant: GalaxyDestination) -> dict[str, Any]:
    return {
        "id": written.name,
        "runner": written.runner,
        "env": _variables(meant),
        "settings": meant.document,
    }


def _variables(meant: GalaxyDestination) -> list[str]:
    """Return the names of the tool's variables: their values may be secret."""
    return sorted(meant.options.env)

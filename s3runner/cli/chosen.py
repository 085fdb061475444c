"""The settings that a command line names: a file of s3runner's own, or Galaxy's job configuration.

It stands apart so that the verbs that take both say so in one line.
"""

from __future__ import annotations

from pathlib import Path

from s3runner.cli.report import Invocation
from s3runner.errors import SettingsError
from s3runner.settings import Settings, load_settings


def chosen_settings(
    invocation: Invocation, settings_path: Path | None, destination: str | None
) -> tuple[Settings, str | None]:
    """Return the settings, and which of their destinations is meant.

    The invocation keeps what was named, for the command lines that it proposes. Raises
    SettingsError.
    """
    invocation.settings, invocation.destination = settings_path, destination
    if invocation.job_conf is None:
        if invocation.galaxy_config is not None:
            raise SettingsError("--galaxy-config stands beside --job-conf only")
        return load_settings(settings_path), destination
    if settings_path is not None:
        raise SettingsError("--settings and --job-conf: name one of them")
    if destination is None:
        raise SettingsError("--job-conf needs --destination ID")
    return _galaxy_settings(invocation.job_conf, invocation.galaxy_config, destination), None


def _galaxy_settings(path: Path, galaxy_config: Path | None, destination: str) -> Settings:
    # no other command line needs an XML parser
    from s3runner.galaxy.job_conf import load_galaxy_config, load_job_conf  # noqa: PLC0415
    from s3runner.galaxy.params import settings_of  # noqa: PLC0415

    config = load_galaxy_config(galaxy_config)
    conf = load_job_conf(path, config)
    found = conf.destination(destination)
    try:
        return settings_of(
            found.runner_params, found.params, config, name=found.name, base_dir=conf.base_dir
        )
    except SettingsError as error:
        lines = (f"{found.origin}: {line}" for line in error.reason.splitlines())
        raise SettingsError("\n".join(lines)) from error

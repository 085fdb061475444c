"""The settings that a command line names: a file of s3runner's own, or Galaxy's job configuration.

It stands apart so that every verb takes either.
"""

from __future__ import annotations

from pathlib import Path

from s3runner.cli.report import Invocation
from s3runner.errors import SettingsError
from s3runner.settings import Settings, load_settings


def chosen_settings(invocation: Invocation) -> tuple[Settings, str | None]:
    """Return the settings, and which of their destinations is meant. Raises SettingsError."""
    if invocation.job_conf is None:
        if invocation.galaxy_config is not None:
            raise SettingsError("--galaxy-config stands beside --job-conf only")
        return load_settings(invocation.settings), invocation.destination
    if invocation.settings is not None:
        raise SettingsError("--settings and --job-conf: name one of them")
    if invocation.destination is None:
        raise SettingsError("--job-conf needs --destination ID")
    found = _galaxy_settings(invocation.job_conf, invocation.galaxy_config, invocation.destination)
    return found, None


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

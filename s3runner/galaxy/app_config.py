"""What Galaxy's own configuration says that concerns us.

It stands apart from the runner because nothing here is changed, or depends on where a job is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_OF_GALAXY = ("outputs_to_working_directory", "metadata_strategy", "tool_evaluation_strategy")


def config_of(config: Any) -> dict[str, Any]:
    """Return of galaxy.yml what is a parameter of ours, or has to be so or so for us."""
    written = {**config.config_dict}
    ours = {name: value for name, value in written.items() if name.startswith(("s3runner_", "gg_"))}
    return {**ours, **{name: getattr(config, name) for name in _OF_GALAXY}}


def directory_of_job_conf(config: Any) -> Path:
    """Return where relative paths of parameters start: as for `s3runner job-conf`.

    A job configuration may also stand in galaxy.yml itself.
    """
    inline = "job_config" in config.config_dict
    file = config.config_file if inline else config.job_config_file
    return Path(os.path.abspath(file or "galaxy.yml")).parent


def dataset_directories(config: Any) -> tuple[str, ...]:
    """Return the directories below which Galaxy keeps datasets."""
    named = (config.file_path, config.object_store_cache_path, config.new_file_path)
    return tuple(os.path.abspath(path) for path in named if path)


def destinations_of(job_config: Any, runner: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the params of a plugin's destinations by their ids.

    Galaxy does not tell a plugin its name: it is known by its class and its own parameters.
    """
    ours = {
        plugin["id"]
        for plugin in job_config.runner_plugins
        if plugin["load"].endswith(runner) and (plugin.get("kwds") or {}) == given
    }
    return {
        each.id: each.params
        for group in job_config.destinations.values()
        for each in group
        if each.runner in ours
    }


def own_params(job_config: Any, destination: Any) -> dict[str, Any]:
    """Return the params of a resubmitted job's destination without those of the one before.

    When Galaxy resubmits a job, it lays the new destination's over the old one's. What a rule has
    made of a destination differs from what is written, and stays.
    """
    params = dict(destination.params)
    known = job_config.destinations.get(destination.id)
    if not known or known[0].runner != destination.runner:
        return params
    written = dict(job_config.get_destination(destination.id).params)
    return written if written.items() <= params.items() else params

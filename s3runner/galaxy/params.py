"""A destination of Galaxy's job configuration, translated into the settings of s3runner.

It stands apart from the runner because `s3runner job-conf` reads the same parameters without
Galaxy. Whether a value is right is decided by the models of `s3runner.yml`, so that there is one
truth; here is only which parameter becomes which setting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from s3runner.errors import SettingsError, printable
from s3runner.galaxy.overlay import Overlay
from s3runner.galaxy.param_table import (
    FORK,
    KUBERNETES,
    OF_THE_RUNNER,
    PREFIX,
    SETTINGS_FILE,
    OptionFields,
    Tables,
    own_params,
)
from s3runner.galaxy.readings import truth
from s3runner.galaxy.settings_file import settings_below
from s3runner.kubernetes_fields import CREDENTIAL_FORMS
from s3runner.model import Destination, StoreConfig
from s3runner.nearest import did_you_mean
from s3runner.settings import Settings
from s3runner.settings_model import SettingsFile
from s3runner.yamlfile import Plain, mistakes_of, show_location

_OURS = (PREFIX, "k8s_", "requests_", "limits_", "max_pod_")
_LONGEST_NAME = 63

EMPTY = "empty"
"""What `missing_outputs` says where an output that a tool never wrote is an empty dataset."""

LINK = "link"
"""What `sync` says where results stay in the bucket and are links here."""

_DIRECTORY = "directory"
"""Of Galaxy's ways to make metadata the one that moves a job's files into their places."""

Params = Mapping[str, Any]
Mistakes = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Options:
    """What Galaxy's runner does with a destination's jobs on the head; fields of OptionFields."""

    staging_workers: int = 4
    missing_outputs: str = "fail"
    sync: str = "copy"
    mount: str | None = None
    evict_inputs: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GalaxyDestination:
    """A destination as s3runner understands it: settings with one destination, and the options.

    `document` holds the same settings in the form of `s3runner.yml`.
    """

    settings: Settings
    options: Options
    document: Mapping[str, Any]

    @property
    def destination(self) -> Destination:
        """Where and how the pods run."""
        return self.settings.destination()

    @property
    def store(self) -> StoreConfig:
        """The store as this machine sees it."""
        return self.settings.store_config()

    def as_yaml(self) -> str:
        """Return the settings as a file `s3runner.yml` would have them."""
        return yaml.dump(self.document, Dumper=_AsItStood, sort_keys=False, allow_unicode=True)


class _AsItStood(yaml.SafeDumper):
    """Writes what had no quotes without them: others may read a number or a truth value there."""

    def plain(self, text: Plain) -> yaml.ScalarNode:
        """Represent text that stood without quotes."""
        tag: str = self.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        return self.represent_scalar(tag, text)


_AsItStood.add_representer(Plain, _AsItStood.plain)


def runner_param_specs() -> dict[str, dict[str, Any]]:
    """Return the parameters of a plugin in Galaxy's form. They pass as they are written.

    Galaxy's own checks end at the first mistake and tell its name only; `destination_of` tells all
    mistakes, with their reasons.
    """
    names = (*KUBERNETES.taken, *KUBERNETES.refused, *own_params().taken)
    return {name: {"map": _as_written, "default": None} for name in names}


def destination_of(
    runner_params: Params,
    destination_params: Params,
    galaxy_config: Params,
    *,
    name: str = "galaxy",
    base_dir: Path = Path("/"),
) -> GalaxyDestination:
    """Return what a destination means, as Galaxy would use it.

    What a destination says goes before its runner's parameters, these before galaxy.yml, and that
    before a settings file that one of them names. An empty value takes away what would be said
    otherwise. Relative paths start at `base_dir`. Raises SettingsError with one sentence for each
    mistake.
    """
    levels = (galaxy_config, runner_params, destination_params)
    found, mistakes = _translate(levels, base_dir)
    mistakes += _demands(destination_params, galaxy_config, found)
    return _checked(found, mistakes, name, base_dir)


def settings_of(
    runner_params: Params,
    destination_params: Params,
    galaxy_config: Params,
    *,
    name: str = "galaxy",
    base_dir: Path = Path("/"),
) -> Settings:
    """Return the settings behind a destination for jobs that are not Galaxy's."""
    levels = (galaxy_config, runner_params, destination_params)
    found, mistakes = _translate(levels, base_dir)
    return _checked(found, mistakes, name, base_dir).settings


def staging_workers(runner_params: Params) -> int:
    """Return how many jobs a runner stages at a time. Raises SettingsError."""
    said = {name: runner_params[name] for name in OF_THE_RUNNER if name in runner_params}
    found, mistakes = _translate(({}, said, {}), Path())
    options = _options(found, mistakes)
    if options is None:
        raise _error("runner", mistakes)
    return options.staging_workers


def _translate(levels: tuple[Params, Params, Params], base_dir: Path) -> tuple[Overlay, Mistakes]:
    """Lay one level over the other: a settings file, the fork's words, galaxy.yml, and so on."""
    config, runner, destination = levels
    found = Overlay()
    path, name = (_nearest(levels, each) for each in SETTINGS_FILE)
    if path:
        found.document = settings_below(base_dir / Path(path).expanduser(), name)
    forks = {name: value for name, value in config.items() if name in FORK.taken}
    if "gg_workspace_bucket" in forks:
        forks.pop("gg_storage_bucket", None)
    own = {name: value for name, value in config.items() if name.startswith(PREFIX)}
    both = Tables({**KUBERNETES.taken, **own_params().taken}, KUBERNETES.refused)
    mistakes = _lay(found, forks, FORK)
    mistakes += _lay(found, own, own_params(), OF_THE_RUNNER)
    mistakes += _lay(found, _of_ours(runner), both)
    mistakes += _lay(found, _of_ours(destination), both, OF_THE_RUNNER)
    return found, mistakes


def _nearest(levels: Iterable[Params], name: str) -> str | None:
    said = [params[name] for params in levels if params.get(name) is not None]
    return str(said[-1]).strip() or None if said else None


def _of_ours(params: Params) -> Params:
    return {name: value for name, value in params.items() if name.startswith(_OURS)}


def _lay(found: Overlay, params: Params, tables: Tables, elsewhere: Iterable[str] = ()) -> Mistakes:
    mistakes: Mistakes = []
    known = {}
    for name, value in params.items():
        if name in elsewhere:
            mistakes.append((name, "belongs to the runner"))
        elif name in tables.taken:
            known[name] = (tables.taken[name], value)
        elif value not in (None, ""):
            near = did_you_mean(name, tables.taken)
            mistakes.append((name, tables.refused.get(name) or f"unknown parameter{near}"))
    return mistakes + found.lay(known)


def _demands(params: Params, config: Params, found: Overlay) -> Mistakes:
    """Tell what a destination needs of Galaxy itself."""

    def said(name: str, default: object) -> Any:
        value = params.get(name)
        return value if value is not None else config.get(name, default)

    mistakes: Mistakes = []
    if not _is_true(said("outputs_to_working_directory", default=False)):
        why = "must be true, here or in galaxy.yml: outputs come back below the job's directory"
        mistakes.append(("outputs_to_working_directory", why))
    if said("tool_evaluation_strategy", "local") != "local":
        why = "must be local: remote needs Galaxy in the tool's image"
        mistakes.append(("tool_evaluation_strategy", why))
    if found.get("destination", "cluster") != "local" and not _is_true(
        params.get("docker_enabled")
    ):
        mistakes.append(("docker_enabled", "must be true: a pod needs an image"))
    mistakes += _demands_of_links(str(said("metadata_strategy", _DIRECTORY)), found)
    return mistakes


def _demands_of_links(metadata_strategy: str, found: Overlay) -> Mistakes:
    """Tell what results by link need."""
    mistakes: Mistakes = []
    is_link = found.get("options", "sync") == LINK
    if is_link and metadata_strategy != _DIRECTORY:
        why = f"{LINK} needs metadata_strategy: {_DIRECTORY}; extended copies what is linked"
        mistakes.append((f"{PREFIX}sync", why))
    if found.get("options", "mount") is None:
        why = f"needs {PREFIX}mount, the directory where the bucket is seen"
        wanted = {"sync": is_link, "evict_inputs": found.get("options", "evict_inputs")}
        mistakes += [(f"{PREFIX}{name}", why) for name, is_wanted in wanted.items() if is_wanted]
    return mistakes


def _is_true(value: object) -> bool:
    try:
        return truth(value)
    except ValueError:
        return False


def _checked(found: Overlay, mistakes: Mistakes, name: str, base_dir: Path) -> GalaxyDestination:
    options = _options(found, mistakes)
    document = _document(found, mistakes, _safe_name(name))
    try:
        file = SettingsFile.model_validate(document)
    except ValidationError as error:
        told = {place for place, _ in mistakes}
        for location, message in mistakes_of(SettingsFile, error):
            place = _place(found, location)
            if place not in told:
                mistakes.append((place, message))
        raise _error(f"destination {name}", mistakes) from error
    settings = Settings(file, f"destination {printable(name)}", base_dir)
    if not mistakes and file.store.ca_bundle is not None:
        _read_authorities(settings, mistakes)
    if mistakes or options is None:
        raise _error(f"destination {name}", mistakes)
    return GalaxyDestination(settings, options, document)


def _options(found: Overlay, mistakes: Mistakes) -> Options | None:
    """Check the options; what the retries of Kubernetes mean goes to the destination."""
    said = {**found.document.get("options", {})}
    retries, limit = said.pop("pod_retries", 1), said.pop("back_off_limit", None)
    if limit is not None and found.get("destination", "retry", "tool") is None:
        found.put(("destination", "retry", "tool"), min(retries, limit), "k8s_pod_retries")
    if said.pop("in_cluster", False) and found.get("destination", "kubeconfig") is not None:
        why = "there is a kubeconfig, too: say one of them"
        mistakes.append(("k8s_use_service_account", why))
    try:
        return Options(**OptionFields.model_validate(said).model_dump())
    except ValidationError as error:
        for location, message in mistakes_of(OptionFields, error):
            mistakes.append((_place(found, ("options", *location)), message))
    return None


def _document(found: Overlay, mistakes: Mistakes, name: str) -> dict[str, Any]:
    store = {**found.document.get("store", {})}
    bucket, prefix = store.pop("bucket", None), store.pop("prefix", None)
    if bucket is None:
        why = "is required, of the destination, of its runner, or in galaxy.yml"
        mistakes.append((f"{PREFIX}bucket", why))
        bucket = "missing"
    url = f"s3://{bucket}/{str(prefix or '').strip('/')}"
    destination = {"cluster": "kubernetes", **found.document.get("destination", {})}
    if destination["cluster"] == "kubernetes" and "credentials" not in destination:
        mistakes.append((f"{PREFIX}credentials", f"is required: {CREDENTIAL_FORMS}"))
        destination["credentials"] = {"secret": "missing"}
    references = found.document.get("references")
    return {
        "store": {"url": url.rstrip("/"), **store},
        **({"references": references} if references else {}),
        "destinations": {name: destination},
    }


def _read_authorities(settings: Settings, mistakes: Mistakes) -> None:
    try:
        settings.store_config()
    except SettingsError as error:
        reason = error.reason.removeprefix(f"{settings.origin}: store.ca_bundle: ")
        mistakes.append((f"{PREFIX}ca_bundle", reason))


def _place(found: Overlay, location: Sequence[str | int]) -> str:
    """Name the parameter that a mistake among the settings comes from, as far as there is one."""
    if location[:1] == ("destinations",):
        location = ("destination", *location[2:])
    if location == ("store", "url"):
        location = ("store", "bucket")
    for length in range(len(location), 0, -1):
        owner = found.owner(location[:length])
        if owner:
            below = show_location(tuple(location[length:]))
            return f"{owner}{'' if below[:1] in ('', '[') else '.'}{below}"
    return f"{PREFIX}{show_location(tuple(location[1:]))}" if location[1:] else ""


def _error(origin: str, mistakes: Mistakes) -> SettingsError:
    lines = (": ".join(part for part in (origin, *each) if part) for each in mistakes)
    return SettingsError("\n".join(printable(line) for line in lines))


def _safe_name(name: str) -> str:
    """Return a name that a label of Kubernetes may have; Galaxy's own may be any text."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name)[:_LONGEST_NAME].strip("._-")
    return safe or "galaxy"


def _as_written(value: object) -> object:
    return value

"""Galaxy's job configuration, `job_conf.xml` or `job_conf.yml`, read without Galaxy.

It stands apart from the parameters because it only knows the two forms of the file: which runner is
s3runner's, which destinations run there, and what each of them says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lxml import etree

from s3runner.errors import SettingsError, printable
from s3runner.galaxy.readings import truth
from s3runner.nearest import did_you_mean
from s3runner.yamlfile import read_yaml

RUNNER = "s3runner.galaxy.runner:S3JobRunner"
"""What `load` of a plugin has to say."""

_NAMES = (RUNNER, RUNNER.partition(":")[0])
_MAX_BYTES = 4 * 1024**2
_NO_PARAMS = ("id", "tags", "runner", "shell", "env", "resubmit")
_NO_KWDS = ("id", "load", "workers")

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ConfDestination:
    """A destination that s3runner's runner serves, and what it and the runner say.

    `origin` is where it stands: `job_conf.xml:12`.
    """

    name: str
    origin: str
    runner: str
    runner_params: Params
    params: Params


@dataclass(frozen=True, slots=True)
class JobConf:
    """The part of a job configuration that is s3runner's; `others` are the other destinations."""

    origin: str
    base_dir: Path
    destinations: tuple[ConfDestination, ...]
    others: tuple[str, ...]

    def destination(self, name: str) -> ConfDestination:
        """Return a destination by its id. Raises SettingsError."""
        for found in self.destinations:
            if found.name == name:
                return found
        if name in self.others:
            why = f"destination {name!r} does not run by {RUNNER}"
            raise SettingsError(f"{self.origin}: {why}")
        known = [each.name for each in self.destinations]
        raise SettingsError(
            f"{self.origin}: there is no destination {name!r}{did_you_mean(name, known)}",
            hint=f"choose from: {', '.join(known)}",
        )


@dataclass(frozen=True, slots=True)
class _Named:
    """A plugin or a destination, as it stands in either form of the file."""

    name: str
    target: str
    params: Params
    line: int | None

    @property
    def enabled(self) -> bool:
        try:
            return truth(self.params.get("enabled", True))
        except ValueError:
            return True


def load_job_conf(
    path: Path, galaxy_config: Params, environ: Mapping[str, str] = os.environ
) -> JobConf:
    """Read a job configuration; XML is what has `.xml` in its name, as for Galaxy.

    Parameters of XML may come from `environ` (`from_environ`) and from `galaxy_config`
    (`from_config`). Raises SettingsError.
    """
    origin = printable(str(path))
    read = _read_xml(path, galaxy_config, environ) if ".xml" in path.name else _read_yaml(path)
    plugins, destinations = read
    ours = {each.name: each for each in plugins if each.target in _NAMES and each.enabled}
    if not ours:
        raise SettingsError(f"{origin}: no runner with load: {RUNNER}")
    enabled = [each for each in destinations if each.enabled]
    return JobConf(
        origin=origin,
        base_dir=path.parent.absolute(),
        destinations=tuple(
            ConfDestination(
                name=each.name,
                origin=f"{origin}:{each.line}" if each.line else origin,
                runner=each.target,
                runner_params=ours[each.target].params,
                params=each.params,
            )
            for each in enabled
            if each.target in ours
        ),
        others=tuple(each.name for each in enabled if each.target not in ours),
    )


def load_galaxy_config(path: Path | None) -> Params:
    """Return what galaxy.yml says below `galaxy`; nothing without a file. Raises SettingsError."""
    if path is None:
        return {}
    found = _typed(path)
    section = found.get("galaxy", found)
    return _mapping(section, f"{printable(str(path))}: galaxy")


def _read_yaml(path: Path) -> tuple[list[_Named], list[_Named]]:
    lines = read_yaml(path).lines
    found, origin = _typed(path), printable(str(path))
    runners = _mapping(found.get("runners"), f"{origin}: runners")
    execution = _mapping(found.get("execution"), f"{origin}: execution")
    places = execution.get("environments")
    if isinstance(places, list):
        named = [_mapping(each, f"{origin}: execution.environments") for each in places]
        places = {str(each.get("id")): each for each in named}
    places = _mapping(places, f"{origin}: execution.environments")
    return (
        [
            _of_yaml(name, each, "load", lines.get(("runners", name)))
            for name, each in _mappings(runners, f"{origin}: runners")
        ],
        [
            _of_yaml(name, each, "runner", lines.get(("execution", "environments", name)))
            for name, each in _mappings(places, f"{origin}: execution.environments")
        ],
    )


def _of_yaml(name: str, written: Params, target: str, line: int | None) -> _Named:
    """Read one entry; its parameters stand below a key of their own, or beside the other keys."""
    key, others = ("kwds", _NO_KWDS) if target == "load" else ("params", _NO_PARAMS)
    params = _mapping(written.get(key), f"{name}.{key}") if written.get(key) else None
    if params is None:
        params = {each: value for each, value in written.items() if each not in others}
    return _Named(name, str(written.get(target)), params, line)


def _typed(path: Path) -> Params:
    """Return a YAML file with the types that Galaxy finds in it, once it is known to be sound."""
    read_yaml(path)
    with path.open(encoding="utf-8") as file:
        return _mapping(yaml.safe_load(file), printable(str(path)))


def _mappings(found: Params, where: str) -> Iterator[tuple[str, Params]]:
    for name, value in found.items():
        yield str(name), _mapping(value, f"{where}.{printable(str(name))}")


def _mapping(value: object, where: str) -> Params:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where}: must be a mapping of keys to values")
    return value


def _read_xml(
    path: Path, config: Params, environ: Mapping[str, str]
) -> tuple[list[_Named], list[_Named]]:
    root, origin = _root(path), printable(str(path))

    def params(element: Any) -> Params:
        return dict(_param(each, config, environ) for each in element.findall("param"))

    def named(where: str, target: str) -> list[_Named]:
        found = []
        for each in root.findall(where):
            name, aim = each.get("id"), each.get(target)
            if not name or not aim:
                raise SettingsError(f"{origin}:{each.sourceline}: needs id and {target}")
            found.append(_Named(name, aim, params(each), each.sourceline))
        return found

    plugins = root.findall("plugins/plugin[@load]")
    return (
        [_Named(e.get("id", ""), e.get("load"), params(e), e.sourceline) for e in plugins],
        named("destinations/destination", "runner"),
    )


def _param(element: Any, config: Params, environ: Mapping[str, str]) -> tuple[str, Any]:
    value: Any = element.text
    if "from_environ" in element.attrib:
        value = environ.get(element.get("from_environ"), value)
    elif "from_config" in element.attrib:
        value = config.get(element.get("from_config"), value)
    return element.get("id", ""), value


def _root(path: Path) -> Any:
    """Return the root of an XML file that names nothing outside of itself."""
    origin = printable(str(path))
    try:
        with path.open("rb") as file:
            written = file.read(_MAX_BYTES + 1)
        if len(written) > _MAX_BYTES:
            raise SettingsError(f"{origin}: larger than {_MAX_BYTES} bytes")
        parser = etree.XMLParser(
            resolve_entities=False, load_dtd=False, no_network=True, remove_comments=True
        )
        root = etree.fromstring(written, parser)
    except OSError as error:
        raise SettingsError(f"{origin}: {error.strerror}") from error
    except etree.XMLSyntaxError as error:
        raise SettingsError(f"{origin}:{error.lineno}: not XML: {error.msg}") from error
    if root.getroottree().docinfo.doctype:
        raise SettingsError(f"{origin}: has a DOCTYPE, which is refused")
    if next(root.iter("macros", "expand"), None) is not None:
        raise SettingsError(f"{origin}: has macros, which only Galaxy expands")
    return root

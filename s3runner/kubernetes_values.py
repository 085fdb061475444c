"""What Kubernetes takes in a field: names, labels, and whole objects in its own form.

They stand apart from the models because a job file and a destination share them. Field names inside
of such an object are left to the API server, which is asked to be strict before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from s3runner.yamlfile import Plain

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_ENTRY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_NAME = 253
_OURS = ("s3runner", "batch.kubernetes.io")

_TRUTH = {"true": True, "false": False}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_OCTAL = re.compile(r"0o?[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?")


def typed(value: object) -> Any:
    """Return a piece of YAML with the types that Kubernetes reads in it.

    Text without quotes that looks like a number or a truth value is one; `yes` and `on` are words.
    """
    if isinstance(value, Mapping):
        return {str(key): typed(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [typed(below) for below in value]
    return _scalar(value) if isinstance(value, Plain) else value


def _scalar(text: Plain) -> Any:
    if text.lower() in _TRUTH and text in (text.lower(), text.title(), text.upper()):
        return _TRUTH[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text.replace("o", ""), 8)
    return float(text) if _FLOAT.fullmatch(text) else str(text)


def _raw(value: object) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping, as Kubernetes writes it")  # noqa: TRY004  # pydantic's
    return typed(value)


def _container(value: object) -> Any:
    """Read a container; numbers that Kubernetes wants as text become text."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a container, as Kubernetes writes it")  # noqa: TRY004
    if "restartPolicy" in value:
        raise ValueError("restartPolicy: put it under sidecars, if it is to run beside the others")
    found: dict[str, Any] = typed(value)
    for name in ("name", "image"):
        if not str(value.get(name) or "").strip():
            raise ValueError(f"a container needs `{name}`")
        found[name] = str(value[name])
    _dns_label(found["name"])
    _write_words(value, found)
    _write_amounts(value, found)
    return found


def _write_words(value: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Put arguments and variables there as they are written: `1.10` keeps its zero."""
    for name in ("command", "args"):
        if isinstance(value.get(name), list | tuple):
            found[name] = [str(word) for word in value[name]]
    env = value.get("env")
    if not isinstance(env, list | tuple):
        return
    for written, variable in zip(env, found["env"], strict=True):
        if isinstance(written, Mapping) and isinstance(written.get("value"), str | int | float):
            variable["value"] = str(written["value"])


def _write_amounts(value: Mapping[str, Any], found: dict[str, Any]) -> None:
    resources = value.get("resources")
    if not isinstance(resources, Mapping):
        return
    for kind in ("requests", "limits"):
        amounts = resources.get(kind)
        if isinstance(amounts, Mapping):
            found["resources"][kind] = {str(k): str(v) for k, v in amounts.items()}


def _dns_label(text: str) -> str:
    if not _DNS_LABEL.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name here: lower-case letters, digits and '-', 63 at most"
        )
    return text


def _dns_name(text: str) -> str:
    if not _DNS_NAME.fullmatch(text) or len(text) > _LONGEST_NAME:
        raise ValueError(f"{text!r} is no name here: lower-case letters, digits, '-' and '.'")
    return text


def _qualified(text: str) -> str:
    prefix, slash, name = text.rpartition("/")
    if slash:
        _dns_name(prefix)
    if not _QUALIFIED.fullmatch(name):
        raise ValueError(f"{text!r} is no name such as example.com/name, of 63 characters at most")
    return text


def _label_value(text: str) -> str:
    if text and not _QUALIFIED.fullmatch(text):
        raise ValueError(
            f"{text!r} cannot be a label's value: letters, digits, '-', '_' and '.', 63 at most, a "
            "letter or digit at both ends"
        )
    return text


def _own_label(text: str) -> str:
    prefix = _qualified(text).rpartition("/")[0]
    if prefix in _OURS or text == "app.kubernetes.io/managed-by":
        raise ValueError(f"{text} is set by s3runner itself, or by Kubernetes")
    return text


def _entry(text: str) -> str:
    if not _ENTRY.fullmatch(text):
        raise ValueError(f"{text!r} cannot be an entry of a Secret")
    return text


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a variable")
    return text


_OBJECT = WithJsonSchema({"type": "object"})

Raw = Annotated[Any, BeforeValidator(_raw), _OBJECT]
"""An object as Kubernetes writes it."""

Container = Annotated[Any, BeforeValidator(_container), _OBJECT]
DnsLabel = Annotated[str, AfterValidator(_dns_label)]
DnsName = Annotated[str, AfterValidator(_dns_name)]
Qualified = Annotated[str, AfterValidator(_qualified)]
OwnLabel = Annotated[str, AfterValidator(_own_label)]
LabelValue = Annotated[
    str,
    AfterValidator(_label_value),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
Entry = Annotated[str, AfterValidator(_entry)]
Variable = Annotated[str, AfterValidator(_variable)]

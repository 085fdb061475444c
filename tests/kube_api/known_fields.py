"""Strict decoding: which fields and types an object may have, by the official client's models.

It stands apart because it is the only use of those models here: they are made from the API's own
description, so that a field nobody knows is found however deep it lies.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_LIST = re.compile(r"[Ll]ist\[(.+)\]")
_MAP = re.compile(r"[Dd]ict[(\[]str, (.+)[)\]]")
_PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "datetime": (str,),
}
_GO = {"str": "string", "int": "int32", "float": "float64", "bool": "bool", "datetime": "string"}

FOREIGN = ("metadata.managedFields",)


class Flaw(NamedTuple):
    """A field that nobody knows, or one of the wrong type."""

    path: str
    wrong_type: str = ""


def flaws(document: Any, model: str, path: str = "") -> Iterator[Flaw]:
    """Yield what a decoder for this model would stumble over; null is nothing."""
    if document is None or path in FOREIGN:
        return
    listed, mapped = _LIST.fullmatch(model), _MAP.fullmatch(model)
    if listed:
        yield from _list_flaws(document, listed[1], path)
    elif mapped:
        yield from _map_flaws(document, mapped[1], path)
    elif model in _PLAIN:
        if type(document) not in _PLAIN[model]:
            yield Flaw(path, f"{_name_of(document)} into Go struct field of type {_GO[model]}")
    elif model != "object":
        yield from _object_flaws(document, model, path)


def _list_flaws(document: Any, model: str, path: str) -> Iterator[Flaw]:
    if not isinstance(document, list):
        yield Flaw(path, f"{_name_of(document)} into Go struct field of type []{model}")
        return
    for index, item in enumerate(document):
        yield from flaws(item, model, f"{path}[{index}]")


def _map_flaws(document: Any, model: str, path: str) -> Iterator[Flaw]:
    if not isinstance(document, dict):
        yield Flaw(path, f"{_name_of(document)} into Go struct field of type map[string]{model}")
        return
    for key, value in document.items():
        # a quantity may be written as a number, a label may not
        number = model == "str" and path.endswith(("limits", "requests"))
        yield from flaws(str(value) if number else value, model, f"{path}.{key}")


def _object_flaws(document: Any, model: str, path: str) -> Iterator[Flaw]:
    if not isinstance(document, dict):
        yield Flaw(path, f"{_name_of(document)} into Go value of type {model}")
        return
    known = _fields_of(model)
    for key, value in document.items():
        inner = f"{path}.{key}" if path else key
        if key in known:
            yield from flaws(value, known[key], inner)
        else:
            yield Flaw(inner)


@functools.cache
def _fields_of(model: str) -> dict[str, str]:
    import kubernetes.client.models  # noqa: PLC0415  # slow, and only for objects that come in

    found = getattr(kubernetes.client.models, model)
    return {found.attribute_map[name]: kind for name, kind in found.openapi_types.items()}


def without(document: Any, path: str) -> None:
    """Remove the field of a path, as a lenient decoder does."""
    *parents, last = re.findall(r"[^.\[\]]+", path)
    for part in parents:
        document = document[int(part)] if isinstance(document, list) else document[part]
    del document[last]


def _name_of(value: Any) -> str:
    names = {bool: "bool", str: "string", int: "number", float: "number", list: "array"}
    return names.get(type(value), "object")

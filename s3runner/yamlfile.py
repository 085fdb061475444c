"""YAML that people write: read with line numbers, checked against a model, every mistake told.

It stands below the job file and the settings because both speak to the same people about the same
mistakes: `job.yml:7: resources.memroy: unknown key (did you mean 'memory'?)`.

Scalars are text here, whatever they look like, and the model gives them their type: so a version
`1.10` stays `1.10`, a country `no` is no boolean and a time `12:30` no number.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from s3runner.errors import SettingsError, printable
from s3runner.nearest import did_you_mean

Location = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)

_MAX_NODES = 100_000
_MAX_BYTES = 4 * 1024**2
_NULLS = ("", "~", "null", "Null", "NULL")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "map", "seq")
}
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 100 * 365.25 * 86400
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_WORDS = {
    "missing": "is required",
    "string_type": "must be text",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
}


class Checked(BaseModel):
    """A mapping in a file that people write: unknown keys are mistakes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        coerce_numbers_to_str=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: object) -> object:
        """Read a known key without a value (`outputs:`) like one that is absent."""
        if not isinstance(data, Mapping):
            return data
        return {k: v for k, v in data.items() if v is not None or k not in cls.model_fields}


_TAGS = ("<text>", "<list>", "<mapping>")


def form_of(value: object) -> str:
    """Tell text, list and mapping apart; the tags of unions, left out of messages."""
    if isinstance(value, Mapping | BaseModel):
        return "<mapping>"
    return "<list>" if isinstance(value, list | tuple) else "<text>"


BY_FORM = Discriminator(form_of)
"""Marks a union whose branches differ by being text, a list or a mapping."""


def seconds_of(value: object) -> float:
    """Read `90s`, `30m`, `1h30m`, `1d` or a number of seconds. Raises ValueError."""
    text = str(value).strip().replace(" ", "")
    if _DURATION.fullmatch(text):
        pieces = re.findall(r"([\d.]+)([smhd])", text)
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in pieces)
    elif re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
    else:
        raise ValueError("must be a time such as 90s, 30m, 2h, 1d or 1h30m, or seconds")
    if seconds <= 0:
        raise ValueError("must be more than nothing")
    if seconds > _LONGEST_S:
        raise ValueError("must be 100 years at most")
    return seconds


Seconds = Annotated[
    float,
    BeforeValidator(seconds_of),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]},
    ),
]
"""A time in seconds, written as `seconds_of` reads it."""


class Plain(str):
    """A scalar written without quotes: text to us, but it may be a number to others."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says, and where each key of it stands; `lines` is empty for what was no file.

    `part` says which document of the file this is (`document 2`), where it has several.
    """

    data: object
    origin: str
    lines: Mapping[Location, int] = field(default_factory=dict)
    part: str = ""

    def error(self, mistakes: Sequence[tuple[Location, str]]) -> SettingsError:
        """Compose one error of all mistakes, in the file's order."""
        ordered = sorted(mistakes, key=lambda mistake: self._line(mistake[0]) or 0)
        return SettingsError("\n".join(self._sentence(*mistake) for mistake in ordered))

    def _sentence(self, location: Location, message: str) -> str:
        line = self._line(location)
        place = f"{printable(self.origin)}:{line}" if line else printable(self.origin)
        pieces = (place, self.part, show_location(location), message)
        return ": ".join(piece for piece in pieces if piece)

    def _line(self, location: Location) -> int | None:
        for length in range(len(location), -1, -1):
            if location[:length] in self.lines:
                return self.lines[location[:length]]
        return None


def read_yaml(path: Path) -> Document:
    """Read a YAML file. Raises SettingsError; the path in messages is as it was given."""
    return parse_yaml(_read_text(path), str(path))


def read_yaml_documents(path: Path) -> dict[int, Document]:
    """Read a YAML file of any number of documents, by their numbers, counted from 1.

    Documents without content are left out, unless there is nothing else. Raises SettingsError with
    the mistakes of all documents.
    """
    origin = str(path)
    roots: list[yaml.Node | None] = []
    with _syntax(origin, lambda: f"document {len(roots) + 1}" if roots else ""):
        # what was read before a mistake stays, and so tells which document has it
        roots.extend(yaml.compose_all(_read_text(path), Loader=yaml.SafeLoader))
    documents: dict[int, Document] = {}
    mistakes: list[str] = []
    for number, root in enumerate(roots, start=1):
        try:
            document = _document(root, origin, f"document {number}" if len(roots) > 1 else "")
        except SettingsError as error:  # noqa: PERF203  # all mistakes are told together
            mistakes.append(error.reason)
        else:
            documents[number] = document
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    told = {number: found for number, found in documents.items() if found.data is not None}
    return told or {1: Document(None, origin)}


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SettingsError(f"{printable(str(path))}: larger than {_MAX_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{printable(str(path))}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{printable(str(path))}: not UTF-8 text") from error


def parse_yaml(text: str, origin: str) -> Document:
    """Parse one YAML document whose scalars stay text (null and an empty value are None).

    Raises SettingsError for bad syntax, duplicate keys, and anchors that refer to themselves or
    multiply beyond reason.
    """
    with _syntax(origin, str):
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    return _document(root, origin)


@contextlib.contextmanager
def _syntax(origin: str, part: Callable[[], str]) -> Iterator[None]:
    """Turn PyYAML's errors into ours; `part` is asked for the document when there is one."""
    try:
        yield
    except (yaml.YAMLError, RecursionError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        place = f"{printable(origin)}:{mark.line + 1}" if mark is not None else printable(origin)
        problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else None
        reason = problem or printable(str(error).splitlines()[0])
        told = ": ".join(piece for piece in (place, part(), f"not YAML: {reason}") if piece)
        raise SettingsError(told) from error


def _document(root: yaml.Node | None, origin: str, part: str = "") -> Document:
    reader = _Reader(origin, part)
    data = reader.read(root, ()) if root is not None else None
    return Document(data, origin, reader.lines, part)


def check(document: Document, model: type[M]) -> M:
    """Check a document against a model. Raises one SettingsError that tells every mistake."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise document.error(mistakes_of(model, error)) from error


def mistakes_of(model: type[BaseModel], error: ValidationError) -> list[tuple[Location, str]]:
    """Return where each mistake is, and what it is, in the words that people get."""
    return [_mistake(model, dict(item)) for item in error.errors(include_url=False)]


def show_location(location: Location) -> str:
    """Write a location as people do: `outputs[2].path`, `inputs['in.bam']`."""
    text = ""
    for segment in location:
        if isinstance(segment, int):
            text += f"[{segment}]"
        elif _PLAIN_KEY.fullmatch(segment):
            text += f".{segment}" if text else segment
        else:
            text += f"['{printable(segment)}']"
    return text


class _Reader:
    """Turns YAML's node graph into plain values, noting each key's line."""

    def __init__(self, origin: str, part: str) -> None:
        self.lines: dict[Location, int] = {}
        self._origin = origin
        self._part = part
        self._open: set[int] = set()
        self._count = 0

    def read(self, node: yaml.Node, location: Location) -> object:
        self._count += 1
        if id(node) in self._open or self._count > _MAX_NODES:
            raise self._error(node, location, "anchors that refer to themselves, or too many")
        if node.tag not in _PLAIN_TAGS:
            raise self._error(node, location, "tags are not used here")
        self.lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            plain = node.style is None
            if plain and node.value in _NULLS:
                return None
            return Plain(node.value) if plain else str(node.value)
        self._open.add(id(node))
        value: object
        if isinstance(node, yaml.MappingNode):
            value = self._mapping(node, location)
        else:
            items: Sequence[yaml.Node] = node.value
            value = [self.read(item, (*location, number)) for number, item in enumerate(items)]
        self._open.discard(id(node))
        return value

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, object]:
        own: dict[str, object] = {}
        merged: dict[str, object] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, location, "a key must be text")
            name = str(key.value)
            if name == "<<" and key.style is None:
                for source in self._merge_sources(value, location):
                    merged = {**source, **merged}
                continue
            here = (*location, name)
            if name in own:
                raise self._error(key, here, "this key stands here twice")
            self.lines[here] = key.start_mark.line + 1
            own[name] = self.read(value, here)
        return {**merged, **own}

    def _merge_sources(self, node: yaml.Node, location: Location) -> Iterator[dict[str, object]]:
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.read(source, location)
            if not isinstance(value, dict):
                raise self._error(source, location, "only a mapping can be merged")
            yield value

    def _error(self, node: yaml.Node, location: Location, message: str) -> SettingsError:
        line = node.start_mark.line + 1
        told = Document(None, self._origin, {location: line}, self._part)
        return told.error([(location, message)])


def _mistake(model: type[BaseModel], item: Mapping[str, Any]) -> tuple[Location, str]:
    raw: Location = item["loc"]
    location = tuple(part for part in raw if part not in _TAGS)
    if item["type"] == "extra_forbidden":
        return location, f"unknown key{did_you_mean(str(location[-1]), _known(model, location))}"
    message = str(item["msg"]).removeprefix("Value error, ").replace("Input should", "should")
    return location, _WORDS.get(item["type"], message)


def _known(model: type[BaseModel], location: Location) -> set[str]:
    """Return the keys that may stand where the last segment of `location` does."""
    places: list[Any] = [model]
    for segment in location[:-1]:
        places = [below for place in places for below in _below(place, segment)]
    return {name for place in places for found in _models(place) for name in found.model_fields}


def _below(annotation: Any, segment: str | int) -> Iterator[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field_info = annotation.model_fields.get(str(segment))
        yield from [field_info.annotation] if field_info is not None else []
    elif get_origin(annotation) is dict:
        yield get_args(annotation)[1]
    elif get_origin(annotation) in (list, tuple):
        yield get_args(annotation)[0]
    else:
        for argument in get_args(annotation):
            yield from _below(argument, segment)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not dict:
        for argument in get_args(annotation):
            yield from _models(argument)

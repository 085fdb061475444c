"""Levels of parameters laid one over the other: what is said nearer to the job counts.

It stands apart because it knows no parameter: only places among the settings, who filled them, and
which two of one level contradict each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from s3runner.galaxy.param_table import Location, Param


@dataclass(slots=True)
class Overlay:
    """Settings so far, and for each place the parameter that said it."""

    document: dict[str, Any] = field(default_factory=dict)
    names: dict[Location, str] = field(default_factory=dict)

    def lay(self, params: Mapping[str, tuple[Param, Any]]) -> list[tuple[str, str]]:
        """Lay a level over what is there; return the mistakes as (parameter, sentence)."""
        mistakes: list[tuple[str, str]] = []
        said: dict[Location, str] = {}
        for name, (param, value) in sorted(params.items(), key=lambda item: len(item[1][0].place)):
            try:
                places = _places(param, value)
            except ValueError as error:
                mistakes.append((name, str(error)))
                continue
            for place, content in places.items():
                other = self._contradicts(place, said)
                if other is not None:
                    mistakes.append((name, f"{other} says the same setting; leave one out"))
                    continue
                said[place] = name
                self.put(place, content, name)
        return mistakes

    def get(self, *place: str) -> Any:
        """Return what stands at a place; None if nothing does."""
        value: Any = self.document
        for key in place:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def owner(self, location: Sequence[str | int]) -> str:
        """Return who filled a place or parts of it, or nothing."""
        place = tuple(str(part) for part in location)
        if place in self.names:
            return self.names[place]
        length = len(place)
        below = [name for at, name in self.names.items() if at[:length] == place and length > 1]
        return ", ".join(sorted(below))

    def _contradicts(self, place: Location, said: Mapping[Location, str]) -> str | None:
        for length in range(len(place), 0, -1):
            other = said.get(place[:length])
            if other and (length == len(place) or not isinstance(self.get(*place[:length]), dict)):
                return other
        return None

    def put(self, place: Location, content: Any, name: str) -> None:
        """Let a parameter say what stands at a place, instead of all that stood there before."""
        length = len(place)
        self.names = {at: owner for at, owner in self.names.items() if at[:length] != place}
        parent = self.document
        for key in place[:-1]:
            below = parent.get(key)
            if not isinstance(below, dict):
                below = parent[key] = {}
            parent = below
        if content is None:
            parent.pop(place[-1], None)
        else:
            parent[place[-1]] = content
            self.names[place] = name


def _places(param: Param, value: Any) -> dict[Location, Any]:
    """Return what a parameter says, by place; an empty value says that there is to be nothing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return {param.place: None} if param.place and not param.spread else {}
    content = param.read(value)
    if param.spread:
        return {(*param.place, key): each for key, each in content.items()}
    return {param.place: content} if param.place else {}

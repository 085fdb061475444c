"""Where a job's files may lie in its pod. Pure; job file and settings share the rule."""

from __future__ import annotations

import os

from s3runner.cluster.pod_paths import HOME, lies_in, roots
from s3runner.errors import SettingsError

_MAX_NAME_BYTES = 255
_STREAMS = b".s3runner"


def place_of(text: str) -> str:
    """Return a path in the pod without `.` and empty segments; relative ones stay relative.

    Raises ValueError for one that is empty, climbs with `..`, could not be a file's name, lies in
    s3runner's own directory, or would hide a directory of the image.
    """
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ValueError(f"{text!r} cannot be a file's name") from error
    segments = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if b"\0" in raw or any(len(part) > _MAX_NAME_BYTES for part in segments):
        raise ValueError(f"{text!r} cannot be a file's name")
    if not segments:
        raise ValueError(f"{text!r} names nothing")
    if b".." in segments:
        raise ValueError(f"{text!r} climbs out with '..'")
    place = os.fsdecode(b"/".join(segments))
    if not raw.startswith(b"/"):
        if segments[0] == _STREAMS:
            raise ValueError(f"{text!r} is where s3runner puts the tool's streams")
        return place
    _check_absolute(f"/{place}")
    return f"/{place}"


def _check_absolute(place: str) -> None:
    if lies_in(place, HOME):
        raise ValueError(f"{place} lies in s3runner's own directory; write a relative path")
    try:
        roots((place,))
    except SettingsError as error:
        raise ValueError(f"{error.reason}; {error.hint}") from error

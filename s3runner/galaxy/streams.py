"""What a tool said, for Galaxy's database: of a job that failed, as far as it is here.

It stands apart because a job has to fail in Galaxy whatever is the matter with its files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from s3runner.galaxy.translate import streams_of
from s3runner.runner.landing import STREAMS

log = logging.getLogger(__name__)

_NAMES = ("stdout", "stderr")


def streams_here(job_wrapper: Any, shrink: Callable[[IO[bytes]], str]) -> dict[str, str]:
    """Return what is here of what the tool said; `shrink` reads as much as a database takes.

    Where the tool itself said nothing it is what its job script did.
    """
    try:
        directory = os.path.abspath(job_wrapper.working_directory)
        return {name: _read(_places(directory, name), shrink) for name in _NAMES}
    except Exception:
        # Galaxy would leave a job for ever as it is whose failing has failed
        log.exception("(%s) what the tool said cannot be read", job_wrapper.job_id)
    return dict.fromkeys(_NAMES, "")


def _places(directory: str, name: str) -> Iterator[Path]:
    yield Path(streams_of(directory)[_NAMES.index(name)])
    yield Path(directory, STREAMS, name)


def _read(places: Iterator[Path], shrink: Callable[[IO[bytes]], str]) -> str:
    for place in places:
        if place.exists() and place.stat().st_size:
            with place.open("rb") as file:
                return shrink(file)
    return ""

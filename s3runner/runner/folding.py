"""Whether the disk here takes two names for one, as case-insensitive file systems do.

Apart from `landing` because it has to try: no call tells what a file system folds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path


def indistinct(places: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield two local paths where the second one would replace the first.

    Only names that differ by case or by their Unicode form are tried, on the disk they are for, in
    a directory that is gone again.
    """
    taken: dict[str, str] = {}
    tried: dict[tuple[str, str, str], bool] = {}
    for place in places:
        other = taken.setdefault(unicodedata.normalize("NFD", place).casefold(), place)
        if other != place:
            trial = _trial(other, place)
            if trial not in tried:
                tried[trial] = _are_one(*trial)
            if tried[trial]:
                yield other, place


def _trial(one: str, two: str) -> tuple[str, str, str]:
    """Return the directory that two paths share, and the names at which they part."""
    names = [path.split("/") for path in (one, two)]
    depth = next(
        (n for n, (left, right) in enumerate(zip(*names, strict=False)) if left != right), 0
    )
    return "/".join(names[0][:depth]) or "/", names[0][depth], names[1][depth]


def _are_one(directory: str, one: str, two: str) -> bool:
    with contextlib.suppress(OSError):
        # results that are here already are to be left as they are, their directory's time too
        return os.path.samestat(*(os.lstat(f"{directory}/{name}") for name in (one, two)))
    there = Path(directory)
    while not there.is_dir():
        there = there.parent
    # where nothing can be made, placing the results will say why
    with contextlib.suppress(OSError):
        scratch = Path(tempfile.mkdtemp(prefix=".s3runner-", dir=there))
        try:
            (scratch / one).mkdir()
            return os.path.lexists(scratch / two)
        finally:
            shutil.rmtree(scratch)
    return False

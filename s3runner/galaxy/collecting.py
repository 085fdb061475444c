"""What Galaxy will look for when a job has ended: outputs, discovered files, what tools report.

It stands apart because it reads Galaxy's tool definitions, which it only looks at: nothing of
Galaxy is imported.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

from s3runner.galaxy.translate import Returned, collected
from s3runner.model import Output

_ANY = r"\d+"
_DATASET_ID = "DATASET_ID"
_PRIMARY = "(?!.*/)primary_"
"""What a tool may write beside an output that says nothing of further files (an old convention)."""


def returned_by(job_wrapper: Any, from_work_dir: Iterable[tuple[str, str]]) -> Returned:
    """Return what has to come back for Galaxy to finish a job as it would on a shared disk.

    `from_work_dir` pairs files that a tool leaves in its directory with the outputs that they are.
    Galaxy's own job script would copy them only onto outputs that are there.
    """
    moved = {place: source for source, place in from_work_dir}
    tool, working = job_wrapper.tool, job_wrapper.tool_working_directory
    expected: list[str] = []
    others: list[Output] = [Output(os.path.join(working, tool.provided_metadata_file), True)]
    for name, (dataset, path) in job_wrapper.job_io.get_output_hdas_and_fnames().items():
        place = str(path)
        definition = tool.find_output_def(name)
        descriptions = list(getattr(definition, "dataset_collector_descriptions", None) or ())
        if place in moved or _extra_files(place) in moved:
            pass
        elif _may_be_absent(dataset, definition, descriptions):
            others.append(Output(place, optional=True))
        else:
            expected.append(place)
        others.append(Output(_extra_files(place), optional=True, matching=""))
        others += _discovered(working, descriptions, str(getattr(dataset, "id", _ANY)))
    for collection in getattr(tool, "output_collections", {}).values():
        if collection.dynamic_structure:
            others += _discovered(working, collection.dataset_collector_descriptions, _ANY)
    left = tuple((_left(working, source, place), place) for place, source in moved.items())
    return Returned(tuple(expected), tuple(dict.fromkeys(others)), left)


def move_into_place(pairs: Iterable[tuple[Output, str]]) -> None:
    """Let what a tool left in its directory be outputs as well, where it is there.

    By another name for the same file, which costs nothing: Galaxy may look for it in both places.
    """
    for found, place in pairs:
        sources = [found.path] if os.path.exists(found.path) else glob.glob(found.path)
        if len(sources) == 1 and os.path.isdir(sources[0]):
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(sources[0], place, copy_function=_link)
        elif len(sources) == 1:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(place)
            _link(sources[0], place)


def _link(source: str, place: str) -> None:
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)


def _left(working: str, source: str, place: str) -> Output:
    """Return a file in the working directory as an output; `*` and `?` in its name are patterns."""
    below = os.path.relpath(source, working)
    if place.endswith("_files"):
        return Output(source, matching="")
    if "*" in below or "?" in below:
        return Output(f"{glob.escape(working)}/{below}")
    return Output(source)


def _may_be_absent(dataset: Any, definition: Any, descriptions: Iterable[Any]) -> bool:
    """Tell whether Galaxy makes do without the file that an output is declared as.

    It writes some itself, of composite types; it takes the first discovered file for others, fills
    a directory in the place of others again, and nobody wants those that were purged.
    """
    return (
        getattr(getattr(dataset, "dataset", None), "purged", False)
        or getattr(getattr(dataset, "datatype", None), "composite_type", None)
        == "auto_primary_file"
        or getattr(definition, "precreate_directory", False)
        or any(description.assign_primary_output for description in descriptions)
    )


def _extra_files(place: str) -> str:
    return f"{place.removesuffix('.dat')}_files"


def _discovered(working: str, descriptions: Iterable[Any], dataset_id: str) -> Iterator[Output]:
    """Yield the outputs that an output's collectors will look for."""
    found = list(descriptions)
    if not found:
        yield Output(working, optional=True, matching=_PRIMARY)
    for each in found:
        if each.discover_via == "pattern":
            output = collected(
                working,
                each.directory,
                each.pattern.replace(_DATASET_ID, dataset_id),
                recurse=each.recurse,
                whole=each.match_relative_path,
            )
        else:
            # the tool's own report says which files, and only once it has run
            output = collected(working, each.directory, "", recurse=True, whole=True)
        if output is not None:
            yield output

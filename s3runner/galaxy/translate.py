"""From a Galaxy job, described by plain values, to a job of ours at the very same paths.

Pure but for looking at what is there. It stands apart so that it can be tested without a Galaxy.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from s3runner.model import Input, Job, Output
from s3runner.staging.globs import has_wildcard

_LAUNCH = """\
GALAXY_SLOTS=$CPUS
export GALAXY_SLOTS
if [ "$MEMORY_MB" -gt 0 ]; then
  GALAXY_MEMORY_MB=$MEMORY_MB
  GALAXY_MEMORY_MB_PER_SLOT=$((MEMORY_MB / CPUS))
  export GALAXY_MEMORY_MB GALAXY_MEMORY_MB_PER_SLOT
fi
"$1" "$2"
exit "$(cat "$3")"
"""
"""Runs a job script. Its own exit status is that of a last `date`; the tool's stands in a file.

Where that file is missing, `exit` has no number to exit with, and fails.
"""

_FLAGS = re.compile(r"\(\?[aiLmsux]+\)")
"""They stand at the beginning of a whole expression, or nowhere."""

_TOOL_FILES_LEFT_OUT = frozenset({".git", ".hg", "test-data", "tool-data"})


@dataclass(frozen=True, slots=True)
class Touched:
    """The paths that Galaxy handed to a tool's template.

    `files` are files and directories; `indexes` are data tables' paths, which may be no file's
    name but what several begin with.
    """

    files: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Returned:
    """What has to come back. Without one of `expected` a job has not succeeded.

    `moved` pairs a file or directory of the tool's working directory, or a pattern for one, with
    the output that it becomes on the head; it is expected, too, unless it is optional. With
    `begun_empty` the tool finds an empty file in the place of each expected one.
    """

    expected: tuple[str, ...]
    others: tuple[Output, ...] = ()
    moved: tuple[tuple[Output, str], ...] = ()
    begun_empty: bool = False


@dataclass(frozen=True, slots=True)
class GalaxyJob:
    """A job that Galaxy has prepared: its directory holds its script and all that it wrote for it.

    `above` are directories that hold many datasets: one mount each, where otherwise every
    dataset's own directory would be one.
    """

    name: str
    directory: str
    script: str
    exit_code: str
    shell: str
    returned: Returned
    touched: Touched = Touched()
    tool_directory: str | None = None
    image: str | None = None
    above: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def job_of(
    galaxy: GalaxyJob,
    index_files: Callable[[str], Iterable[Input]],
    lies_there: Callable[[str], bool],
) -> Job:
    """Return the job. `index_files` says what a data table's path stands for.

    What `lies_there`, in a volume of the pod, is not staged.
    """
    outputs = _outputs(galaxy)
    written = {*(output.path for output in outputs), *(place for _, place in galaxy.returned.moved)}
    if galaxy.returned.begun_empty:
        written -= {*galaxy.returned.expected}
    inputs: dict[str, Input] = {}
    for path in (
        *_own_files(galaxy, written),
        *_tool_files(galaxy.tool_directory),
        *(path for path in galaxy.touched.files if os.path.exists(path)),
    ):
        inputs.setdefault(path, Input(path, path))
    for path in galaxy.touched.indexes:
        for found in index_files(path):
            inputs.setdefault(found.path, found)
    wanted = [found for found in inputs.values() if not lies_there(found.path)]
    return Job(
        name=galaxy.name,
        command=("/bin/sh", "-c", _LAUNCH, "s3runner", *_launched(galaxy)),
        image=galaxy.image,
        inputs=tuple(_outermost(wanted)),
        outputs=outputs,
        env=galaxy.env,
        roots=(galaxy.directory, *galaxy.above),
    )


def streams_of(directory: str) -> tuple[str, str]:
    """Return where a job script leaves what the tool says."""
    outputs = os.path.join(directory, "outputs")
    return os.path.join(outputs, "tool_stdout"), os.path.join(outputs, "tool_stderr")


def needed_of(exit_code: str, directory: str, returned: Returned) -> tuple[str, ...]:
    """Return the files without which no job has succeeded; the exit code's and streams first."""
    wanted = (found.path for found, _ in returned.moved if not found.optional)
    literal = (path for path in wanted if not has_wildcard(path))
    return (exit_code, *streams_of(directory), *returned.expected, *literal)


def with_empty_files(returned: Returned) -> Returned:
    """Return the same for a tool that counts on the empty files which Galaxy makes of its outputs.

    It finds them where it may write, and what it leaves alone stays empty, as on a shared disk.
    """
    moved = tuple((replace(found, optional=True), place) for found, place in returned.moved)
    return replace(returned, moved=moved, begun_empty=True)


def collected(
    working: str, directory: str | None, pattern: str, *, recurse: bool, whole: bool
) -> Output | None:
    """Return the output that Galaxy's collector of these properties will look for.

    It matches a file's name, or with `whole` its path below the directory, from the beginning.
    None for a directory outside of the job's, which Galaxy refuses.
    """
    place = os.path.normpath(os.path.join(working, directory or ""))
    if place != working and not place.startswith(f"{working}/"):
        return None
    flags = _FLAGS.match(pattern)
    first, rest = (flags[0], pattern[flags.end() :]) if flags else ("", pattern)
    if not recurse:
        matching = f"{first}(?!.*/)(?:{rest})"
    elif whole:
        matching = pattern
    else:
        matching = f"{first}(?:.*/)?(?=[^/]*$)(?:{rest})"
    return Output(place, optional=True, matching=matching)


def _launched(galaxy: GalaxyJob) -> tuple[str, str, str]:
    return galaxy.shell, galaxy.script, galaxy.exit_code


def _outputs(galaxy: GalaxyJob) -> tuple[Output, ...]:
    outputs = os.path.join(galaxy.directory, "outputs")
    here = glob.escape(galaxy.directory)
    return (
        Output(galaxy.exit_code),
        *map(Output, (*streams_of(galaxy.directory), *galaxy.returned.expected)),
        *(found for found, _ in galaxy.returned.moved),
        Output(os.path.join(outputs, "COMMAND_VERSION"), optional=True),
        Output(f"{here}/__instrument_*", optional=True),
        *galaxy.returned.others,
    )


def _own_files(galaxy: GalaxyJob, written: Iterable[str]) -> Iterator[str]:
    """Yield what Galaxy wrote for the job: its script, configuration files, and so on.

    Left out is what the job itself is to write. Galaxy makes empty files in the places of the
    outputs; were they there, an output that the tool never wrote could not be told from an empty
    one. A destination may want just that.
    """
    skipped = {*written}
    for directory, _, names in os.walk(galaxy.directory):
        for name in sorted(names):
            path = os.path.join(directory, name)
            if path not in skipped and os.path.exists(path):
                yield path


def _tool_files(directory: str | None) -> Iterator[str]:
    """Yield the tool's own files: its directory as a whole, unless part of it is of no use."""
    if directory is None or not os.path.isdir(directory):
        return
    names = sorted(os.listdir(directory))
    if _TOOL_FILES_LEFT_OUT.isdisjoint(names):
        yield directory
        return
    yield from (os.path.join(directory, n) for n in names if n not in _TOOL_FILES_LEFT_OUT)


def _outermost(inputs: Sequence[Input]) -> Iterator[Input]:
    """Leave out what lies in a directory that is an input as a whole."""
    directories = {found.path for found in inputs if os.path.isdir(found.source)}
    for found in inputs:
        above = found.path
        while above not in ("", "/"):
            above = os.path.dirname(above)
            if above in directories:
                break
        else:
            yield found


def references_of(
    path: str, references: Mapping[str, str], keys_below: Callable[[str], Iterable[str]]
) -> Iterator[Input] | None:
    """Return the inputs that a path below a reference's place stands for, by its URL; else None.

    `references` maps a place to a URL, `keys_below` lists the URLs that begin with one.
    """
    for place, url in references.items():
        if path == place or path.startswith(f"{place.rstrip('/')}/"):
            below = path[len(place.rstrip("/")) :]
            begins = url.rstrip("/") + below
            return (
                Input(place.rstrip("/") + found[len(url.rstrip("/")) :], found)
                for found in keys_below(begins)
            )
    return None

"""The job file: what a user asks for, checked, and turned into a `model.Job`.

It stands at the edge: after it nobody sees YAML or a relative source. It looks at the file system
only to tell whether an input that holds another one is a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3runner.cluster.pod_paths import lies_in, reference_variable
from s3runner.documented import documented_schema
from s3runner.errors import SettingsError, printable
from s3runner.jobfile_model import JobFile, OutputForm
from s3runner.model import Input, Job, Output, Reference, S3Uri
from s3runner.nearest import did_you_mean
from s3runner.places import place_of
from s3runner.store.urls import check_url, is_url, is_web, shown
from s3runner.yamlfile import Document, Location, check, parse_yaml, read_yaml_documents

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = ("CPUS", "MEMORY_MB", "TMPDIR")


def load_job(path: Path, references: Mapping[str, Reference]) -> Job:
    """Read a job file of one job; relative sources start at its folder. Raises SettingsError."""
    documents = list(read_yaml_documents(path).values())
    if len(documents) > 1:
        raise SettingsError(
            f"{printable(str(path))}: {len(documents)} jobs, where one is expected",
            hint="s3runner submit takes several",
        )
    return _job(documents[0], path.parent.absolute(), path.stem, references)


def load_jobs(path: Path, references: Mapping[str, Reference]) -> list[Job]:
    """Read a job file that may hold several YAML documents, one job each.

    A job without a name is named by its file and, if that has several documents, its number.
    Raises one SettingsError with the mistakes of all documents.
    """
    documents = read_yaml_documents(path)
    jobs: list[Job] = []
    mistakes: list[str] = []
    for number, document in documents.items():
        stem = f"{path.stem}-{number}" if document.part else path.stem
        try:
            jobs.append(_job(document, path.parent.absolute(), stem, references))
        except SettingsError as error:
            mistakes.append(error.reason)
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return jobs


def parse_job(
    source: str | Mapping[str, object],
    origin: str,
    base_dir: Path,
    references: Mapping[str, Reference],
) -> Job:
    """Check a job that is at hand as YAML text or as a mapping. Raises SettingsError.

    `origin` names it in messages and, without a folder and suffix, the job; `base_dir` is absolute.
    """
    document = parse_yaml(source, origin) if isinstance(source, str) else Document(source, origin)
    return _job(document, base_dir, Path(origin).stem, references)


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job file."""
    return documented_schema(JobFile)


def _job(document: Document, base_dir: Path, stem: str, references: Mapping[str, Reference]) -> Job:
    file = check(document, JobFile)
    reader = _Reader(base_dir, references)
    job = Job(
        name=file.name or _name_from(stem),
        command=file.command if isinstance(file.command, str) else tuple(file.command),
        image=file.image,
        inputs=reader.inputs(file.inputs),
        outputs=reader.outputs(file.outputs),
        references=reader.references(file.references),
        env=reader.env(file.env),
        resources=file.resources.values(),
        walltime_s=file.walltime,
        retry=file.retry.written(),
        pod=file.pod.parts(),
        disk_factor=file.resources.disk_factor,
    )
    reader.check_overlaps(job)
    if reader.mistakes:
        raise document.error(reader.mistakes)
    return job


def _name_from(stem: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:63]
    return safe or "job"


class _Reader:
    """Builds the values that need more than their own field, collecting every mistake."""

    def __init__(self, base_dir: Path, known: Mapping[str, Reference]) -> None:
        self.mistakes: list[tuple[Location, str]] = []
        self._base_dir = base_dir
        self._known = known

    def inputs(self, written: Mapping[str, str]) -> tuple[Input, ...]:
        found: list[Input] = []
        for key, source in written.items():
            item = self._input(key, source)
            if item is not None and item.path in [other.path for other in found]:
                self.mistakes.append((("inputs", key), "another input has this place"))
            elif item is not None:
                found.append(item)
        return tuple(found)

    def outputs(self, written: list[OutputForm]) -> tuple[Output, ...]:
        found: list[Output] = []
        for number, item in enumerate(written):
            output = Output(item) if isinstance(item, str) else Output(item.path, item.optional)
            if output.path in [other.path for other in found]:
                self.mistakes.append((("outputs", number), f"{output.path} stands here twice"))
            found.append(output)
        return tuple(found)

    def references(
        self, written: list[str | dict[str, str | None]] | dict[str, str | None] | str
    ) -> tuple[Reference, ...]:
        found: dict[str, Reference] = {}
        for location, name, place in _flat(written):
            known = self._known.get(name)
            if known is None:
                near = did_you_mean(name, self._known)
                text = f"the settings have no reference {name!r}{near}"
                self.mistakes.append((location, text))
            elif name in found:
                self.mistakes.append((location, f"{name} stands here twice"))
            else:
                found[name] = Reference(name, known.url, place or known.path)
        return tuple(found.values())

    def env(self, written: Mapping[str, str]) -> dict[str, str]:
        taken = {*_OURS, *(reference_variable(name) for name in self._known)}
        for name, value in written.items():
            if not _VARIABLE.fullmatch(name):
                self.mistakes.append((("env", name), "is no name of a variable"))
            elif name in taken or name.startswith("S3RUNNER_"):
                self.mistakes.append((("env", name), "is set by s3runner itself"))
            elif "\0" in value:
                self.mistakes.append((("env", name), "holds a NUL"))
        return dict(written)

    def check_overlaps(self, job: Job) -> None:
        """Refuse a place inside a file, and a reference that shares a place with anything."""
        for outer in job.inputs:
            for inner in job.inputs:
                inside = inner is not outer and lies_in(inner.path, outer.path)
                if inside and _is_file(outer.source):
                    text = f"lies inside {outer.path}, which is a file"
                    self.mistakes.append((("inputs", inner.path), text))
        placed = [(reference.name, reference.path) for reference in job.references]
        others = [(f"input {item.path}", item.path) for item in job.inputs]
        for number, (name, path) in enumerate(placed):
            for other, place in [*others, *placed[:number]]:
                if path and place and (lies_in(path, place) or lies_in(place, path)):
                    self.mistakes.append((("references",), f"{name} and {other} share {place}"))

    def _input(self, place: str, source: str) -> Input | None:
        try:
            return Input(place_of(place), self._source(source))
        except (ValueError, SettingsError) as error:
            self.mistakes.append((("inputs", place), str(error)))
            return None

    def _source(self, text: str) -> str:
        if text.startswith("s3://"):
            return str(S3Uri.parse(text))
        if is_url(text):
            _check_url(text)
            return text
        try:
            return str(self._base_dir / Path(text).expanduser())
        except RuntimeError as error:
            raise ValueError(f"{text!r}: there is no such user") from error


def _flat(
    written: list[str | dict[str, str | None]] | dict[str, str | None] | str,
) -> list[tuple[Location, str, str | None]]:
    if isinstance(written, str):
        return []
    if isinstance(written, dict):
        return [(("references", name), name, place) for name, place in written.items()]
    return [
        (("references", number), name, place)
        for number, item in enumerate(written)
        for name, place in ({item: None} if isinstance(item, str) else item).items()
    ]


def _check_url(url: str) -> None:
    try:
        check_url(url)
    except SettingsError as error:
        hint = f"; {error.hint}" if error.hint else ""
        raise ValueError(f"{shown(url)}: {error.reason}{hint}") from error


def _is_file(source: str) -> bool:
    if is_web(source):
        return True
    return not source.endswith("/") if is_url(source) else Path(source).is_file()

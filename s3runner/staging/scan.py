"""Finding what is to be staged: declared inputs on the head, declared outputs in the pod.

It looks and never reads: content is hashed later, once it is known that nothing is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from s3runner.errors import InputError, S3RunnerError, StagingError, UnsupportedError
from s3runner.model import Output
from s3runner.staging.globs import files_below, has_wildcard, matches_of
from s3runner.staging.reading import refuse_kind, unreadable
from s3runner.staging.tree import Tree
from s3runner.staging.walk import Findings

RESERVED = ".s3runner"
"""Streams and exit code come back below this name, beside the outputs."""


@dataclass(frozen=True, slots=True)
class OutputScan:
    """What a tool left: one tree for each declared output that is there.

    `missing` names outputs that are not optional and not there. Every path is in one tree only.
    """

    trees: tuple[Tree, ...]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def scan(path_in_job: str, source: str) -> Tree:
    """Look at one input: a file, or a directory with all below it; a link named here is followed.

    Raises StagingError with every failure: InputError (missing, unreadable), UnsupportedError
    (a FIFO, socket or device, a link that leaves the directory, a path that is too long).
    """
    findings = Findings()
    try:
        # strict: a link that dangles or loops is a missing input
        local = os.path.realpath(source, strict=True)
        _refuse_special(local)
    except OSError as error:
        raise StagingError("stage-in", [_missing_or_unreadable(error, source)]) from error
    except UnsupportedError as error:
        raise StagingError("stage-in", [error]) from error
    findings.add_tree(path_in_job, local, local if os.path.isdir(local) else os.path.dirname(local))
    if findings.failures:
        raise StagingError("stage-in", findings.failures)
    return Tree(path_in_job, source, findings.ordered(), findings.files, findings.warnings)


def _missing_or_unreadable(error: OSError, source: str) -> S3RunnerError:
    if os.path.islink(source) and isinstance(error, FileNotFoundError):
        return InputError(
            f"it is a link to {os.readlink(source)!r}, which is not there", source=source
        )
    return unreadable(error, source)


def _refuse_special(local: str) -> None:
    mode = os.lstat(local).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise refuse_kind(mode, local)


def scan_outputs(outputs: Sequence[Output], work: str, roots: Sequence[str]) -> OutputScan:
    """Look at what a tool left in the directory `work` and at absolute outputs.

    An output is a literal path wherever something has exactly that name, else a pattern (`*`, `?`,
    `[]`, and `**` for any depth; a leading wildcard matches no hidden name). One that is a link, or
    lies behind one, is followed only to places below `roots`: a tool must not make us upload what
    it could not read itself, nor put in place of what was seen: the way to each file, as it was
    followed here, is gone again without links. Raises StagingError with every refusal.
    """
    # of roots in each other the outer one leads the way: the inner one could be replaced
    search = _OutputSearch(work, sorted((os.path.realpath(root) for root in roots), key=len))
    # in order of their paths, so that a directory is seen whole before what is named inside it
    for output in sorted(outputs, key=lambda output: os.fsencode(output.path)):
        search.look_for(output)
    if search.failures:
        raise StagingError("stage-out", search.failures)
    warnings = tuple(text for tree in search.trees for text in tree.warnings)
    return OutputScan(tuple(search.trees), tuple(search.missing), warnings)


class _OutputSearch:
    """The outputs found so far."""

    def __init__(self, work: str, roots: Sequence[str]) -> None:
        self._work = work
        self._roots = roots
        self._seen: set[str] = set()
        self.trees: list[Tree] = []
        self.missing: list[str] = []
        self.failures: list[S3RunnerError] = []

    def look_for(self, output: Output) -> None:
        try:
            path = _canonical(output.path)
            found = self._find(path, output.matching)
            places = {match: self._resolve(match) for match in found}
        except OSError as error:
            self.failures.append(unreadable(error, self._local(output.path)))
            return
        except S3RunnerError as error:
            self.failures.append(error)
            return
        there = {match: place for match, place in places.items() if place}
        if there:
            self._add(path, there)
        elif not output.optional:
            self.missing.append(output.path)

    def _find(self, path: str, matching: str | None) -> list[str]:
        if matching is not None:
            return files_below(path, self._local(path), matching)
        return [path] if os.path.lexists(self._local(path)) else self._matches(path)

    def _local(self, path: str) -> str:
        return path if path.startswith("/") else os.path.join(self._work, path)

    def _matches(self, path: str) -> list[str]:
        return matches_of(path, self._work) if has_wildcard(path) else []

    def _resolve(self, path: str) -> tuple[str, str] | None:
        """Return where a name leads and the root that lies above; None where nothing is.

        Raises UnsupportedError.
        """
        local = self._local(path)
        if path == RESERVED or path.startswith(f"{RESERVED}/"):
            raise UnsupportedError(f"{RESERVED} is where the tool's streams go", source=local)
        real = os.path.realpath(local)
        for root in self._roots:
            if real == root or real.startswith(f"{root.rstrip('/')}/"):
                return (real, root) if os.path.exists(real) else None
        raise UnsupportedError(
            f"the output leads to {real!r}, outside the job's directories", source=local
        )

    def _add(self, declared: str, found: Mapping[str, tuple[str, str]]) -> None:
        findings = Findings()
        for path, (local, root) in found.items():
            findings.add_tree(path, local, root)
        self.failures += findings.failures
        entries = tuple(e for e in findings.ordered() if e.path not in self._seen)
        self._seen.update(entry.path for entry in entries)
        paths = {entry.path for entry in entries}
        files = {path: file for path, file in findings.files.items() if path in paths}
        self.trees.append(Tree(declared, self._local(declared), entries, files, findings.warnings))


def _canonical(path: str) -> str:
    """Return the path without empty and `.` segments. Raises UnsupportedError for `..`."""
    segments = [segment for segment in path.split("/") if segment not in ("", ".")]
    if not segments or ".." in segments or "\0" in path:
        raise UnsupportedError("an output needs a name inside the job's directories", source=path)
    return ("/" if path.startswith("/") else "") + "/".join(segments)

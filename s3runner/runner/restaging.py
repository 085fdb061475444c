"""Stage-in once more, for a job whose fetch did not find a blob: from the files it was made of.

It stands apart from submission because nothing new comes of it. What goes up has the digests that
the spec names; a file that has another one by now is a reason to end the job, not to upload it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from s3runner.errors import InputError, S3RunnerError, StagingError
from s3runner.model import Entry, Manifest, Outcome
from s3runner.runner.decide import StoredResult, may_repeat, repeated
from s3runner.runner.head import Head
from s3runner.runner.report import Listener
from s3runner.staging.digest import combine
from s3runner.staging.hashing import hash_inputs
from s3runner.staging.manifest import load_manifest, parse_document
from s3runner.staging.named import read_named
from s3runner.staging.parallel import run_all
from s3runner.staging.plan import group_inputs
from s3runner.staging.records import ExternalManifest, Generation, Spec
from s3runner.staging.scan import scan
from s3runner.staging.tree import Tree, without
from s3runner.staging.upload import stage_in
from s3runner.store.meter import Meter

_HINT = "the store has lost a staged input: put its source back as it was, and submit the job again"


def replace_lost_blobs(
    head: Head,
    spec: Spec,
    following: Generation,
    results: Sequence[StoredResult],
    listener: Listener,
) -> Generation:
    """Return what follows a generation, if its end is that a staged input is gone from the store.

    Once a job, the inputs are staged in again and another Job follows; where their sources are not
    here or not as they were, the end says so. Any other record is returned as it is.
    """
    lost = _lost_blob(head, following, results)
    if lost is None or not may_repeat(following):
        return following
    listener.note(f"{lost} is gone from the store: stage-in once more")
    try:
        _stage_in_again(head, spec, lost)
    except S3RunnerError as error:
        if error.code != InputError.code:
            raise
        error.hint = _HINT
        return _ended_for(following, error)
    return repeated(following, spec)


def _lost_blob(head: Head, following: Generation, results: Sequence[StoredResult]) -> str | None:
    """Return the URI of the blob that a job ends for the want of, None if it ends otherwise."""
    end = following.end
    if end is None or end.outcome is not Outcome.INPUT_FAILED:
        return None
    errors = (stored.result.error for stored in results if stored.result.attempt == end.attempt)
    source = str((next(errors, None) or {}).get("source", ""))
    return source if source.startswith(head.config.uri(head.layout.blobs_prefix)) else None


def _ended_for(following: Generation, error: S3RunnerError) -> Generation:
    end = following.end
    if end is None:
        return following
    evidence = {**(end.observation or {}), "error": error.to_json()}
    return replace(following, end=replace(end, observation=evidence))


def _stage_in_again(head: Head, spec: Spec, lost: str) -> None:
    """Put what is missing of the inputs that were staged from files, the lost blob among them.

    Raises InputError, or StagingError (21) with every source that is gone or not what it was.
    """
    staged = {
        entry.path: entry
        for entry in read_inputs(head, spec).entries
        if _is_staged(head, spec, entry)
    }
    if lost not in {head.config.uri(entry.at.key) for entry in staged.values() if entry.at}:
        raise InputError(
            "it was not made of a file of this job's", operation="stage-in", source=lost
        )
    looks: list[Callable[[], Tree]] = [
        partial(_look_again, path, source, staged) for path, source in spec.sources.items()
    ]
    trees = run_all("stage-in", looks)
    failures = list(_differences(head, trees, staged))
    if failures:
        raise StagingError("stage-in", failures)
    meter = Meter()
    stage_in(
        head.store.with_meter(meter),
        head.layout,
        trees,
        head.cache,
        meter=meter,
        blob_ttl_s=head.lifetimes.blob_s,
    )


def _is_staged(head: Head, spec: Spec, entry: Entry) -> bool:
    """Tell whether a file lies in a blob that was made of one of the job's sources."""
    if entry.at is None or not entry.at.key.startswith(head.layout.blobs_prefix):
        return False
    return any(entry.path == top or entry.path.startswith(f"{top}/") for top in spec.sources)


def _look_again(path: str, source: str, staged: Mapping[str, Entry]) -> Tree:
    """Return an input's tree with the files that were staged from it and no others.

    Others may have been in S3 already, or have come since; with them its packs would be other ones.
    """
    tree = scan(path, source)
    return without(tree, tree.files.keys() - staged.keys())


def _differences(
    head: Head, trees: Sequence[Tree], staged: Mapping[str, Entry]
) -> Iterator[InputError]:
    files = {path: file for tree in trees for path, file in tree.files.items()}
    for path in staged.keys() - files.keys():
        yield InputError("the file that was staged in is not there any more", source=path)
    for path, parts in hash_inputs(group_inputs(trees), head.cache).files.items():
        if combine(parts) != staged[path].digest:
            yield InputError("the file is not what was staged in", source=files[path].path)


def read_inputs(head: Head, spec: Spec) -> Manifest:
    """Return a job's inputs, wherever they are listed. Raises SpecError."""
    inputs = spec.inputs
    if not isinstance(inputs, ExternalManifest):
        return inputs
    origin = head.config.uri(inputs.key)
    body = read_named(head.store, inputs.key, inputs.digest, origin)
    return load_manifest(parse_document(body, origin), origin)

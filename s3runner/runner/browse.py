"""Reading results where they lie: what is behind a URI, and its bytes, without a sync."""

from __future__ import annotations

from collections.abc import Iterator

from s3runner.errors import InputError, SettingsError
from s3runner.model import Entry, Kind, Manifest
from s3runner.runner.head import Head
from s3runner.runner.report import SyncedOutput
from s3runner.runner.sources import RemoteSources
from s3runner.runner.sync import describe_outputs, read_manifest
from s3runner.staging.stream import verified_pieces
from s3runner.store.urls import is_s3, shown


def list_job(head: Head, job_id: str) -> list[SyncedOutput]:
    """Return the outputs of a job's committed attempt; none if no attempt was committed.

    Raises SettingsError for an unknown job, InputError for one that has not ended.
    """
    spec, _ = head.read_spec(job_id)
    commit = head.read_commit(job_id)
    if commit is None:
        raise InputError(f"job {job_id} has not ended", hint=f"s3runner wait {job_id}")
    result = head.read_committed_result(job_id, commit)
    return list(
        describe_outputs(head, job_id, commit, read_manifest(head, head.store, spec, result))
    )


def list_uri(head: Head, uri: str) -> list[SyncedOutput]:
    """Return what `uri` names and all below it.

    Another job's outputs have the paths that they had there, other objects those below `uri`.
    """
    return [
        SyncedOutput(entry.path, entry.kind, entry.size, entry.digest, _uri_of(head, entry))
        for entry in _resolved(head, uri).entries
    ]


def read_uri(head: Head, uri: str) -> Iterator[bytes]:
    """Yield the bytes of the file that `uri` names, verified. Raises InputError for no file."""
    top = _resolved(head, uri).entries[0]
    if top.kind is not Kind.FILE:
        raise InputError(f"it is no file but a {top.kind.value}", source=uri)
    yield from verified_pieces(head.store, top)


def _resolved(head: Head, uri: str) -> Manifest:
    if not is_s3(uri):
        raise SettingsError("ls and cat read what lies in the store, s3://…", source=shown(uri))
    top = uri.rstrip("/").rpartition("/")[2]
    return RemoteSources(head.store, head.config).resolve(top, uri, keep_names=True)


def _uri_of(head: Head, entry: Entry) -> str:
    if entry.at is None:
        return ""
    member = "" if entry.at.offset is None else f"#{entry.path}"
    return f"s3://{entry.at.bucket or head.config.bucket}/{entry.at.key}{member}"

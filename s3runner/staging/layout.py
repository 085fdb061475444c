"""Where everything lies in the bucket: every key derives from the prefix and the job id.

Pure, and the only module that puts keys together.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

MAX_KEY_BYTES = 900
"""S3 allows 1,024 bytes; the rest is room for what a mount or a copy puts in front."""

LOG_STREAMS = ("stdout", "stderr")
LOG_LIMIT = 16 * 1024**2
"""Bytes of a stream that go up while the tool runs; the whole comes with the attempt's end."""

_BY_DIGEST = ".by-digest"


_STEM_LENGTH = 53
"""Of a Job's name; its generation and what Kubernetes appends for a pod fit into 63."""
_LABEL_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def job_name(job_id: str, generation: int) -> str:
    """Return the name of a generation's Kubernetes Job: a DNS label, another for every job id."""
    return f"{label_of(job_id)}-g{generation}"


def label_of(job_id: str) -> str:
    """Return a job id as a DNS label; one that is none is cut, and marked by its digest."""
    safe = "".join(char if char in _LABEL_ALPHABET else "-" for char in job_id.lower()).strip("-")
    if safe == job_id and len(safe) <= _STEM_LENGTH:
        return safe
    mark = hashlib.sha256(job_id.encode()).hexdigest()[:8]
    return f"{safe[: _STEM_LENGTH - 9].rstrip('-') or 'job'}-{mark}"


def _join(prefix: str, *parts: str) -> str:
    return "/".join(part for part in (prefix, *parts) if part)


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """Keys that belong to no job. `prefix` has no slash at either end and may be empty."""

    prefix: str

    @property
    def jobs_prefix(self) -> str:
        """Where the jobs begin, with the closing slash."""
        return _join(self.prefix, "jobs") + "/"

    @property
    def blobs_prefix(self) -> str:
        """Where the blobs begin, with the closing slash."""
        return _join(self.prefix, "blobs") + "/"

    def blob(self, digest: str) -> str:
        """Return the key of content: `sha256:<hex>[-<parts>]` -> `blobs/<aa>/<hex>[-<parts>]`."""
        name = digest.removeprefix("sha256:")
        return _join(self.prefix, "blobs", name[:2], name)

    @property
    def kept_prefix(self) -> str:
        """Where the documents of kept blobs begin, with the closing slash."""
        return _join(self.prefix, "kept") + "/"

    def kept_prefix_of(self, digest: str) -> str:
        """Return where those of one blob begin, with the closing slash."""
        name = digest.removeprefix("sha256:")
        return f"{self.kept_prefix}{name[:2]}/{name}/"

    def kept(self, digest: str, directory: str) -> str:
        """Return the key that keeps a blob for the links in a directory, which its id names."""
        return f"{self.kept_prefix_of(digest)}{directory}.json"

    @property
    def probes_prefix(self) -> str:
        """Where the conditional-write probes begin, with the closing slash."""
        return _join(self.prefix, "probes") + "/"

    def probe(self, uuid: str) -> str:
        """Return the key of one conditional-write probe."""
        return _join(self.prefix, "probes", uuid)

    def queue(self, destination: str, cluster: str) -> str:
        """Return where the jobs that wait for room have their places, with the closing slash.

        `cluster` names the one that the destination runs on, by a digest.
        """
        return _join(self.prefix, "queue", destination, cluster.removeprefix("sha256:")[:16]) + "/"

    def job(self, job_id: str) -> JobLayout:
        """Return the names of one job."""
        return JobLayout(_join(self.prefix, "jobs", job_id), job_id)


@dataclass(frozen=True, slots=True)
class JobLayout:
    """Names of one job: its keys, and its Kubernetes Jobs'."""

    root: str
    job_id: str

    @property
    def spec(self) -> str:
        """What was asked for."""
        return f"{self.root}/spec.json"

    @property
    def inputs(self) -> str:
        """The input manifest, where it is too large for the spec."""
        return f"{self.root}/inputs.json"

    @property
    def commit(self) -> str:
        """The only decision point."""
        return f"{self.root}/commit.json"

    @property
    def keep(self) -> str:
        """While it exists, gc leaves the job alone."""
        return f"{self.root}/keep.json"

    @property
    def generations_prefix(self) -> str:
        """Where the generation records begin, with the closing slash."""
        return f"{self.root}/generations/"

    @property
    def attempts_prefix(self) -> str:
        """Where the attempts begin, with the closing slash."""
        return f"{self.root}/attempts/"

    def generation(self, number: int) -> str:
        """Return the key of a generation's record, written before its Job is created."""
        return f"{self.root}/generations/{number}.json"

    def generation_created(self, number: int) -> str:
        """Return the key that says the generation's Job was created."""
        return f"{self.root}/generations/{number}.created.json"

    def attempt(self, uid: str) -> AttemptLayout:
        """Return the names of one attempt (the pod's UID)."""
        return AttemptLayout(f"{self.root}/attempts/{uid}")

    def job_name(self, generation: int) -> str:
        """Return the Kubernetes Job's name."""
        return job_name(self.job_id, generation)


@dataclass(frozen=True, slots=True)
class AttemptLayout:
    """Names below one attempt: all that its pod may write, but the commit."""

    root: str

    @property
    def result(self) -> str:
        """What the attempt did."""
        return f"{self.root}/result.json"

    @property
    def inputs(self) -> str:
        """The tree that the attempt fetched, where that is more than its spec tells."""
        return f"{self.root}/inputs.json"

    @property
    def manifest(self) -> str:
        """The tree that the attempt brought out."""
        return f"{self.root}/manifest.json"

    @property
    def rest(self) -> str:
        """The pack of streams and exit code."""
        return f"{self.root}/rest.tar"

    def pack(self, number: int) -> str:
        """Return the key of a pack of small output files."""
        return f"{self.root}/packs/{number}.tar"

    def log(self, stream: str, number: int) -> str:
        """Return the key of one log segment; numbers are padded so that listings sort."""
        return f"{self.root}/logs/{stream}/{number:06d}"

    def log_capped(self, stream: str) -> str:
        """Return the key that says that a stream goes on where its segments end."""
        return f"{self.root}/logs/{stream}/capped"

    def out(self, path: str) -> str:
        """Return the key of one output file: readable where S3 and every client can hold it.

        The path's bytes are percent-encoded; an absolute path keeps its first slash as `%2F`. A
        key over 900 bytes, or with an empty, `.` or `..` segment, is named by the path's SHA-256.
        The manifest is the only way back from key to path.
        """
        raw = os.fsencode(path)
        lead, rest = ("%2F", raw[1:]) if raw.startswith(b"/") else ("", raw)
        key = f"{self.root}/out/{lead}{quote_from_bytes(rest, safe='/')}"
        segments = rest.split(b"/")
        unnameable = any(segment in (b"", b".", b"..") for segment in segments)
        if unnameable or segments[0] == _BY_DIGEST.encode() or len(key) > MAX_KEY_BYTES:
            return f"{self.root}/out/{_BY_DIGEST}/{hashlib.sha256(raw).hexdigest()}"
        return key

"""The values that travel between the layers: frozen, without behaviour that touches the world."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from s3runner.errors import SettingsError
from s3runner.pod_model import AS_IMAGE, KubernetesPlace, PodParts

PROTOCOL = 1
"""Version of every JSON document in the store; readers refuse any other."""


class Outcome(str, enum.Enum):
    """How a job ended; a value, never an exception. Codes: `code_of`."""

    SUCCEEDED = "succeeded"
    TOOL_FAILED = "tool_failed"
    OUT_OF_MEMORY = "out_of_memory"
    WALLTIME = "walltime"
    BAD_SPEC = "bad_spec"
    INPUT_FAILED = "input_failed"
    INTEGRITY_FAILED = "integrity_failed"
    ACCESS_DENIED = "access_denied"
    NO_SPACE = "no_space"
    UNSUPPORTED = "unsupported"
    OUTPUT_MISSING = "output_missing"
    TOOL_NEVER_STARTED = "tool_never_started"
    OUTPUT_CONFLICT = "output_conflict"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    CLUSTER_UNAVAILABLE = "cluster_unavailable"
    CLUSTER_REFUSED = "cluster_refused"
    INTERNAL_ERROR = "internal_error"
    EVICTED = "evicted"
    INTERRUPTED = "interrupted"
    TOOL_VANISHED = "tool_vanished"
    CANCELLED = "cancelled"
    BUDGETS_SPENT = "budgets_spent"
    IMAGE_PULL_FAILED = "image_pull_failed"
    CONFIG_ERROR = "config_error"
    UNSCHEDULABLE = "unschedulable"
    DELETED = "deleted"


_CODES = {
    Outcome.SUCCEEDED: 0,
    Outcome.TOOL_FAILED: 10,
    Outcome.OUT_OF_MEMORY: 11,
    Outcome.WALLTIME: 12,
    Outcome.BAD_SPEC: 20,
    Outcome.INPUT_FAILED: 21,
    Outcome.INTEGRITY_FAILED: 22,
    Outcome.ACCESS_DENIED: 23,
    Outcome.NO_SPACE: 24,
    Outcome.UNSUPPORTED: 25,
    Outcome.OUTPUT_MISSING: 26,
    Outcome.TOOL_NEVER_STARTED: 27,
    Outcome.OUTPUT_CONFLICT: 28,
    Outcome.STORAGE_UNAVAILABLE: 30,
    Outcome.CLUSTER_UNAVAILABLE: 31,
    Outcome.CLUSTER_REFUSED: 32,
    Outcome.INTERNAL_ERROR: 70,
    Outcome.EVICTED: 75,
    Outcome.INTERRUPTED: 75,
    Outcome.TOOL_VANISHED: 75,
}

POD_FINAL = (
    Outcome.SUCCEEDED,
    Outcome.TOOL_FAILED,
    Outcome.WALLTIME,
    Outcome.OUTPUT_MISSING,
    Outcome.UNSUPPORTED,
)
"""What a pod may commit by itself unless its generation record says otherwise."""

MAX_GENERATIONS = 10
"""No job gets more Kubernetes Jobs than this, whatever its budgets say."""


def code_of(outcome: Outcome) -> int | None:
    """Return the outcome's code; None for those that only a head can reach."""
    return _CODES.get(outcome)


def outcome_of(code: int) -> Outcome:
    """Return the outcome that a pod's exit code stands for; 75 is read as `interrupted`."""
    if code == _CODES[Outcome.INTERRUPTED]:
        return Outcome.INTERRUPTED
    return next((o for o, c in _CODES.items() if c == code), Outcome.INTERNAL_ERROR)


@dataclass(frozen=True, slots=True)
class S3Uri:
    """`s3://bucket/key`; the key as S3 has it, never normalised."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> S3Uri:
        """Split an `s3://` URI. Raises SettingsError for anything else."""
        scheme, separator, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not separator or not bucket:
            msg = f"not an s3:// URI: {text!r}"
            raise SettingsError(msg)
        return cls(bucket, key)

    def __str__(self) -> str:
        """Return the URI."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Which store, and how to speak to it; holds no secret, so it may stand in a Job object."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    ca_pem: str | None = None
    insecure_http: bool = False
    retry_budget_s: float = 300.0

    def __post_init__(self) -> None:
        """Refuse plain http that nobody asked for."""
        scheme = urlsplit(self.endpoint or "https://").scheme
        if scheme == "http" and not self.insecure_http:
            msg = f"store.endpoint {self.endpoint} is plain http"
            hint = "use https, or set store.insecure_http: true for a store on a trusted network"
            raise SettingsError(msg, hint=hint)
        if scheme not in ("http", "https"):
            msg = f"store.endpoint {self.endpoint} is not an http(s) URL"
            raise SettingsError(msg)

    def uri(self, key: str) -> str:
        """Return the full URI of a key of this store."""
        return str(S3Uri(self.bucket, key))


@dataclass(frozen=True, slots=True)
class Credentials:
    """S3 keys; `repr` shows none of them."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which the AWS tools know them."""
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {**keys, "AWS_SESSION_TOKEN": self.session_token} if self.session_token else keys


class Kind(str, enum.Enum):
    """What a manifest entry is."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True)
class StoredAt:
    """Where a file's bytes lie.

    `key` is a full key of the job's own bucket, or, with `bucket`, of another one at the same
    endpoint. `offset` (bytes) is set for a member of a pack. `etag` is set where the bytes were
    not hashed by us before: the reader asks with If-Match and hashes as it reads.

    With `url` they lie outside of the store, `key` is empty, and `etag`, or else `modified`, is
    what the server said of them at submission, in its own words.
    """

    key: str
    offset: int | None = None
    bucket: str | None = None
    etag: str | None = None
    url: str | None = None
    modified: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symbolic link of a tree.

    `path` is decoded as `os.fsdecode` does it (surrogates stand for bytes that are not UTF-8).
    `mode` is the permission bits & 0777. `digest` is `sha256:<hex>` or, for more than one part,
    `sha256:<hex>-<parts>`, then `parts` holds each part's hex SHA-256. A foreign file's digest is
    empty until it has been read once.
    """

    path: str
    kind: Kind
    mode: int
    mtime_ns: int
    size: int = 0
    digest: str = ""
    parts: tuple[str, ...] = ()
    target: str = ""
    at: StoredAt | None = None


@dataclass(frozen=True, slots=True)
class Pack:
    """A plain tar of many small files, as an object of its own."""

    key: str
    size: int
    digest: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A file tree: its entries in order (a directory before what is in it) and their packs."""

    entries: tuple[Entry, ...] = ()
    packs: tuple[Pack, ...] = ()


@dataclass(frozen=True, slots=True)
class Quantity:
    """A resource as Kubernetes writes it: `request` and `limit`, each a quantity string."""

    request: str | None = None
    limit: str | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """What the tool container asks for; None means the destination's default."""

    cpu: Quantity = Quantity()
    memory: Quantity = Quantity()
    disk: Quantity = Quantity()
    gpu: int = 0


@dataclass(frozen=True, slots=True)
class Input:
    """A declared input: `path` in the pod (relative to the work dir, or absolute), and its source.

    `source` is an absolute local path or a URI.
    """

    path: str
    source: str


@dataclass(frozen=True, slots=True)
class Output:
    """A declared output: a literal path or a glob, relative to the work dir or absolute.

    With `matching`, a regular expression, it is those files below the directory `path` whose path
    from there the expression matches from its beginning.
    """

    path: str
    optional: bool = False
    matching: str | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """Read-only shared data in S3, placed at `path` (in the work dir, absolute, or None: ours)."""

    name: str
    url: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """When the head makes another generation, and how large it may get.

    `tool`: how often a tool that failed runs again. After an end for want of memory or disk the
    limit is multiplied by the factor, up to the cap.
    """

    tool: int = 0
    memory_factor: float = 2.0
    memory_cap: str = "64Gi"
    disk_factor: float = 2.0
    disk_cap: str = "500Gi"


@dataclass(frozen=True, slots=True)
class Job:
    """What the user asked for, before any of it is staged: WHAT, nothing about where.

    `retry` holds the fields of `Retry` that are to differ from the destination's, `pod` what its
    pods are to have besides, and `disk_factor` goes before the destination's. `roots` are absolute
    directories that lie above inputs and outputs: each that does is one mount, where otherwise
    every parent of such a path is.
    """

    name: str
    command: str | tuple[str, ...]
    image: str | None = None
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    references: tuple[Reference, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = Resources()
    walltime_s: float | None = None
    retry: Mapping[str, Any] = field(default_factory=dict)
    pod: PodParts = field(default_factory=PodParts)
    disk_factor: float | None = None
    roots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Destination:
    """A named place to run, resolved: plain values that the spec may hold (no secret).

    `resources` are those of a job that does not say.
    """

    name: str = "default"
    cluster: str = "local"
    worker_image: str = "s3runner-worker"
    grace_s: int = 30
    start_timeout_s: int = 900
    staging_timeout_s: int = 6 * 3600
    pending_timeout_s: int = 24 * 3600
    default_walltime_s: int = 48 * 3600
    max_evictions: int = 3
    retry: Retry = Retry()
    read_only: tuple[str, ...] = ()
    max_active: int | None = None
    resources: Resources = Resources()
    kubernetes: KubernetesPlace | None = None

    @property
    def tool_has_own_user(self) -> bool:
        """Tell whether the tool runs as another user than fetch and stager."""
        return self.kubernetes is not None and self.kubernetes.pod.tool_user == AS_IMAGE


@dataclass(frozen=True, slots=True)
class Phase:
    """What one hop cost. Bytes are payload without our JSON; requests count HEADs and retries."""

    seconds: float = 0.0
    bytes: int = 0
    files: int = 0
    requests: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the object of `--json` and result.json."""
        return {
            "seconds": round(self.seconds, 3),
            "bytes": self.bytes,
            "files": self.files,
            "requests": self.requests,
        }

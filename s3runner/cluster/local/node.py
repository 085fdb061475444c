"""What pods find on this machine: the node they run on, as plain values.

It stands apart because it is written once by whoever submits and read by the supervisor, which
starts without site-packages and could not find out by itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

BUBBLEWRAP = "bubblewrap"
UNSHARE = "unshare"
NO_SANDBOX = "none"

IMAGE_PATH = "/s3runner/image"
"""Where a worker container finds the worker image."""
SECRETS_PATH = "/s3runner/secrets"
"""Where a worker container finds its secret files."""


class Sandbox(NamedTuple):
    """How containers are kept apart: `launcher` is put in front of a container's argv."""

    kind: str
    launcher: tuple[str, ...]


class Node(NamedTuple):
    """What a pod runner must know of this machine.

    `worker_image` is the image name of which a container gets our own code: `python` runs it, the
    directories `prefixes` hold that interpreter, and `image` maps paths below IMAGE_PATH to
    directories of this machine. `worker_env` and the files of the directory `secrets` go to those
    containers only. `read_only` are directories that every container sees.
    """

    sandbox: Sandbox
    worker_image: str
    python: str
    prefixes: tuple[str, ...]
    image: dict[str, str]
    worker_env: dict[str, str]
    secrets: str
    read_only: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return self._asdict()

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Node:
        """Read what `to_json` and a JSON round trip made."""
        kind, launcher = document["sandbox"]
        return cls(
            **{
                **document,
                "sandbox": Sandbox(kind, tuple(launcher)),
                "prefixes": tuple(document["prefixes"]),
                "read_only": tuple(document["read_only"]),
            }
        )

"""Does this store keep conditional writes? All of the protocol rests on it, so it is tried.

A store that ignores `If-None-Match` answers 200 twice, and two attempts could both commit.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from s3runner.errors import S3RunnerError, StoreError
from s3runner.model import StoreConfig
from s3runner.store.protocol import ObjectStore
from s3runner.store.retrying import Retry

_HINT = (
    "s3runner needs PutObject with If-None-Match: AWS S3, Ceph, MinIO, Garage 2 and others keep "
    "it; update the store, or use another"
)
REMEMBERED_S = 7 * 24 * 3600


def check_conditional_writes(
    store: ObjectStore, *, new_key: Callable[[], str], retry: Retry | None = None
) -> None:
    """Put a fresh key twice; anything but success and then refusal raises StoreError.

    Args:
        store: one that tries once: a retry of its own would hide which try was answered.
        new_key: gives a new random key at each call (`layout.probe(uuid)`).
        retry: how long a store that does not answer is asked again. A first put whose answer was
            lost goes to another key, for the lost one may have arrived.
    """
    retry = retry or Retry()
    used: list[str] = []

    def put_first() -> bool:
        used.append(new_key())
        return store.put_if_absent(used[-1], b"1")

    try:
        if not retry.call(put_first):
            raise _broken("a new key was refused as an old one")
        if retry.call(lambda: store.put_if_absent(used[-1], b"2")):
            raise _broken("a key was written over")
    except StoreError as error:
        if type(error) is StoreError and not error.hint:
            raise _broken(error.reason) from error
        raise
    finally:
        # what stays behind is one byte a key; the check's own result matters more, and a store that
        # did not answer is not to be waited for once more for each try
        with contextlib.suppress(S3RunnerError):
            for key in used:
                store.delete(key)


def _broken(why: str) -> StoreError:
    return StoreError(f"this store does not keep conditional writes: {why}", hint=_HINT)


class ProbeMemory:
    """Which stores have passed, in a JSON file that is safe to delete.

    `clock` gives seconds since the epoch.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    def remembers(self, config: StoreConfig) -> bool:
        """Say whether this endpoint and bucket passed within the last 7 days."""
        checked = self._read().get(_name(config))
        return checked is not None and 0 <= self._clock() - checked < REMEMBERED_S

    def remember(self, config: StoreConfig) -> None:
        """Note that it passed now; where that cannot be written it is asked again next time."""
        now = self._clock()
        fresh = {name: at for name, at in self._read().items() if 0 <= now - at < REMEMBERED_S}
        text = json.dumps({**fresh, _name(config): now}, indent=1, sort_keys=True)
        temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _read(self) -> dict[str, float]:
        """Return what is there; nothing when the file is absent or damaged."""
        try:
            document = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        if not isinstance(document, dict):
            return {}
        return {name: float(at) for name, at in document.items() if isinstance(at, (int, float))}


def _name(config: StoreConfig) -> str:
    return f"{config.endpoint or 'aws'} {config.bucket}"

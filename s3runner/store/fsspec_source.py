"""Files behind any URL that fsspec knows: the only module that imports it.

Loaded only for a job that names such a URL, on the head as in its pods; what each library needs
(keys, an endpoint) it finds in its own environment, and nothing of it stands in the job.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, TypeVar

from s3runner.errors import (
    IntegrityError,
    ObjectNotFoundError,
    S3RunnerError,
    SettingsError,
    StoreAccessError,
    StoreUnavailableError,
    UnsupportedError,
)
from s3runner.model import StoredAt
from s3runner.nearest import did_you_mean
from s3runner.store import stopping
from s3runner.store.meter import Meter
from s3runner.store.origin import Found, check_unchanged
from s3runner.store.protocol import Chunks
from s3runner.store.retrying import Retry
from s3runner.store.urls import OURS, scheme_of, shown, without_prefix

T = TypeVar("T")
Info = Mapping[str, Any]

PACKAGES = "S3RUNNER_PACKAGES"
"""Where the local cluster shows its pods the packages of its own installation."""

_SLICE = 4 * 1024 * 1024
"""Bytes of one request: a library hands over a range as a whole, and eight run at once."""

_INSTALL = "pip install 's3runner[fs]', where s3runner is submitted from and in the worker image"
_ETAGS = (
    *("ETag", "etag", "content_md5", "md5Hash", "md5", "sha256", "sha", "checksum", "blob_id"),
    *("crc32c", "generation"),
)
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "modify", "updated", "created")
_DENIALS = ("NoCredentials", "Credential", "Unauth", "Forbidden", "AccessDenied", "Authentication")
"""Parts of the names of exceptions: each library has its own classes."""


class Library:
    """fsspec, as far as inputs need it. Raises SettingsError where it is not installed."""

    def __init__(self, retry: Retry, meter: Meter) -> None:
        self._retry = retry
        self._meter = meter
        self._lock = threading.Lock()
        self._open: dict[str, _System] = {}

    def look(self, url: str) -> Sequence[Found]:
        """Return the file that a URL names, or the directory and all below it."""
        system = self._system(url)
        return system.call(lambda: list(_tree(system, url)))

    def open(self, at: StoredAt, size: int) -> LibraryFile:
        """Return a file of a manifest; asks nothing yet."""
        return LibraryFile(self._system(at.url or ""), at, size)

    def _system(self, url: str) -> _System:
        """Return the file system of a URL; files of one host share a connection."""
        plain = without_prefix(url)
        with self._lock:
            try:
                kind = _class_of(scheme_of(plain))
                options = kind._get_kwargs_from_urls(plain)  # noqa: SLF001 # its subclasses' API
                known = f"{scheme_of(plain)} {sorted(options.items())}"
                if known not in self._open:
                    self._open[known] = _System(kind, options, self._retry, self._meter)
            except S3RunnerError as error:
                error.source = shown(url)
                raise
            return self._open[known]


def _class_of(scheme: str) -> Any:
    packages = os.environ.get(PACKAGES)
    if packages and packages not in sys.path:
        # behind all others, so that nothing there can stand in for the standard library
        sys.path.append(packages)
    try:
        import fsspec  # noqa: PLC0415 # only for such an input
    except ImportError as error:
        reason = f"{scheme}:// is read through fsspec, which is not installed"
        near = did_you_mean(scheme, OURS)
        raise SettingsError(f"{reason}{near}", hint=_INSTALL) from error
    try:
        return fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise SettingsError(f"{scheme}:// needs another package: {error}", hint=_INSTALL) from error
    except ValueError as error:
        near = did_you_mean(scheme, (*OURS, *fsspec.available_protocols()))
        raise SettingsError(f"{scheme}:// is no scheme that is known{near}") from error


class _System:
    """One file system of fsspec's: each call counted, tried again, its failure in our words."""

    def __init__(self, kind: Any, options: Mapping[str, Any], retry: Retry, meter: Meter) -> None:
        self._kind = kind
        self._options = options
        self._retry = retry
        self._meter = meter
        # those that are not asynchronous underneath have one connection for all threads
        self._turn: AbstractContextManager[object] = (
            nullcontext() if kind.async_impl else threading.RLock()
        )

    @cached_property
    def files(self) -> Any:
        """The file system, connected when first asked for."""
        return self._kind(**self._options)

    def path_of(self, url: str) -> str:
        """Return what the file system calls it."""
        return str(self._kind._strip_protocol(without_prefix(url)))  # noqa: SLF001 # as above

    def call(self, attempt: Callable[[], T]) -> T:
        """Return what `attempt` returns, tried again after each temporary error."""
        return self._retry.call(attempt)

    def ask(self, url: str, question: Callable[[Any, str], T]) -> T:
        """Ask the file system about a URL, once."""
        stopping.check()
        self._meter.add(requests=1)
        try:
            with self._turn:
                return question(self.files, self.path_of(url))
        except Exception as error:
            raise _translated(error, url) from error

    def info(self, url: str) -> Info:
        """Ask what a URL names now, whatever was remembered."""

        def fresh(files: Any, path: str) -> Info:
            files.invalidate_cache()
            found: Info = files.info(path)
            return found

        return self.ask(url, fresh)


def _tree(system: _System, url: str) -> Iterator[Found]:
    top = system.info(url)
    if top["type"] != "directory":
        yield _found("", top, url)
        return
    listed: Mapping[str, Info] = system.ask(
        url, lambda files, path: files.find(path, withdirs=True, detail=True)
    )
    root = str(top["name"]).rstrip("/")
    yield Found()
    for name in sorted(listed):
        path = name.rstrip("/")
        if path == root:
            continue
        if not path.startswith(f"{root}/"):
            raise UnsupportedError(f"{name!r} was listed there, which is not below it")
        yield _found(path[len(root) + 1 :], listed[name], url)


def _found(path: str, info: Info, url: str) -> Found:
    """Return what a library says of one file or directory."""
    moment = next((info[name] for name in _TIMES if info.get(name)), None)
    mtime_ns = _mtime_ns(moment)
    if info["type"] == "directory":
        return Found(path, mtime_ns=mtime_ns)
    size = info.get("size")
    if info["type"] != "file" or size is None:
        raise UnsupportedError(
            f"{path or 'it'} is a {info['type']} of unknown size",
            source=shown(url),
            hint="bring it to this machine and name the local file",
        )
    etag = next((str(info[name]) for name in _ETAGS if info.get(name)), None)
    return Found(path, int(size), etag, None if moment is None else str(moment), mtime_ns)


def _mtime_ns(moment: object) -> int | None:
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment.replace("Z", "+00:00"))
        except ValueError:
            return None
    if isinstance(moment, datetime):
        zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
        return int(zoned.timestamp()) * 10**9
    return int(moment) * 10**9 if isinstance(moment, int | float) else None


class LibraryFile:
    """One file behind fsspec, as it was at submission."""

    in_one_go = False

    def __init__(self, system: _System, at: StoredAt, size: int) -> None:
        self._system = system
        self._at = at
        self._url = at.url or ""
        self._size = size

    def get(self, consume: Callable[[Chunks], T], *, start: int, length: int) -> T:
        """Hand a range to `consume`, and see that it was the submitted file to the end.

        The look comes last: a file that is the same then was the same while it was read.
        """

        def attempt() -> T:
            read = consume(stopping.watched(self._pieces(start, length)))
            found = _found("", self._system.info(self._url), self._url)
            check_unchanged(found, self._at, self._size, shown(self._url))
            return read

        try:
            return self._system.call(attempt)
        except S3RunnerError as error:
            error.source = shown(self._url)
            raise

    def _pieces(self, start: int, length: int) -> Chunks:
        for position in range(start, start + length, _SLICE):
            wanted = min(_SLICE, start + length - position)
            piece = self._slice(position, wanted)
            if len(piece) != wanted:
                found = _found("", self._system.info(self._url), self._url)
                check_unchanged(found, self._at, self._size, shown(self._url))
                raise IntegrityError(f"{len(piece)} bytes came where {wanted} were asked for")
            yield piece

    def _slice(self, position: int, wanted: int) -> bytes:
        def read(files: Any, path: str) -> bytes:
            piece: bytes = files.cat_file(path, start=position, end=position + wanted)
            return piece

        return self._system.ask(self._url, read)


def _translated(error: Exception, url: str) -> S3RunnerError:
    """Return our error for a library's; what nobody can name may pass, and is tried again."""
    source = shown(url)
    name = type(error).__name__
    reason = f"{name}: {error}".replace(url, source).replace(without_prefix(url), source)
    if isinstance(error, S3RunnerError):
        return error
    if isinstance(error, FileNotFoundError):
        return ObjectNotFoundError("there is no such file or directory", source=source)
    if isinstance(error, PermissionError) or any(part in name for part in _DENIALS):
        hint = "give the pods what the library needs: docs/cli.md, Inputs from elsewhere"
        return StoreAccessError(f"access denied ({reason})", source=source, hint=hint)
    if isinstance(error, NotImplementedError):
        return UnsupportedError(f"the library cannot do that ({reason})", source=source)
    if isinstance(error, ImportError | TypeError | ValueError):
        return SettingsError(f"the library refuses it ({reason})", source=source, hint=_INSTALL)
    return StoreUnavailableError(reason, source=source)

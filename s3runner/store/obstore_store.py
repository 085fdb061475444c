"""S3 through obstore: where the bytes go. The only module that knows obstore.

Only its synchronous API is used, from threads: the asynchronous one has aborted at interpreter
exit. It reads no setting from the environment but the credentials that nobody gave.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import obstore
from obstore.exceptions import BaseError, InvalidPathError, UnauthenticatedError
from obstore.store import S3Store

from s3runner.errors import (
    IntegrityError,
    ObjectNotFoundError,
    S3RunnerError,
    SettingsError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
    UnsupportedError,
)
from s3runner.model import Credentials, StoreConfig
from s3runner.store.obstore_errors import first_line, status_of, translate
from s3runner.store.protocol import Chunks, StoredObject
from s3runner.store.s3_errors import store_error

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig, S3Credential

T = TypeVar("T")

DEFAULT_REGION = "us-east-1"

CONNECT_TIMEOUT_S = 10
STALL_S = 30
STALL_BYTES_PER_S = 1000

IN_FLIGHT_BYTES = 64 * 1024 * 1024
"""Parts of one upload that are on their way at once, in bytes (at least one part, at most 4)."""
_SMALL_BODY = 1024 * 1024
_SLOWEST_UPLOAD_BYTES_PER_S = 256 * 1024
_NEVER = timedelta(days=365)

_FAULTS = (BaseError, FileNotFoundError)
"""What obstore raises for an answer it did not like; not found is Python's own class."""
_INTERRUPTION = "type: <class 'KeyboardInterrupt'>"
"""In the text of an error that obstore made of Ctrl-C, which came while it asked us for keys."""

_MAX_KEY_BYTES = 1024


class ObstoreStore:
    """One bucket of an S3 store. Each call is tried once.

    Args:
        config: which store.
        credentials: keys, or a function that returns fresh ones and is asked again every few
            minutes; None leaves it to obstore (environment, web identity, container, instance).
        stall_s: how long the store may keep silent, and the window in which a download's rate is
            measured: below `STALL_BYTES_PER_S` it is given up.

    Raises SettingsError when the CA bundle holds no certificate.
    """

    def __init__(
        self,
        config: StoreConfig,
        credentials: Credentials | Callable[[], Credentials] | None = None,
        stall_s: int = STALL_S,
    ) -> None:
        self._config = config
        self._stall_s = stall_s
        self._credentials = credentials
        self._clients: dict[int, S3Store] = {}
        self._lock = threading.Lock()
        self._client()

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._config.bucket

    def in_bucket(self, bucket: str) -> ObstoreStore:
        """Return the same endpoint and credentials with another bucket."""
        return ObstoreStore(replace(self._config, bucket=bucket), self._credentials, self._stall_s)

    def head(self, key: str) -> StoredObject:
        """Ask for an object's size, ETag and age.

        A missing bucket shows as ObjectNotFoundError here: an answer to HEAD gives no reason.
        """
        uri = self._checked(key)
        try:
            return _stored(obstore.head(self._client(), key))
        except _FAULTS as error:
            raise self._translate(error, "HeadObject", uri) from None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object below `prefix`, which ends in a slash.

        A key that itself ends in a slash (a "folder" made by a console) comes without it: obstore
        drops the slash. We never write such keys. obstore reads a prefix as whole segments.
        """
        uri = self._checked(prefix.removesuffix("/")) + "/"
        try:
            for page in obstore.list(self._client(), prefix, chunk_size=1000):
                yield from map(_stored, page)
        except _FAULTS as error:
            raise self._translate(error, "ListObjects", uri) from None

    def list_folders(self, prefix: str) -> Sequence[str]:
        """Return the names one level below `prefix` that hold something."""
        uri = self._checked(prefix.removesuffix("/")) + "/"
        try:
            found = obstore.list_with_delimiter(self._client(), prefix)["common_prefixes"]
        except _FAULTS as error:
            raise self._translate(error, "ListObjects", uri) from None
        return sorted(path.rpartition("/")[2] for path in found)

    def get(
        self,
        key: str,
        consume: Callable[[Chunks], T],
        *,
        start: int = 0,
        length: int | None = None,
        if_match: str | None = None,
    ) -> T:
        """Hand `length` bytes from `start` to `consume`, in one request."""
        uri = self._checked(key)
        if length == 0:
            return consume(iter(()))
        options: GetOptions = {}
        if length is not None:
            options["range"] = (start, start + length)
        elif start:
            options["range"] = {"offset": start}
        if if_match is not None:
            options["if_match"] = if_match
        try:
            answer = obstore.get(self._client(), key, options=options)
            first, end = answer.range
            pieces = iter(answer.stream(min_chunk_size=1))
        except _FAULTS as error:
            raise self._translate(error, "GetObject", uri) from None
        if length is not None and end - first < length:
            raise store_error(
                IntegrityError,
                f"the object is shorter than it should be: {end} of {start + length} bytes",
                request="GetObject",
                uri=uri,
            )
        return consume(self._received(pieces, end - first, uri))

    def put(self, key: str, body: Callable[[], Chunks], *, size: int, part_size: int) -> None:
        """Store `size` bytes, by one request up to `part_size`, else by a multipart upload."""
        uri = self._checked(key)
        source = _Body(body(), size)
        parallel = min(4, max(1, IN_FLIGHT_BYTES // part_size))
        try:
            if size <= part_size:
                whole = b"".join(source.chunks)
                obstore.put(self._client(len(whole)), key, whole, use_multipart=False)
            else:
                obstore.put(
                    self._client(part_size * parallel),
                    key,
                    source.chunks,
                    use_multipart=True,
                    chunk_size=part_size,
                    max_concurrency=parallel,
                )
        except _FAULTS as error:
            if source.error is not None:
                raise source.error from None
            raise self._translate(error, "PutObject", uri) from None

    def put_if_absent(self, key: str, body: bytes) -> bool:
        """Store a small document unless the key exists; False when the store answered 412."""
        uri = self._checked(key)
        try:
            obstore.put(self._client(len(body)), key, body, mode="create", use_multipart=False)
        except _FAULTS as error:
            # not by the class: obstore shows a 409 (another writer is at it: try again) as the same
            if status_of(str(error)) == 412:  # noqa: PLR2004 # Precondition Failed
                return False
            raise self._translate(error, "PutObject", uri) from None
        return True

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        uri = self._checked(key)
        try:
            obstore.delete(self._client(), key)
        except _FAULTS as error:
            translated = self._translate(error, "DeleteObject", uri)
            if not isinstance(translated, ObjectNotFoundError):
                raise translated from None

    def _checked(self, key: str) -> str:
        """Return the key's URI; refuse a key that obstore refuses or would change."""
        uri = self._config.uri(key)
        try:
            raw = key.encode()
        except UnicodeEncodeError:
            raise UnsupportedError("a key that is not UTF-8", target=uri) from None
        if any(byte < 0x20 or byte == 0x7F for byte in raw):  # noqa: PLR2004 # ASCII
            raise UnsupportedError("a key with control characters", target=uri)
        if any(segment in ("", ".", "..") for segment in key.split("/")):
            raise UnsupportedError("a key with an empty, `.` or `..` segment", target=uri)
        if len(raw) > _MAX_KEY_BYTES:
            raise UnsupportedError("a key of more than 1024 bytes", target=uri)
        return uri

    def _client(self, sending: int = 0) -> S3Store:
        """Return a client patient enough for a request with `sending` bytes in flight.

        obstore's read timeout runs while a request's body is being sent, so that a large body on
        a slow line needs more than the silence that a small request is allowed.
        """
        patience = self._stall_s
        if sending > _SMALL_BODY:
            patience += max(sending, IN_FLIGHT_BYTES) // _SLOWEST_UPLOAD_BYTES_PER_S
        with self._lock:
            if patience not in self._clients:
                self._clients[patience] = self._new_client(patience)
            return self._clients[patience]

    def _new_client(self, patience_s: int) -> S3Store:
        endpoint, virtual_hosted = endpoint_of(self._config)
        client: ClientConfig = {
            "allow_http": self._config.insecure_http,
            "allow_invalid_certificates": False,
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "read_timeout": timedelta(seconds=patience_s),
            "timeout": _NEVER,
        }
        if self._config.ca_pem:
            client["root_certificate"] = self._config.ca_pem
        # whatever stands here is not taken from AWS_* variables, which pods do not have
        options: dict[str, Any] = {
            "region": self._config.region or DEFAULT_REGION,
            "endpoint": endpoint,
            "aws_endpoint_url_s3": endpoint,
            "virtual_hosted_style_request": virtual_hosted,
            "conditional_put": "etag",
            "disable_bulk_delete": True,
            "s3_express": False,
            "skip_signature": False,
            "unsigned_payload": False,
        }
        if self._credentials is not None:
            options["credential_provider"] = self._provide
        try:
            return S3Store(
                self._config.bucket,
                client_options=client,
                retry_config={"max_retries": 0},
                **options,
            )
        except ValueError as error:
            raise SettingsError(f"store.ca_bundle: {first_line(str(error))}") from error

    def _provide(self) -> S3Credential:
        """Answer obstore's question for keys; it asks again five minutes before their end."""
        given = self._credentials() if callable(self._credentials) else self._credentials
        assert given is not None  # noqa: S101 # a provider is set only where there are keys
        ending = datetime.now(timezone.utc) + timedelta(minutes=10)
        return {
            "access_key_id": given.access_key,
            "secret_access_key": given.secret_key,
            "token": given.session_token,
            "expires_at": ending if callable(self._credentials) else None,
        }

    def _received(self, pieces: Iterator[bytes], size: int, uri: str) -> Chunks:
        """Yield the answer's bytes, and raise if they end early or trickle."""
        received = window_bytes = 0
        window_s = 0.0
        while True:
            asked = time.monotonic()
            try:
                piece = next(pieces, None)
            except _FAULTS as error:
                raise self._translate(error, "GetObject", uri) from None
            if piece is None:
                break
            # the time that the consumer takes is not the store's
            window_s += time.monotonic() - asked
            window_bytes += len(piece)
            received += len(piece)
            if window_s >= self._stall_s:
                if window_bytes < STALL_BYTES_PER_S * window_s:
                    raise _lost("stalled", uri)
                window_bytes, window_s = 0, 0.0
            yield piece
        if received < size:
            raise _lost(f"the answer broke off after {received} of {size} bytes", uri)

    def _translate(self, error: Exception, request: str, uri: str) -> S3RunnerError:
        """Return our error. Raises KeyboardInterrupt where that is what obstore's is about."""
        text = str(error)
        if _INTERRUPTION in text:
            raise KeyboardInterrupt from error
        if isinstance(error, InvalidPathError):
            return UnsupportedError(
                f"a key that the client cannot name: {first_line(text)}", source=uri
            )
        if isinstance(error, UnauthenticatedError) and "credential provider" in text:
            reason = f"no credentials: {first_line(text).rpartition('provider: ')[2]}"
            return store_error(StoreAccessError, reason, request=request, uri=uri)
        host = urlsplit(endpoint_of(self._config)[0]).hostname or ""
        region = self._config.region or DEFAULT_REGION
        return translate(text, request=request, uri=uri, host=host, region=region)


class _Body:
    """An upload's bytes on their way into obstore, as `chunks`.

    It counts them, and keeps the exception that their source raised, an interruption included, so
    that this one is never taken for an answer of the store.
    """

    def __init__(self, chunks: Chunks, size: int) -> None:
        self.error: BaseException | None = None
        self.chunks = self._kept(chunks, size)
        next(self.chunks)

    def _kept(self, chunks: Chunks, missing: int) -> Chunks:
        try:
            # Python raises what a signal left behind where a generator goes on, so that from here
            # on it is raised inside of the try; in a function it would be before the first line
            yield b""
            for chunk in chunks:
                missing -= len(chunk)
                _refuse(missing, refused=missing < 0)
                yield chunk
                del chunk  # or the next part would be read while this one is still held
            _refuse(missing, refused=missing != 0)
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise


def _refuse(missing: int, *, refused: bool) -> None:
    if refused:
        raise StoreError(f"the body differs from its size by {-missing} bytes")


def endpoint_of(config: StoreConfig) -> tuple[str, bool]:
    """Return the URL that requests go to, and whether the bucket's name is part of its host.

    Path style is the default where an endpoint is given; at AWS only for a bucket whose dots the
    certificate does not cover.
    """
    path_style = config.path_style
    if path_style is None:
        path_style = config.endpoint is not None or "." in config.bucket
    region = config.region or DEFAULT_REGION
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    url = urlsplit((config.endpoint or f"https://s3.{region}.{suffix}").rstrip("/"))
    if not path_style:
        url = url._replace(netloc=f"{config.bucket}.{url.netloc}")
    return urlunsplit(url), not path_style


def _stored(meta: ObjectMeta) -> StoredObject:
    return StoredObject(meta["path"], meta["size"], meta["e_tag"] or "", meta["last_modified"])


def _lost(meaning: str, uri: str) -> S3RunnerError:
    return store_error(StoreUnavailableError, meaning, request="GetObject", uri=uri)

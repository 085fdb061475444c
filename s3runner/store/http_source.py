"""Files on web servers: the standard library's client, loaded only for a job that names one.

A part that breaks off goes on where it was; a server without ranges is read in one stream, from
its beginning again after a failure.
"""

from __future__ import annotations

import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError

from s3runner import __version__
from s3runner.errors import IntegrityError, S3RunnerError, StoreUnavailableError, UnsupportedError
from s3runner.model import StoredAt
from s3runner.store import stopping
from s3runner.store.http_answers import (
    check_encoding,
    content_range,
    explain_silence,
    explain_status,
    found_in,
)
from s3runner.store.meter import Meter
from s3runner.store.origin import Found, check_unchanged
from s3runner.store.protocol import Chunks
from s3runner.store.retrying import Failures, Retry
from s3runner.store.urls import is_web, sent_form, shown

T = TypeVar("T")
Answer = Any
"""An `HTTPResponse`, or the `HTTPError` that urllib makes of one: the same to read."""

STALL_S = 30.0
STALL_BYTES_PER_S = 1000
_PIECE = 256 * 1024
_HEAD_IS_REFUSED = {403, 405, 501}
_CONDITION_FAILED = {412, 416}


class Web:
    """The web, as far as inputs need it. Proxies come from the environment, as urllib has it.

    Args:
        retry: how long to go on trying.
        meter: gets the requests, each try one.
        ca_pem: CAs to trust in addition to the system's.
        stall_s: how long a server may keep silent, and the window in which its rate is measured.
    """

    def __init__(
        self, retry: Retry, meter: Meter, ca_pem: str | None = None, stall_s: float = STALL_S
    ) -> None:
        self.retry = retry
        self.stall_s = stall_s
        self._meter = meter
        self._ca_pem = ca_pem

    def look(self, url: str) -> Found:
        """Return what the server says of a file now.

        Raises UnsupportedError when it does not say how large it is: the manifest, the disk's
        check and the end of a stream that breaks off all go by the size.
        """
        try:
            return self.retry.call(lambda: self._look(url))
        except S3RunnerError as error:
            error.source = shown(url)
            raise

    def open(self, at: StoredAt, size: int) -> WebFile:
        """Return a file of a manifest; asks nothing yet."""
        return WebFile(self, at, size)

    def _look(self, url: str) -> Found:
        told = Found()
        with self.send(url, "HEAD") as answer:
            if answer.status not in _HEAD_IS_REFUSED:
                told = _found(answer, "HEAD")
                # frameworks answer HEAD with a length of 0 for whatever they would send
                if told.size:
                    return told
        with self.send(url, "GET", {"Range": "bytes=0-0"}) as answer:
            is_beyond = answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            if is_beyond and content_range(answer.headers)[1] == 0:
                # this answer is about no file, and has no ETag
                return replace(told, size=0)
            found = _found(answer, "GET")
        if found.size is None:
            raise UnsupportedError(
                "the server does not say how large the file is",
                hint="download it and name the local file",
            )
        return found

    def send(self, url: str, method: str, headers: dict[str, str] | None = None) -> Answer:
        """Return the server's answer, whatever its status; to be closed."""
        stopping.check()
        # http.client asks for no encoding by itself
        fields = {"User-Agent": f"s3runner/{__version__}"}
        request = urllib.request.Request(  # noqa: S310 # the opener knows the web's schemes only
            sent_form(url), headers={**fields, **(headers or {})}, method=method
        )
        self._meter.add(requests=1)
        try:
            return self._opener.open(request, timeout=self.stall_s)
        except HTTPError as answer:
            return answer
        except URLError as error:
            reason = error.reason
            cause = reason if isinstance(reason, Exception) else OSError(reason)
            raise explain_silence(cause, method, self.stall_s) from error
        except (OSError, HTTPException, UnicodeError) as error:
            raise explain_silence(error, method, self.stall_s) from error

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context()
        if self._ca_pem:
            context.load_verify_locations(cadata=self._ca_pem)
        opener = urllib.request.OpenerDirector()
        # not build_opener, which would read file:, data: and ftp: too
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=context),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(),
        ):
            opener.add_handler(handler)
        return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect with the method that was asked for, to the web only."""

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,  # noqa: ARG002 # urllib's own signature
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: Any,  # noqa: ARG002
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the next request; None leaves the answer as it is.

        urllib's own makes a GET of a HEAD before Python 3.13, which would bring the whole file.
        """
        if not is_web(newurl):
            return None
        return urllib.request.Request(  # noqa: S310 # one of the web's schemes
            sent_form(newurl), headers=dict(req.headers), method=req.get_method()
        )


class _NoRangesError(StoreUnavailableError):
    """The whole file came where a part of it was asked for: only from its beginning again."""


class WebFile:
    """One file of a web server, as it was at submission."""

    def __init__(self, web: Web, at: StoredAt, size: int) -> None:
        self._web = web
        self._at = at
        self._url = at.url or ""
        self._size = size
        self._conditional = True
        self._lock = threading.Lock()
        self._ranges: bool | S3RunnerError | None = None

    @property
    def in_one_go(self) -> bool:
        """Ask, once, whether the server knows ranges."""
        with self._lock:
            if self._ranges is None:
                try:
                    self._ranges = self._web.retry.call(self._knows_ranges)
                except S3RunnerError as error:
                    error.source = shown(self._url)
                    # or each thread that waits here would spend a retry budget of its own
                    self._ranges = error
            if isinstance(self._ranges, S3RunnerError):
                raise self._ranges
            return not self._ranges

    def get(self, consume: Callable[[Chunks], T], *, start: int, length: int) -> T:
        """Hand a range to `consume`; only a server without ranges makes it begin anew."""
        failures = _Progress(self._web.retry)
        try:
            if length == 0:
                check_unchanged(self._web.look(self._url), self._at, self._size, "")
            while True:
                try:
                    return consume(stopping.watched(self._pieces(start, length, failures)))
                except (_NoRangesError, IntegrityError) as error:  # noqa: PERF203 # the retry
                    failures.wait_or_raise(error)
        except S3RunnerError as error:
            error.source = shown(self._url)
            raise

    def _knows_ranges(self) -> bool:
        with self._answer(0, 1) as answer:
            return bool(answer.status == HTTPStatus.PARTIAL_CONTENT)

    def _pieces(self, start: int, length: int, failures: _Progress) -> Chunks:
        """Yield the range's bytes, asking again from where an answer broke off."""
        position, end = start, start + length
        while position < end:
            try:
                with self._answer(position, end - position) as answer:
                    for piece in self._received(answer, end - position):
                        position += len(piece)
                        failures.came_to(position)
                        yield piece
            except _NoRangesError:  # noqa: PERF203 # the loop is the retry
                raise
            except S3RunnerError as error:
                failures.wait_or_raise(error)

    def _answer(self, start: int, length: int) -> Answer:
        """Ask for a range; return an answer that is about the file that was submitted."""
        headers = {"Range": f"bytes={start}-{start + length - 1}", **self._condition()}
        answer = self._web.send(self._url, "GET", headers)
        try:
            self._check(answer, start)
        except BaseException:
            answer.close()
            raise
        return answer

    def _condition(self) -> dict[str, str]:
        etag, modified = self._at.etag, self._at.modified
        if not self._conditional:
            return {}
        # a weak ETag never matches: RFC 9110, 13.1.1
        if etag is not None:
            return {} if etag.startswith("W/") else {"If-Match": etag}
        return {"If-Unmodified-Since": modified} if modified is not None else {}

    def _check(self, answer: Answer, start: int) -> None:
        status, headers = answer.status, answer.headers
        if status in _CONDITION_FAILED:
            check_unchanged(self._web.look(self._url), self._at, self._size, "")
            # some servers refuse their own ETags; each answer is compared anyway
            self._conditional = False
            reason = f"the server refuses a condition that holds (HTTP {status})"
            raise StoreUnavailableError(reason)
        check_unchanged(_found(answer, "GET"), self._at, self._size, "")
        if status == HTTPStatus.PARTIAL_CONTENT and content_range(headers)[0] != start:
            raise StoreUnavailableError("another range came than was asked for")
        if status == HTTPStatus.OK and start > 0:
            raise _NoRangesError("the server gives no ranges, and its answer broke off")

    def _received(self, answer: Answer, wanted: int) -> Chunks:
        """Yield `wanted` bytes of an answer, and raise if they end early or trickle."""
        received, pace = 0, Pace(self._web.stall_s)
        while received < wanted:
            with pace:
                try:
                    piece = answer.read1(min(_PIECE, wanted - received))
                except (OSError, HTTPException, ValueError) as error:
                    raise explain_silence(error, "GET", self._web.stall_s) from error
            if not piece:
                raise StoreUnavailableError(
                    f"the answer broke off after {received} of {wanted} bytes"
                )
            pace.check(len(piece))
            received += len(piece)
            yield piece


class _Progress(Failures):
    """Failures that are forgotten when there are more bytes than ever before.

    Not with every byte: a stream that always breaks off at one place would never be given up.
    """

    def __init__(self, retry: Retry) -> None:
        super().__init__(retry)
        self._furthest = 0

    def came_to(self, position: int) -> None:
        """Take note of how far the bytes have come."""
        if position > self._furthest:
            self._furthest = position
            self.forget()


class Pace:
    """How fast an answer comes; `with` it the server's time is taken, and not its reader's."""

    def __init__(self, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._waited_s = 0.0
        self._bytes = 0
        self._asked = 0.0

    def __enter__(self) -> None:
        self._asked = self._clock()

    def __exit__(self, *exc_info: object) -> None:
        self._waited_s += self._clock() - self._asked

    def check(self, size: int) -> None:
        """Count what came. Raises StoreUnavailableError for less than a trickle."""
        self._bytes += size
        if self._waited_s >= self._window_s:
            if self._bytes < STALL_BYTES_PER_S * self._waited_s:
                raise StoreUnavailableError("the answer stalled")
            self._bytes, self._waited_s = 0, 0.0


def _found(answer: Answer, method: str) -> Found:
    """Return what a good answer says of the file. Raises what any other one means."""
    if answer.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise explain_status(answer.status, answer.headers, method)
    check_encoding(answer.headers)
    return found_in(answer.status, answer.headers, is_range=method == "GET")

"""What a web server's answer means: pure, as `s3_errors` is for a store's.

Headers and status codes are RFC 9110's (https://www.rfc-editor.org/rfc/rfc9110).
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException, InvalidURL

from s3runner.errors import (
    ObjectNotFoundError,
    S3RunnerError,
    SettingsError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
    UnsupportedError,
)
from s3runner.store.origin import Found

Headers = Mapping[str, str]

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_SERVER_ERRORS = 500
_CA_HINT = "add the PEM of the authority that signed it to store.ca_bundle"
_DENIED = {401, 403, 407}
_GONE = {404, 410}
_MOVED = {300, 301, 302, 303, 307, 308}
_LATER = {408, 425, 429}


def found_in(status: int, headers: Headers, *, is_range: bool) -> Found:
    """Return what the headers say of the file; `size` is None where they leave it open.

    `is_range` tells that a part of it was asked for.
    """
    _, total = content_range(headers)
    size = total
    if status == HTTPStatus.OK or not is_range:
        size = _number(headers.get("Content-Length"))
    modified = headers.get("Last-Modified")
    moment = _time_of(modified)
    return Found(
        size=size,
        etag=headers.get("ETag"),
        modified=modified,
        mtime_ns=None if moment is None else int(moment.timestamp()) * 10**9,
    )


def content_range(headers: Headers) -> tuple[int | None, int | None]:
    """Return the first byte and the whole size that Content-Range tells."""
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    return (None, None) if match is None else (_number(match[1]), _number(match[2]))


def check_encoding(headers: Headers) -> None:
    """Refuse bytes that are not the file's own."""
    encoding = headers.get("Content-Encoding", "identity")
    if encoding.lower() not in ("identity", ""):
        raise UnsupportedError(
            f"the server sends it encoded ({encoding}) although asked not to",
            hint="download it and name the local file",
        )


def explain_status(status: int, headers: Headers, method: str) -> S3RunnerError:
    """Return the error for an answer that was no success."""
    said = f"HTTP {status}, {method}"
    if status in _GONE:
        return ObjectNotFoundError(f"there is no such file ({said})")
    if status in _DENIED:
        hint = "a presigned URL may have expired; other credentials are not sent"
        return StoreAccessError(f"access denied ({said})", hint=hint)
    if status in _MOVED:
        reason = f"the server redirects too often, or to what is no web address ({said})"
        return UnsupportedError(reason, hint="name the address that it ends at")
    if status in _LATER or (status >= _SERVER_ERRORS and status != HTTPStatus.NOT_IMPLEMENTED):
        error = StoreUnavailableError(f"the server said {said}")
        error.wait_s = _retry_after(headers)
        return error
    return StoreError(f"the server said {said}")


def explain_silence(error: Exception, method: str, stall_s: float) -> S3RunnerError:
    """Return the error for a request that got no answer, or a broken one."""
    if isinstance(error, InvalidURL | UnicodeError):
        return SettingsError(f"not a URL: {error}")
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"the server's certificate is not trusted: {error.verify_message} ({method})"
        return StoreAccessError(reason, hint=_CA_HINT)
    if isinstance(error, TimeoutError):
        reason = f"no answer for {stall_s:.0f} s"
    elif isinstance(error, socket.gaierror):
        reason = "unknown host"
    elif isinstance(error, ConnectionRefusedError):
        reason = "no connection"
    else:
        kind = "a broken answer" if isinstance(error, HTTPException) else "the connection broke"
        reason = f"{kind}: {str(error) or type(error).__name__}"
    return StoreUnavailableError(f"{reason} ({method})")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _time_of(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _retry_after(headers: Headers) -> float:
    """Return the seconds for which the server asks to be left alone; 0 where it does not."""
    asked = headers.get("Retry-After")
    seconds = _number(asked)
    if seconds is not None:
        return seconds
    until, now = _time_of(asked), _time_of(headers.get("Date"))
    # by the server's own clock, for ours may differ
    return 0.0 if until is None or now is None else max(0.0, (until - now).total_seconds())

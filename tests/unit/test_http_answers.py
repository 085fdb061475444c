"""What a web server's answer means, row by row."""

from __future__ import annotations

import ssl
from http.client import IncompleteRead, InvalidURL

import pytest

from s3runner.errors import StoreUnavailableError
from s3runner.store.http_answers import content_range, explain_silence, explain_status, found_in


@pytest.mark.parametrize(
    ("status", "code", "temporary"),
    [
        (400, 30, False),
        (401, 23, False),
        (403, 23, False),
        (404, 21, False),
        (407, 23, False),
        (408, 30, True),
        (410, 21, False),
        (429, 30, True),
        (302, 25, False),
        (500, 30, True),
        (501, 30, False),
        (503, 30, True),
    ],
)
def test_a_status_has_a_code_and_may_be_worth_another_try(
    status: int, code: int, *, temporary: bool
) -> None:
    error = explain_status(status, {}, "GET")

    assert (error.code, error.temporary) == (code, temporary)
    assert f"HTTP {status}, GET" in error.reason


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": "-5"}, 0),
        ({"Retry-After": "soon"}, 0),
        (
            {
                "Date": "Tue, 03 Nov 2020 10:00:00 GMT",
                "Retry-After": "Tue, 03 Nov 2020 10:01:30 GMT",
            },
            90,
        ),
        ({"Retry-After": "Tue, 03 Nov 2020 10:01:30 GMT"}, 0),
    ],
)
def test_a_server_may_say_when_to_come_back(headers: dict[str, str], seconds: float) -> None:
    error = explain_status(503, headers, "GET")

    assert isinstance(error, StoreUnavailableError)
    assert error.wait_s == seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes 5-9/100", (5, 100)),
        ("bytes 5-9/*", (5, None)),
        ("bytes */100", (None, 100)),
        ("lines 5-9/100", (None, None)),
        ("", (None, None)),
    ],
)
def test_content_range_tells_where_and_of_how_much(
    text: str, expected: tuple[int | None, int | None]
) -> None:
    assert content_range({"Content-Range": text}) == expected


def test_the_length_of_a_part_is_not_the_files() -> None:
    part = {"Content-Length": "1", "Content-Range": "bytes 0-0/77"}

    assert found_in(206, part, is_range=True).size == 77
    assert found_in(206, {"Content-Length": "1"}, is_range=True).size is None
    assert found_in(200, {"Content-Length": "9"}, is_range=True).size == 9
    assert found_in(200, {"Content-Length": "x"}, is_range=False).size is None


@pytest.mark.parametrize("text", ["", "yesterday", "Tue, 99 Nov 2020 10:00:00 GMT"])
def test_a_time_that_is_none_is_unknown(text: str) -> None:
    found = found_in(200, {"Last-Modified": text}, is_range=False)

    assert found.mtime_ns is None
    assert found.modified == text, "it is compared word for word"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (TimeoutError(), 30, "no answer for 30 s (GET)"),
        (ConnectionRefusedError(), 30, "no connection (GET)"),
        (ConnectionResetError(104, "reset"), 30, "the connection broke"),
        (IncompleteRead(b"", 5), 30, "a broken answer"),
        (InvalidURL("x"), 20, "not a URL"),
        (ssl.SSLCertVerificationError(), 23, "certificate"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_silence_has_a_code(error: Exception, code: int, words: str) -> None:
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_message = "self-signed certificate"
    explained = explain_silence(error, "GET", 30)

    assert explained.code == code
    assert words in explained.reason

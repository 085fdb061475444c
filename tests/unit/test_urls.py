"""URLs as inputs: who reads them, which are refused, and what of them is shown."""

from __future__ import annotations

import pytest

from s3runner.errors import SettingsError
from s3runner.store.urls import check_url, is_s3, is_url, is_web, sent_form, shown, without_prefix

REFUSED = {
    "file:///data/x": "file:// names a file of this machine",
    "local://x": "local:// names a file of this machine",
    "memory://x": "no pod can read",
    "https://user:pw@host/x": "a URL with a password",
    "https://token@host/x": "a URL with a password",
    "ftp://user:pw@host/x": "a URL with a password",
    "fs+https://user:pw@host/x": "a URL with a password",
    "https:///x": "without a host",
    "http://host:99999/x": "not a URL",
    "https://host/a\nb": "control characters",
    "gs://b/x\x7f": "control characters",
    "zip://a::gs://b/x.zip": "chained URLs",
}
TAKEN = [
    "https://host/x?y=1&z=a%2Fb",
    "http://[::1]:8080/x",
    "https://host/a::b",
    "s3://bucket/a::b",
    "gs://bucket/x",
    "fs+s3://bucket/x",
    "sftp://user@host/x",
    "github://org:repo@main/file",
    "hf://datasets/org/name@main/x",
    "abfs://container@account.example/x",
]


@pytest.mark.parametrize("url", REFUSED)
def test_what_no_input_can_be_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_url(url)

    assert REFUSED[url] in caught.value.reason
    assert caught.value.code == 20
    for secret in ("pw", "token@"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("url", TAKEN)
def test_all_other_urls_are_left_to_who_reads_them(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/x", "https://h/x"),
        ("https://h/x?X-Amz-Signature=s", "https://h/x?…"),
        ("https://h/x?", "https://h/x?…"),
        ("fs+s3://b/k?versionId=1", "fs+s3://b/k?…"),
        ("ftp://u:pw@h/x", "ftp://…@h/x"),
        ("https://a:b@c:d@h/x?q", "https://…@h/x?…"),
        ("https://token@h/x", "https://…@h/x"),
        ("sftp://user@h/x", "sftp://user@h/x"),
        ("github://org:repo@sha/x", "github://org:repo@sha/x"),
    ],
)
def test_queries_and_passwords_are_not_shown(url: str, expected: str) -> None:
    assert shown(url) == expected


def test_the_scheme_says_who_reads_it() -> None:
    assert [is_url(text) for text in ("a/b", "s3://b", "fs+s3://b", "1x://b")] == [
        False,
        True,
        True,
        False,
    ]
    assert is_s3("s3://b/k")
    assert not is_s3("fs+s3://b/k")
    assert is_web("HTTPS://h/x")
    assert not is_web("fs+https://h/x")
    assert without_prefix("fs+s3://b/k") == "s3://b/k"
    assert without_prefix("gs://b/k") == "gs://b/k"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h", "https://h/"),
        ("https://h/a b?c d#e", "https://h/a%20b?c%20d"),
        ("https://h/a%20b?x=%2F&y=1", "https://h/a%20b?x=%2F&y=1"),
        ("https://h/ü?x=\r\nHost: evil", "https://h/%C3%BC?x=Host:%20evil"),
        ("https://bücher.example:8443/x", "https://xn--bcher-kva.example:8443/x"),
    ],
)
def test_a_web_url_is_escaped_as_it_goes_over_the_wire(url: str, expected: str) -> None:
    assert sent_form(url) == expected


def test_a_host_that_no_name_can_have_is_refused() -> None:
    with pytest.raises(SettingsError, match="not a host's name"):
        sent_form(f"https://{'ü' * 70}.example/x")

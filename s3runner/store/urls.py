"""What a URL may be as an input, who reads it, and how it is shown: pure.

It stands apart because the job file, the head and the pod have to agree on it, and none of them
may load a client for that.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit, urlunsplit

from s3runner.errors import SettingsError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WEB = ("http", "https")
OURS = ("s3", *_WEB)
"""The schemes that need no library."""

_BY_FSSPEC = "fs+"
_OF_THIS_MACHINE = ("file", "local", "memory")
_PASSWORD_LIKE = ("github", "git")
"""`github://org:repo@sha/path` looks like a user with a password, and is none."""

_MARKS = "!$%&'()*+,-./:;=?@_~"
"""What a path or query may hold as it is; `%` so that what is escaped stays so."""


def is_url(text: str) -> bool:
    """Tell a URL from a path."""
    return _SCHEME.match(text) is not None


def scheme_of(url: str) -> str:
    """Return what stands before `://`, in lower case."""
    return url.partition("://")[0].lower()


def is_s3(url: str) -> bool:
    """Tell whether an object store of ours reads it."""
    return scheme_of(url) == "s3"


def is_web(url: str) -> bool:
    """Tell whether it is `http://` or `https://`."""
    return scheme_of(url) in _WEB


def without_prefix(url: str) -> str:
    """Return the URL as fsspec knows it: `fs+s3://…` is its `s3://…`."""
    return url[len(_BY_FSSPEC) :] if scheme_of(url).startswith(_BY_FSSPEC) else url


def shown(url: str) -> str:
    """Return the URL without what may be a secret: its query, and a password."""
    cut, question, _ = url.partition("?")
    if _has_password(url):
        cut = re.sub(r"^([^/]*://)[^/]*@", r"\1…@", cut)
    return f"{cut}?…" if question else cut


def check_url(url: str) -> None:
    """Refuse what no input can be. Raises SettingsError, which shows no secret."""
    problem, hint = _problem(url)
    if problem:
        raise SettingsError(problem, source=shown(url), hint=hint)


def _problem(url: str) -> tuple[str, str]:
    """Say what is wrong, and what to do about it."""
    scheme = scheme_of(url)
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in url):  # noqa: PLR2004 # ASCII
        return "a URL with control characters", ""
    if scheme in _OF_THIS_MACHINE:
        return _own(scheme)
    if _has_password(url):
        return (
            "a URL with a password: it would be stored with the job",
            "let the server take a presigned URL, or give the pods credentials of their own",
        )
    if is_web(url):
        return _web_problem(url)
    if not is_s3(url) and "::" in url:
        return "chained URLs (`::`) are not supported", "name one file or directory"
    return "", ""


def _own(scheme: str) -> tuple[str, str]:
    if scheme == "memory":
        return "memory:// is this process's own memory, which no pod can read", ""
    return (
        f"{scheme}:// names a file of this machine, which no pod can read",
        "write the path alone, and it is staged in",
    )


def _web_problem(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        return f"not a URL: {error}", ""
    return ("", "") if named else ("a URL without a host", "")


def _has_password(url: str) -> bool:
    """Tell whether somebody's password stands before the host."""
    if scheme_of(without_prefix(url)) in _PASSWORD_LIKE:
        return False
    user, at, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
    # a token alone, in the user's place, is a secret too
    return bool(at) and (":" in user or is_web(url))


def sent_form(url: str) -> str:
    """Return a web URL as it goes over the wire: escaped, without its fragment.

    Raises SettingsError for a host that no name can have.
    """
    parts = urlsplit(url)
    try:
        host = parts.netloc.encode("ascii" if parts.netloc.isascii() else "idna").decode()
    except UnicodeError as error:
        raise SettingsError(f"not a host's name: {error}", source=shown(url)) from error
    path, query = (quote(text, safe=_MARKS) for text in (parts.path or "/", parts.query))
    return urlunsplit((parts.scheme, host, path, query, ""))

"""What obstore's error texts mean, as one of our errors: pure.

obstore has few classes of its own, so that the text is all there is to go by. It ends in a page
named `Debug source`, which holds the only trace of what went wrong below HTTP.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from s3runner.errors import (
    S3RunnerError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
)
from s3runner.store.s3_errors import explain_answer, store_error

_CA_HINT = "set store.ca_bundle to the PEM file of the authority that signed it"
_SILENCES: tuple[tuple[str, type[S3RunnerError], str, str], ...] = (
    (
        "CaUsedAsEndEntity",
        StoreAccessError,
        "the store's certificate is marked as an authority's",
        "make one with basicConstraints=CA:FALSE and put the authority's into store.ca_bundle",
    ),
    ("UnknownIssuer", StoreAccessError, "the store's certificate is not trusted", _CA_HINT),
    (
        "NotValidForName",
        StoreAccessError,
        "the store's certificate is for another host name",
        "use a name in store.endpoint that the certificate lists",
    ),
    (
        "InvalidCertificate",
        StoreAccessError,
        "the store's certificate is not valid",
        "check its dates and this machine's clock",
    ),
    (
        "InvalidContentType",
        StoreError,
        "the store does not speak TLS there",
        "use http:// in store.endpoint together with store.insecure_http: true",
    ),
    ("BadScheme", StoreError, "plain http is not allowed", "set store.insecure_http: true"),
    ("dns error", StoreUnavailableError, "unknown host", ""),
    ("kind: Connect", StoreUnavailableError, "no connection", ""),
)


def translate(text: str, *, request: str, uri: str, host: str, region: str) -> S3RunnerError:
    """Return our error for the text of one of obstore's.

    Args:
        text: the whole of it.
        request: S3's name of the request, `PutObject`.
        uri: what it was about.
        host: the store's host name; an answer from another one concerns credentials.
        region: the one that the request was signed for.
    """
    asked = re.search(r"Error performing \w+ (\S+) in ", text)
    if "token file" in text or (asked and urlsplit(asked[1]).hostname != host.lower()):
        return _no_credentials(text, request, uri)
    status = status_of(text)
    if status:
        code = re.search(r"<Code>(\w+)</Code>", text)
        named = code[1] if code else ""
        return explain_answer(status, named, request=request, uri=uri, region=region)
    if "redirect without LOCATION" in text:
        return explain_answer(301, "", request=request, uri=uri, region=region)
    return _explain_silence(text, request, uri)


def status_of(text: str) -> int:
    """Return the HTTP status in the text; 0 where there was no answer."""
    match = re.search(r"status code: (\d{3})", text)
    return int(match[1]) if match else 0


def first_line(text: str) -> str:
    """Return the message without its `Debug source`."""
    return text.split("\n", 1)[0]


def _no_credentials(text: str, request: str, uri: str) -> S3RunnerError:
    """Explain what went wrong on the way to keys: another host than the store was asked."""
    status = status_of(text)
    # a token is exchanged by a request that obstore does not show; its network may be late in a pod
    is_away = not status and "performing POST REDACTED" in text
    if status >= 500 or is_away:  # noqa: PLR2004 # a server's own trouble
        meaning = "no answer from the service that gives credentials"
        return store_error(StoreUnavailableError, meaning, request=request, uri=uri)
    hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the pod's credentials"
    return store_error(StoreAccessError, "no credentials", request=request, uri=uri, hint=hint)


def _explain_silence(text: str, request: str, uri: str) -> S3RunnerError:
    """Explain a request that got no HTTP answer; the first mark in the text decides."""
    for mark, kind, meaning, hint in _SILENCES:
        if mark in text:
            return store_error(kind, meaning, request=request, uri=uri, hint=hint)
    return store_error(StoreUnavailableError, "no answer", request=request, uri=uri)

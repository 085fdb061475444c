"""What an S3 answer means, as one of our errors: pure, and the same for both S3 clients.

Servers differ in status for the same trouble, so the error code in the body goes first.
Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

from collections.abc import Callable

from s3runner.errors import (
    IntegrityError,
    ObjectChangedError,
    ObjectNotFoundError,
    S3RunnerError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
    UnsupportedError,
)

_CREDENTIALS = "check the access key and secret that this machine or pod uses for the store"
_EXPIRED = "get new credentials: these have an end, and it has passed"
_POLICY = "allow {request} on this bucket and prefix in the user's or the bucket's policy"
_CLOCK = "set this machine's clock (NTP): S3 refuses requests that are 15 minutes off"
_REGION = "set store.region to the bucket's region"
_BUCKET = "create the bucket, or correct store.url"

_DENIED = {
    "AccessDenied": ("access denied", _POLICY),
    "AllAccessDisabled": ("access denied: the bucket is disabled", _POLICY),
    "InvalidAccessKeyId": ("access denied: unknown access key", _CREDENTIALS),
    "SignatureDoesNotMatch": ("access denied: wrong secret key", _CREDENTIALS),
    "ExpiredToken": ("access denied: the session token has expired", _EXPIRED),
    "TokenRefreshRequired": ("access denied: the session token has expired", _EXPIRED),
    "InvalidToken": ("access denied: the session token is not valid", _CREDENTIALS),
    "InvalidClientTokenId": ("access denied: unknown access key", _CREDENTIALS),
    "RequestTimeTooSkewed": ("access denied: the clocks differ", _CLOCK),
    "RequestExpired": ("access denied: the clocks differ", _CLOCK),
    "QuotaExceeded": ("access denied: the store's quota is used up", "ask for a larger quota"),
    "NoSuchBucket": ("no such bucket", _BUCKET),
    "InvalidBucketName": ("no such bucket: S3 allows no such name", _BUCKET),
    "PermanentRedirect": ("the bucket lies in another region than {region}", _REGION),
    "TemporaryRedirect": ("the bucket lies in another region than {region}", _REGION),
    "AuthorizationHeaderMalformed": ("the store refuses the region {region}", _REGION),
    "IllegalLocationConstraintException": ("the store refuses the region {region}", _REGION),
}
_LATER = frozenset({
    "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded",
    "BandwidthLimitExceeded", "InternalError", "ServiceUnavailable", "Busy", "RequestTimeout",
    "IncompleteBody", "OperationAborted", "ConditionalRequestConflict", "NoSuchUpload",
    "InvalidPart",
})  # fmt: skip
_DAMAGED = frozenset({"BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest", "InvalidRange"})
_REFUSED = {
    "KeyTooLongError": "the key is too long for the store",
    "EntityTooLarge": "the object is too large for the store",
    "InvalidObjectState": "the object is archived: restore it first",
}

_BY_STATUS: dict[int, Callable[..., S3RunnerError]] = {
    404: ObjectNotFoundError,
    412: ObjectChangedError,
}
_MEANINGS = {404: "no such object", 412: "the object changed"}
_READS = frozenset({"GetObject", "HeadObject", "ListObjects"})


def explain_answer(
    status: int, code: str, *, request: str, uri: str, region: str = "us-east-1"
) -> S3RunnerError:
    """Return the error for an answer that was no success.

    Args:
        status: the HTTP status; 0 where only the code is known.
        code: S3's error code, empty where the answer had no body (HEAD).
        request: S3's name of the request, `PutObject`.
        uri: what it was about.
        region: the one that the request was signed for.
    """
    if code in _DENIED:
        meaning, hint = (text.format(request=request, region=region) for text in _DENIED[code])
        return store_error(StoreAccessError, meaning, request=request, uri=uri, hint=hint)
    if code in _DAMAGED or status == 416:  # noqa: PLR2004 # Range Not Satisfiable
        meaning = (
            "the object is shorter than it should be"
            if code == "InvalidRange" or status == 416  # noqa: PLR2004 # as above
            else f"damaged on the way to the store ({code})"
        )
        return store_error(IntegrityError, meaning, request=request, uri=uri)
    if code in _REFUSED:
        return store_error(UnsupportedError, _REFUSED[code], request=request, uri=uri)
    if code in _LATER or _is_temporary(status):
        meaning = f"the store said {_named(status, code)}"
        return store_error(StoreUnavailableError, meaning, request=request, uri=uri)
    return _explain_status(status, code, request=request, uri=uri, region=region)


def store_error(
    kind: Callable[..., S3RunnerError], meaning: str, *, request: str, uri: str, hint: str = ""
) -> S3RunnerError:
    """Build `meaning (request)`, the URI as source of a read and as target of anything else."""
    side = "source" if request in _READS else "target"
    return kind(f"{meaning} ({request})", hint=hint, **{side: uri})


def _is_temporary(status: int) -> bool:
    """501 is an answer for good; 409 comes from another request in the way."""
    return status in (408, 409, 425, 429) or (status >= 500 and status != 501)  # noqa: PLR2004


def _explain_status(
    status: int, code: str, *, request: str, uri: str, region: str
) -> S3RunnerError:
    if status in (301, 302, 307, 308):
        return explain_answer(0, "PermanentRedirect", request=request, uri=uri, region=region)
    if status in (401, 403):
        hint = "check credentials, policy and clock (HEAD is answered without a reason)"
        return store_error(
            StoreAccessError, "access denied", request=request, uri=uri, hint="" if code else hint
        )
    kind = _BY_STATUS.get(status, StoreError)
    meaning = _MEANINGS.get(status, f"the store said {_named(status, code)}")
    return store_error(kind, meaning, request=request, uri=uri)


def _named(status: int, code: str) -> str:
    return " ".join(part for part in (str(status or ""), code) if part)

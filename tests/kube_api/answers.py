"""The server's refusals: `Status` objects, worded as Kubernetes words them.

They stand apart because the levers, the checks and the routes all answer with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

KubernetesObject = dict[str, Any]

FORBIDDEN, NOT_FOUND, CONFLICT, GONE, INVALID = 403, 404, 409, 410, 422

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
_MESSAGES = {
    401: "Unauthorized",
    429: "Too many requests, please try again later.",
    500: "Internal error occurred: etcdserver: leader changed",
    503: "the server is currently unable to handle the request",
    504: "Timeout: request did not complete within requested timeout - context deadline exceeded",
}


class RefusedError(Exception):
    """A request that ends with a Status of failure instead of an object."""

    def __init__(
        self,
        code: int,
        message: str = "",
        *,
        reason: str = "",
        details: KubernetesObject | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s
        if retry_after_s is not None:
            details = {**(details or {}), "retryAfterSeconds": retry_after_s}
        self.status: KubernetesObject = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message or _MESSAGES.get(code, f"the server answers {code}"),
            "reason": reason or _REASONS.get(code, "Unknown"),
            **({"details": details} if details else {}),
            "code": code,
        }


def details_of(resource: str, group: str, name: str) -> KubernetesObject:
    """Return the details that name an object; empty parts are left out, as in Go."""
    details = {"name": name, "group": group, "kind": resource}
    return {key: value for key, value in details.items() if value}


def full_name(resource: str, group: str) -> str:
    """Return `jobs.batch`, `pods`."""
    return f"{resource}.{group}" if group else resource


def not_found(resource: str, group: str, name: str) -> RefusedError:
    """There is no such object."""
    message = f'{full_name(resource, group)} "{name}" not found'
    return RefusedError(NOT_FOUND, message, details=details_of(resource, group, name))


def already_exists(resource: str, group: str, name: str) -> RefusedError:
    """An object of this name is there."""
    message = f'{full_name(resource, group)} "{name}" already exists'
    details = details_of(resource, group, name)
    return RefusedError(CONFLICT, message, reason="AlreadyExists", details=details)


def conflict(resource: str, group: str, name: str, why: str) -> RefusedError:
    """The object is not the one that the request means."""
    message = (
        f'Operation cannot be fulfilled on {full_name(resource, group)} "{name}": '
        f"Precondition failed: {why}"
    )
    return RefusedError(CONFLICT, message, details=details_of(resource, group, name))


def expired(wanted: str, oldest: int) -> RefusedError:
    """A resourceVersion is too old to go on from."""
    return RefusedError(GONE, f"too old resource version: {wanted} ({oldest})")


def page_expired(resource_version: int) -> RefusedError:
    """A continue token is too old."""
    del resource_version
    return RefusedError(
        GONE,
        "The provided continue parameter is too old to display a consistent list result. You can "
        "start a new list without the continue parameter.",
    )


def invalid(kind: str, group: str, name: str, causes: Sequence[tuple[str, str]]) -> RefusedError:
    """An object breaks rules; each cause is a field and what is wrong with it."""
    told = [f"{field}: {message}" for field, message in causes]
    text = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    details = {
        **details_of(kind, group, name),
        "causes": [
            {
                "reason": f"FieldValue{message.split(':', 1)[0].removesuffix(' value').title()}",
                "message": message,
                "field": field,
            }
            for field, message in causes
        ],
    }
    full = f"{kind}.{group}" if group else kind
    return RefusedError(INVALID, f'{full} "{name}" is invalid: {text}', details=details)


def success(resource: str, group: str, name: str, uid: str) -> KubernetesObject:
    """Return the Status that answers a finished deletion."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {**details_of(resource, group, name), "uid": uid},
    }

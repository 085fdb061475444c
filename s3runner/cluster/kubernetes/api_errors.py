"""What an answer of the API that is no success means, as an error of ours.

The only home of status codes, reasons and the sentences that tell one refusal from another. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s3runner.cluster.kubernetes.calls import Call
from s3runner.errors import ClusterRefusedError, ClusterUnavailableError, S3RunnerError


class NotThereError(ClusterRefusedError):
    """The API says that there is no object of this name; nothing else is read as absence."""


class TakenError(ClusterRefusedError):
    """An object of this name is there already."""


class NotLoggedInError(ClusterRefusedError):
    """The API does not know who asks."""


class ExpiredError(ClusterUnavailableError):
    """The point in time to go on from is too long ago: list again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a call; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after_s(self) -> float:
        """For how long the server wants to be left alone; 0 if it does not say."""
        try:
            told = float(self.headers.get("retry-after", ""))
        except ValueError:
            told = float(_details(self.status_object).get("retryAfterSeconds") or 0)
        return max(0.0, told)

    @property
    def status_object(self) -> dict[str, Any]:
        """The `Status` that Kubernetes explains itself with; empty if the body is none."""
        return as_status(self.body)


def as_status(body: bytes) -> dict[str, Any]:
    """Return a body as a Status; empty if it is none: a proxy answered, or something else."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def error_of(call: Call, namespace: str, answer: Answer) -> S3RunnerError:
    """Return the error for an answer that is no success.

    | answer                                   | error                              |
    |------------------------------------------|------------------------------------|
    | 401, or 403 to nobody (system:anonymous) | NotLoggedInError (32)              |
    | 403, 400, 422 and any other 4xx          | ClusterRefusedError (32)           |
    | 404 that names the object asked for      | NotThereError                      |
    | 404 that names the namespace             | ClusterRefusedError (32)           |
    | 409 AlreadyExists                        | TakenError                         |
    | 409 otherwise (a quota was just changed) | ClusterUnavailableError, temporary |
    | 410                                      | ExpiredError, temporary            |
    | 429, 5xx                                 | ClusterUnavailableError, temporary |
    """
    status = answer.status_object
    sentence = str(status.get("message") or "").strip() or _gist(answer)
    error = _error(call, namespace, answer.status, status, sentence)
    place = f"namespace {namespace}"
    return error.during(
        f"{call.verb} {call.resource.plural}", target=f"{call.name} in {place}".strip()
    )


def _error(
    call: Call, namespace: str, code: int, status: dict[str, Any], sentence: str
) -> S3RunnerError:
    reason = status.get("reason")
    if code == 401 or "system:anonymous" in sentence:  # noqa: PLR2004 # an HTTP status, as below
        return NotLoggedInError(
            f"the cluster does not know who asks ({code}: {sentence})",
            hint="log in again; `kubectl auth whoami` shows what the cluster makes of the context",
        )
    if code == 404:  # noqa: PLR2004
        return _absence(call, namespace, status, sentence)
    if code == 409 and reason == "AlreadyExists":  # noqa: PLR2004
        return TakenError(sentence)
    if code == 410:  # noqa: PLR2004
        return ExpiredError(sentence)
    if code in (409, 429) or code >= 500:  # noqa: PLR2004
        return ClusterUnavailableError(f"the cluster's API answers {code}: {sentence}")
    return ClusterRefusedError(sentence, hint=_hint(call, namespace, code, sentence))


def _absence(
    call: Call, namespace: str, status: dict[str, Any], sentence: str
) -> ClusterRefusedError:
    details = _details(status)
    kind = details.get("kind")
    if kind == "namespaces":
        return ClusterRefusedError(
            sentence,
            hint=f"kubectl create namespace {namespace}, or set another `namespace`",
        )
    if status.get("reason") == "NotFound" and call.name and kind == call.resource.plural:
        return NotThereError(sentence)
    return ClusterRefusedError(
        f"the address answers 404, and not as a Kubernetes API does ({sentence})",
        hint="check the cluster's `server` in the kubeconfig",
    )


def _hint(call: Call, namespace: str, code: int, sentence: str) -> str:
    if "exceeded quota" in sentence:
        return f"kubectl describe quota --namespace {namespace}"
    if code == 403 and f" cannot {call.verb} resource " in sentence:  # noqa: PLR2004
        return f"add to a Role in namespace {namespace} that is bound to this user: {rule(call)}"
    if "admission webhook" in sentence or code == 403:  # noqa: PLR2004
        return "this is a rule of the cluster: its administrators know it"
    return "`s3runner plan` shows the Job object"


def rule(call: Call) -> str:
    """Return the line of a Role that allows a call, as YAML."""
    group, resource = call.resource.group, call.resource.plural
    return f'- {{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{call.verb}"]}}'


def _details(status: dict[str, Any]) -> dict[str, Any]:
    details = status.get("details")
    return details if isinstance(details, dict) else {}


def _gist(answer: Answer) -> str:
    """Return the beginning of a body that is no Status."""
    text = " ".join(answer.body[:200].decode("utf-8", "replace").split())
    return text or f"status {answer.status} without a word"

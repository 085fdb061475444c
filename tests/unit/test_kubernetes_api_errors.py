"""What the API's refusals mean, word by word as a server says them."""

from __future__ import annotations

import json

import pytest
from scripted_api import status_of

from s3runner.cluster.kubernetes.api_errors import (
    Answer,
    ExpiredError,
    NotLoggedInError,
    NotThereError,
    TakenError,
    error_of,
    rule,
)
from s3runner.cluster.kubernetes.calls import EVENTS, JOBS, PODS, Call
from s3runner.errors import ClusterRefusedError, ClusterUnavailableError, S3RunnerError

CREATE = Call("create", JOBS, "j-g1")
GET = Call("get", JOBS, "j-g1")

RBAC = (
    'jobs.batch is forbidden: User "system:serviceaccount:ns:head" cannot create resource "jobs" '
    'in API group "batch" in the namespace "ns"'
)
QUOTA = (
    'jobs.batch "j-g1" is forbidden: exceeded quota: jobs, requested: count/jobs.batch=1, '
    "used: count/jobs.batch=5, limited: count/jobs.batch=5"
)
WEBHOOK = 'admission webhook "policy.example.org" denied the request: no image from that registry'
INVALID = 'Job.batch "j-g1" is invalid: spec.backoffLimit: Invalid value: -1: must be positive'
STRICT = 'strict decoding error: unknown field "spec.paralelism"'
ENDING = (
    'jobs.batch "j-g1" is forbidden: unable to create new content in namespace ns because it is '
    "being terminated"
)
ANONYMOUS = (
    'jobs.batch is forbidden: User "system:anonymous" cannot create resource "jobs" in API group '
    '"batch" in the namespace "ns"'
)


def error(call: Call, code: int, message: str = "", reason: str = "", **details: object) -> object:
    body = json.dumps(status_of(code, message, reason, **details)).encode()
    return error_of(call, "ns", Answer(code, {}, body))


@pytest.mark.parametrize(
    ("found", "kind", "said", "hinted"),
    [
        (error(CREATE, 401, "Unauthorized"), NotLoggedInError, "Unauthorized", "log in"),
        (error(CREATE, 403, ANONYMOUS), NotLoggedInError, "anonymous", "log in"),
        (
            error(CREATE, 403, RBAC),
            ClusterRefusedError,
            RBAC,
            '- {apiGroups: ["batch"], resources: ["jobs"], verbs: ["create"]}',
        ),
        (error(CREATE, 403, QUOTA), ClusterRefusedError, QUOTA, "describe quota --namespace ns"),
        (error(CREATE, 403, WEBHOOK), ClusterRefusedError, WEBHOOK, "administrators"),
        (error(CREATE, 400, WEBHOOK), ClusterRefusedError, WEBHOOK, "administrators"),
        (error(CREATE, 403, ENDING), ClusterRefusedError, ENDING, "administrators"),
        (error(CREATE, 422, INVALID), ClusterRefusedError, INVALID, "plan"),
        (error(CREATE, 400, STRICT), ClusterRefusedError, STRICT, "plan"),
        (
            error(
                CREATE, 404, 'namespaces "ns" not found', "NotFound", name="ns", kind="namespaces"
            ),
            ClusterRefusedError,
            "not found",
            "kubectl create namespace ns",
        ),
        (
            error(GET, 404, "not found", "NotFound", name="j-g1", kind="jobs", group="batch"),
            NotThereError,
            "not found",
            "",
        ),
        (error(CREATE, 409, "already exists", "AlreadyExists"), TakenError, "exists", ""),
    ],
    ids=[
        *("not logged in", "nobody", "rbac", "quota", "webhook 403", "webhook 400"),
        *("namespace ends", "invalid", "strict", "no namespace", "no job", "taken"),
    ],
)
def test_a_refusal_is_an_error_that_says_what_to_do(
    found: S3RunnerError, kind: type[S3RunnerError], said: str, hinted: str
) -> None:
    assert type(found) is kind
    assert said in found.reason
    assert hinted in found.hint
    assert found.code == 32
    assert not found.temporary
    assert "in namespace ns" in str(found)


@pytest.mark.parametrize(
    "found",
    [
        error(CREATE, 409, "Operation cannot be fulfilled on resourcequotas", "Conflict"),
        *(error(CREATE, code) for code in (429, 500, 502, 503, 504)),
    ],
    ids=["a quota that just changed", "429", "500", "502", "503", "504"],
)
def test_what_may_pass_is_worth_another_try(found: S3RunnerError) -> None:
    assert type(found) is ClusterUnavailableError
    assert found.temporary


def test_a_point_that_is_too_long_ago_asks_for_a_new_list() -> None:
    found = error(Call("watch", PODS), 410, "too old resource version: 1 (9)", "Expired")

    assert type(found) is ExpiredError


@pytest.mark.parametrize(
    "body",
    [b"404 page not found\n", b"", b"[]", json.dumps(status_of(404, "x", "")).encode()],
    ids=["text", "nothing", "no object", "another status"],
)
def test_a_404_that_does_not_name_the_object_is_no_absence(body: bytes) -> None:
    """A proxy in between says it too, and the head would take the Job for deleted."""
    found = error_of(GET, "ns", Answer(404, {}, body))

    assert type(found) is ClusterRefusedError
    assert "server" in found.hint


def test_a_404_for_another_kind_of_object_is_no_absence() -> None:
    assert type(error(GET, 404, "x", "NotFound", kind="pods")) is ClusterRefusedError


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [
        ({"retry-after": "7"}, {}, 7.0),
        ({}, {"retryAfterSeconds": 3}, 3.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, {}, 0.0),
        ({"retry-after": "-1"}, {}, 0.0),
        ({}, {}, 0.0),
    ],
)
def test_the_server_says_when_to_come_again(
    headers: dict[str, str], details: dict[str, object], seconds: float
) -> None:
    body = json.dumps(status_of(429, "", "", **details)).encode()

    assert Answer(429, headers, body).retry_after_s == seconds


def test_the_line_for_a_role_names_the_core_group_as_nothing() -> None:
    expected = '- {apiGroups: [""], resources: ["events"], verbs: ["list"]}'

    assert rule(Call("list", EVENTS)) == expected

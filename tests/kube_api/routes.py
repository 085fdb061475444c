"""The API's routes: which request means what, and what it is answered with.

It stands apart from HTTP, which only carries it, and from what changes objects by itself.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kube_api import answers
from kube_api.answers import RefusedError
from kube_api.clock import Clock
from kube_api.creation import take_in
from kube_api.objects import JOBS, KINDS, NAMESPACES, PODS, Objects, with_changes
from kube_api.pod_status import set_condition
from kube_api.rbac import Access, Rbac
from kube_api.removal import begin_pod_end, delete_job
from kube_api.selectors import selector
from kube_api.watching import Wanted, Watching
from s3runner.cluster.job_rules import is_terminal, timestamp

KubernetesObject = dict[str, Any]

_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>batch)/v1)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>log|eviction))?)?"
)
_VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.2",
    "gitCommit": "0" * 40,
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "go1.25.0",
    "compiler": "gc",
    "platform": "linux/amd64",
}


@dataclass(frozen=True)
class Request:
    """One request, parsed: `verb` is RBAC's word for it."""

    verb: str
    resource: str
    namespace: str
    name: str = ""
    sub: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def access(self) -> Access:
        resource = f"{self.resource}/{self.sub}" if self.sub else self.resource
        return Access(self.verb, KINDS[self.resource][0], resource, self.namespace)


@dataclass(frozen=True)
class Answer:
    """A finished answer, or with `events` one that goes on; `text` is a log."""

    code: int = 200
    document: KubernetesObject | None = None
    events: Iterator[KubernetesObject | None] | None = None
    text: bytes | None = None
    warnings: tuple[str, ...] = ()


def parse(method: str, path: str, query: Mapping[str, str], body: bytes) -> Request | Answer:
    """Return what is asked for, or the answer to what asks for no object. Raises RefusedError."""
    path = path.rstrip("/")
    if path == "/version":
        return Answer(document=_VERSION)
    if path in ("/healthz", "/livez", "/readyz"):
        return Answer(text=b"ok")
    if path in _DISCOVERY:
        return Answer(document=_DISCOVERY[path])
    found = _PATH.fullmatch(path)
    resource = found["resource"] if found else ""
    if found is None or resource not in KINDS or KINDS[resource][0] != (found["group"] or ""):
        raise RefusedError(404, "the server could not find the requested resource")
    name, sub = found["name"] or "", found["sub"] or ""
    verb = _verb(method, name, query)
    namespace = found["namespace"] or ""
    return Request(verb, resource, namespace, name, sub, query, body)


def _verb(method: str, name: str, query: Mapping[str, str]) -> str:
    if method == "GET":
        watching = query.get("watch", "").lower() in ("true", "1")
        return "watch" if watching else "get" if name else "list"
    verbs = {"POST": "create", "PUT": "update", "PATCH": "patch"}
    return verbs.get(method) or ("delete" if name else "deletecollection")


class Routes:
    """What each verb does to the objects."""

    def __init__(
        self, objects: Objects, clock: Clock, rbac: Rbac, watching: Watching, logs: Path
    ) -> None:
        self.job_quota: int | None = None
        self._objects = objects
        self._clock = clock
        self._rbac = rbac
        self._watching = watching
        self._logs = logs
        self._pages: dict[str, list[KubernetesObject]] = {}
        self._page_version: dict[str, int] = {}

    def answer(self, request: Request) -> Answer:
        """Do what is asked for. Raises RefusedError."""
        self._rbac.check(request.access, request.name)
        if request.sub == "log":
            return self._log(request)
        if request.sub == "eviction":
            return self._evict(request)
        verbs = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "delete": self._delete,
        }
        if request.verb not in verbs:
            raise RefusedError(
                405, "the server does not allow this method on the requested resource"
            )
        return verbs[request.verb](request)

    def forget_pages(self) -> None:
        """Let every continue token be too old."""
        self._pages.clear()

    def _found(self, request: Request) -> KubernetesObject:
        namespace = "" if request.resource == NAMESPACES else request.namespace
        found = self._objects.find(request.resource, namespace, request.name)
        if found is None:
            raise answers.not_found(request.resource, KINDS[request.resource][0], request.name)
        return found

    def _get(self, request: Request) -> Answer:
        return Answer(document=self._found(request))

    def _list(self, request: Request) -> Answer:
        query = request.query
        with self._objects.changed:
            version = self._objects.version
            token = query.get("continue", "")
            if token:
                if token not in self._pages:
                    raise answers.page_expired(version)
                items, version = self._pages.pop(token), self._page_version[token]
            else:
                items = self._selected(request)
        limit = int(query.get("limit") or 0)
        metadata: KubernetesObject = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            token = base64.urlsafe_b64encode(secrets.token_bytes(24)).decode()
            self._pages[token], self._page_version[token] = items[limit:], version
            metadata["continue"] = token
            if not query.get("labelSelector"):
                metadata["remainingItemCount"] = len(items) - limit
            items = items[:limit]
        _, api_version, kind = KINDS[request.resource]
        bare = [{k: v for k, v in i.items() if k not in ("kind", "apiVersion")} for i in items]
        page = {"kind": f"{kind}List", "apiVersion": api_version, "metadata": metadata}
        return Answer(document={**page, "items": bare})

    def _wanted(self, request: Request) -> Wanted:
        query = request.query
        test = selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        return Wanted(request.resource, request.namespace or None, test)

    def _selected(self, request: Request) -> list[KubernetesObject]:
        wanted = self._wanted(request)
        items = self._objects.of(request.resource, wanted.namespace)
        return [item for item in items if wanted.shows(item)]

    def _watch(self, request: Request) -> Answer:
        return Answer(events=self._watching.open(self._wanted(request), request.query))

    def _create(self, request: Request) -> Answer:
        resource, namespace = request.resource, request.namespace
        group = KINDS[resource][0]
        if self._objects.find(NAMESPACES, "", namespace) is None:
            raise answers.not_found(NAMESPACES, "", namespace)
        now_s = self._clock.now_s()
        made, warnings = take_in(resource, namespace, request.body, request.query, now_s)
        name = made["metadata"]["name"]
        with self._objects.changed:
            self._check_quota(resource, namespace, name)
            if self._objects.find(resource, namespace, name) is not None:
                raise answers.already_exists(resource, group, name)
            if request.query.get("dryRun") != "All":
                made = self._objects.put(resource, made)
        return Answer(201, made, warnings=tuple(warnings))

    def _check_quota(self, resource: str, namespace: str, name: str) -> None:
        if resource != JOBS or self.job_quota is None:
            return
        used = len(self._objects.of(JOBS, namespace))
        if used >= self.job_quota:
            what = "count/jobs.batch"
            message = (
                f'jobs.batch "{name}" is forbidden: exceeded quota: jobs, requested: {what}=1, '
                f"used: {what}={used}, limited: {what}={self.job_quota}"
            )
            raise RefusedError(403, message, details=answers.details_of(JOBS, "batch", name))

    def _delete(self, request: Request) -> Answer:
        group = KINDS[request.resource][0]
        options = {**_options(request.body), **request.query}
        with self._objects.changed:
            found = self._found(request)
            metadata = found["metadata"]
            _check_preconditions(request, group, options, metadata)
            status = answers.success(request.resource, group, request.name, metadata["uid"])
            if request.resource == JOBS:
                policy = str(options.get("propagationPolicy") or "Orphan")
                if delete_job(self._objects, found, policy, self._clock.now_s()):
                    return Answer(document=status)
                return Answer(document=self._objects.find(JOBS, request.namespace, request.name))
            if request.resource == PODS:
                grace = options.get("gracePeriodSeconds")
                seconds = None if grace is None else int(grace)
                dying = begin_pod_end(self._objects, found, self._clock.now_s(), seconds)
                return Answer(document=dying)
            self._objects.remove(request.resource, found)
        return Answer(document=status)

    def _evict(self, request: Request) -> Answer:
        options = _options(request.body).get("deleteOptions") or {}
        with self._objects.changed:
            pod = self._found(request)
            self.evict(pod, options.get("gracePeriodSeconds"))
        return Answer(201, answers.success("", "", "", "") | {"details": {}, "code": 201})

    def evict(self, pod: KubernetesObject, grace_s: int | None = None) -> None:
        """Do what the eviction API does: say why, then delete."""
        now_s = self._clock.now_s()
        self.disrupt(pod, "EvictionByEvictionAPI", "Eviction API: evicting")
        found = self._objects.by_uid(PODS, pod["metadata"]["uid"])
        if found is not None:
            begin_pod_end(self._objects, found, now_s, grace_s)

    def disrupt(self, pod: KubernetesObject, reason: str, message: str) -> None:
        """Say on a pod that it is a disruption's target, unless it is dying or over."""
        if "deletionTimestamp" in pod["metadata"] or is_terminal(pod):
            return
        status = {"conditions": [dict(c) for c in pod["status"].get("conditions", ())]}
        moment = timestamp(self._clock.now_s())
        set_condition(status, "DisruptionTarget", "True", moment, reason, message)
        self._objects.put(PODS, with_changes(pod, status=status))

    def _log(self, request: Request) -> Answer:
        pod = self._found(request)
        spec = pod["spec"]
        mains = [container["name"] for container in spec["containers"]]
        inits = [container["name"] for container in spec.get("initContainers", ())]
        name = request.query.get("container") or (mains[0] if len(mains) == 1 else "")
        if name not in (*mains, *inits):
            told = f"a container name must be specified for pod {request.name}"
            wanted = f"container {name} is not valid for pod {request.name}"
            choice = f", choose one of: {mains} or one of the init containers: {inits}"
            raise RefusedError(400, wanted if name else told + choice.replace("'", ""))
        folder = self._logs / pod["metadata"]["uid"]
        streams = [folder / f"{name}.{stream}" for stream in ("stdout", "stderr")]
        if not any(path.exists() for path in streams):
            why = f'container "{name}" in pod "{request.name}" is waiting to start: PodInitializing'
            raise RefusedError(400, why)
        return Answer(text=b"".join(path.read_bytes() for path in streams if path.exists()))


def _options(body: bytes) -> KubernetesObject:
    document = json.loads(body) if body else {}
    return document if isinstance(document, dict) else {}


def _check_preconditions(
    request: Request, group: str, options: KubernetesObject, metadata: KubernetesObject
) -> None:
    wanted = options.get("preconditions") or {}
    for name, told in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        value = wanted.get(name)
        if value is not None and value != metadata[name]:
            why = f"{told} in precondition: {value}, {told} in object meta: {metadata[name]}"
            raise answers.conflict(request.resource, group, request.name, why)


_DISCOVERY: dict[str, KubernetesObject] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {
                "name": "batch",
                "versions": [{"groupVersion": "batch/v1", "version": "v1"}],
                "preferredVersion": {"groupVersion": "batch/v1", "version": "v1"},
            }
        ],
    },
}

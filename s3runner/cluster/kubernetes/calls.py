"""What is asked of the API: verbs as RBAC names them, resources, paths, selectors.

Pure, and apart from the transport: errors, counters and Roles speak of calls, not of HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

METHODS = {"create": "POST", "get": "GET", "list": "GET", "watch": "GET", "delete": "DELETE"}

OURS = "app.kubernetes.io/managed-by=s3runner"
"""Selects every Job and pod of ours in a namespace, whichever head made them."""

PAGE = 500


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, by its API group (empty: the core group) and its plural."""

    group: str
    plural: str

    @property
    def root(self) -> str:
        """The path that its group's version one lies below."""
        return f"/apis/{self.group}/v1" if self.group else "/api/v1"


JOBS = Resource("batch", "jobs")
PODS = Resource("", "pods")
EVENTS = Resource("", "events")


@dataclass(frozen=True, slots=True)
class Call:
    """A verb on a resource, and on one object of it where `name` is set."""

    verb: str
    resource: Resource
    name: str = ""

    @property
    def method(self) -> str:
        """The HTTP method."""
        return METHODS[self.verb]

    def path(self, namespace: str) -> str:
        """Return the URL's path."""
        end = f"/{quote(self.name, safe='')}" if self.name and self.verb != "create" else ""
        space = quote(namespace, safe="")
        return f"{self.resource.root}/namespaces/{space}/{self.resource.plural}{end}"

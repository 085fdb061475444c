"""The way to the API: who we are, TLS, proxies, one try a call, and streams.

The only module that knows the Kubernetes client, of which it takes the configuration and the
connection pool: its generated calls differ between the releases that we support, and its models
cost more than the JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import re
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3
import yaml
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException
from kubernetes.config.incluster_config import InClusterConfigLoader
from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

from s3runner import __version__
from s3runner.cluster.kubernetes.api_errors import Answer, error_of
from s3runner.cluster.kubernetes.calls import Call
from s3runner.cluster.kubernetes.limits import Pace
from s3runner.errors import (
    ClusterRefusedError,
    ClusterUnavailableError,
    S3RunnerError,
    SettingsError,
)

IN_CLUSTER = "in-cluster"
"""The name of the context that a pod finds in its own files."""

_CONNECT_S = 10.0
_ANSWER_S = 65.0
"""An API server gives up on a call after 60 s, and says so."""

_POOL = 64
_WARNING = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Place:
    """Where to ask, as settings have it; None stands for what kubectl would take.

    `kubeconfig` is a path, or several with colons between them. `service_account` is the directory
    in which a pod finds its own account.
    """

    context: str | None = None
    namespace: str | None = None
    kubeconfig: str | None = None
    service_account: Path = _SERVICE_ACCOUNT


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer: the object, and what the server warns of."""

    body: dict[str, Any]
    warnings: tuple[str, ...] = ()


class Stream:
    """An answer that goes on: chunks of bytes as they come."""

    def __init__(self, response: urllib3.BaseHTTPResponse, origin: str) -> None:
        self._response = response
        self._origin = origin

    def chunks(self) -> Iterator[bytes]:
        """Yield until the server ends the stream. Raises ClusterUnavailableError when it breaks."""
        try:
            yield from self._response.stream(amt=None, decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # the last two are what a socket that `stop` closed meanwhile may raise
            raise _no_answer(error, self._origin) from error
        finally:
            self._response.close()

    def stop(self) -> None:
        """End the stream from another thread, one that waits in `chunks` wakes up."""
        # urllib3 before 2.3 has no such method: the reader then ends with its next chunk
        with contextlib.suppress(AttributeError, OSError, ValueError, RuntimeError):
            self._response.shutdown()


class Connection:
    """One namespace of one cluster. Safe for concurrent use by threads; asks nothing by itself.

    `calls` counts what was sent, by verb and resource. Credentials are read again when the server
    refuses them: a token that was rotated costs one more try.
    """

    def __init__(self, place: Place, pace: Pace | None = None) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self._place = place
        self._pace = pace or Pace()
        self._lock = threading.Lock()
        self._current: _Session | None = None

    @property
    def identity(self) -> dict[str, str]:
        """What tells this namespace of this cluster from others. Raises SettingsError."""
        return dict(self._session().identity)

    @property
    def namespace(self) -> str:
        """The namespace's name."""
        return self._session().identity["namespace"]

    def ask(
        self,
        call: Call,
        query: Mapping[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> Reply:
        """Send a call, once. Raises the errors of `api_errors.error_of`."""
        response = self._send(call, query or {}, body, _ANSWER_S)
        answer = self._read(response)
        if not _is_success(answer.status):
            raise error_of(call, self.namespace, answer)
        return Reply(self._parse(answer), _warnings_in(answer.headers.get("warning", "")))

    def stream(self, call: Call, query: Mapping[str, str], silence_s: float) -> Stream:
        """Open a stream that breaks when nothing comes for `silence_s` seconds."""
        response = self._send(call, query, None, silence_s)
        if not _is_success(response.status):
            raise error_of(call, self.namespace, self._read(response))
        return Stream(response, self._session().origin)

    def _send(
        self,
        call: Call,
        query: Mapping[str, str],
        body: dict[str, Any] | None,
        read_s: float,
    ) -> urllib3.BaseHTTPResponse:
        session = self._session()
        response = self._send_as(session, call, query, body, read_s)
        if response.status == 401:  # noqa: PLR2004 # the HTTP status
            self._read(response)
            response = self._send_as(self._renewed(session), call, query, body, read_s)
        return response

    def _send_as(
        self,
        session: _Session,
        call: Call,
        query: Mapping[str, str],
        body: dict[str, Any] | None,
        read_s: float,
    ) -> urllib3.BaseHTTPResponse:
        self._pace.take()
        with self._lock:
            self.calls[call.verb, call.resource.plural] += 1
            headers = session.headers()
        url = f"{session.origin}{call.path(session.identity['namespace'])}"
        try:
            return session.pool.request(
                call.method,
                f"{url}?{urlencode(query)}" if query else url,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=read_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _no_answer(error, session.origin).during(
                f"{call.verb} {call.resource.plural}", target=call.name
            ) from error

    def _read(self, response: urllib3.BaseHTTPResponse) -> Answer:
        try:
            body = response.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _no_answer(error, self._session().origin) from error
        finally:
            response.release_conn()
        headers = {name.lower(): response.headers[name] for name in response.headers}
        answer = Answer(response.status, headers, body)
        if not _is_success(answer.status):
            self._pace.hold(answer.retry_after_s)
        return answer

    def _parse(self, answer: Answer) -> dict[str, Any]:
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            origin = self._session().origin
            raise ClusterUnavailableError(f"{origin} answers with something that is no object")
        return found

    def _session(self) -> _Session:
        with self._lock:
            if self._current is None:
                self._current = _load(self._place)
            return self._current

    def _renewed(self, refused: _Session) -> _Session:
        """Return a session whose credentials were read after those that were refused."""
        with self._lock:
            if self._current is refused:
                context = refused.identity["context"]
                fresh = _load(replace(self._place, context=context))
                if fresh.identity != refused.identity:
                    raise ClusterRefusedError(
                        f"context {context} now leads to another cluster",
                        hint="start again: this process belongs to the one it began with",
                    )
                self._current = fresh
            return self._current or refused


@dataclass(frozen=True, eq=False)
class _Session:
    """Credentials as they were read at one moment, and the connections that use them."""

    configuration: Any
    pool: urllib3.PoolManager
    identity: Mapping[str, str]

    @property
    def origin(self) -> str:
        return str(self.configuration.host).rstrip("/")

    def headers(self) -> dict[str, str]:
        """Return the headers of a request; may run a log-in program whose token has expired."""
        found = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": f"s3runner/{__version__}",
        }
        for setting in self.configuration.auth_settings().values():
            if setting["in"] == "header" and setting["value"]:
                found[setting["key"]] = setting["value"]
        return found


def _load(place: Place) -> _Session:
    """Read who we are and where the cluster is. Raises SettingsError."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = _POOL
    load = _load_in_cluster if _is_in_cluster(place) else _load_kubeconfig
    try:
        identity = load(configuration, place)
    except (ConfigException, OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise SettingsError(
            f"no way to a Kubernetes cluster: {_first_line(error)}",
            hint="`kubectl config get-contexts` shows what there is",
        ) from error
    pool = RESTClientObject(configuration).pool_manager
    pool.connection_pool_kw["ssl_context"] = _tls(is_checked=configuration.verify_ssl)
    return _Session(configuration, pool, identity)


def _tls(*, is_checked: bool) -> ssl.SSLContext:
    """Return a context that takes the certificates kubectl takes; CA and keys are added to it.

    From Python 3.13 on the default refuses one without an Authority Key Identifier, which those of
    older clusters lack.
    """
    mode = ssl.CERT_REQUIRED if is_checked else ssl.CERT_NONE
    context = urllib3.util.ssl_.create_urllib3_context(cert_reqs=mode)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _is_in_cluster(place: Place) -> bool:
    if place.context is not None:
        return place.context == IN_CLUSTER
    is_pod = "KUBERNETES_SERVICE_HOST" in os.environ
    return is_pod and not any(Path(path).exists() for path in _kubeconfigs(place).split(":"))


def _kubeconfigs(place: Place) -> str:
    named = place.kubeconfig or os.environ.get("KUBECONFIG")
    return named or str(Path("~/.kube/config").expanduser())


def _load_in_cluster(configuration: Any, place: Place) -> dict[str, str]:
    """Use the pod's own account.

    Every cluster has the same address from inside, so the authority that signs for it stands in the
    identity in its place.
    """
    account = place.service_account
    token, authority = account / "token", account / "ca.crt"
    InClusterConfigLoader(str(token), str(authority)).load_and_set(configuration)
    return {
        "kind": "kubernetes",
        "context": IN_CLUSTER,
        "namespace": place.namespace or (account / "namespace").read_text("utf-8").strip(),
        "authority": hashlib.sha256(authority.read_bytes()).hexdigest(),
    }


def _load_kubeconfig(configuration: Any, place: Place) -> dict[str, str]:
    paths = _kubeconfigs(place)
    merged = KubeConfigMerger(paths)
    if merged.config is None:
        raise ConfigException(f"there is no kubeconfig at {paths}")
    loader = KubeConfigLoader(
        merged.config,
        active_context=place.context,
        config_base_path=None,
        config_persister=merged.save_changes,
    )
    loader.load_and_set(configuration)
    if "proxy" not in vars(loader) and _is_this_machine(str(configuration.host)):
        # as kubectl does: the environment's proxy cannot reach it
        configuration.proxy = None
    chosen = loader.current_context
    return {
        "kind": "kubernetes",
        "context": str(chosen["name"]),
        "namespace": place.namespace or str(chosen["context"].get("namespace") or "default"),
        "server": str(configuration.host),
    }


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _no_answer(error: Exception, origin: str) -> S3RunnerError:
    """Return what a broken connection means: only a certificate that is wrong stays wrong."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ClusterRefusedError(
                f"{origin} shows a certificate that cannot be trusted: {cause.verify_message}",
                hint="check the cluster's `certificate-authority` in the kubeconfig",
            )
        # urllib3 keeps what it wraps in its arguments
        inside = next((arg for arg in cause.args if isinstance(arg, BaseException)), None)
        cause = cause.__cause__ or cause.__context__ or inside
    return ClusterUnavailableError(f"no answer from {origin}: {_words_for(error)}")


def _words_for(error: Exception) -> str:
    # also a time-out to urllib3, whatever the system said
    is_refused = isinstance(error, urllib3.exceptions.NewConnectionError)
    if isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError) and not is_refused:
        return "it takes too long"
    if isinstance(error, urllib3.exceptions.ProtocolError | ConnectionResetError):
        return "the connection broke"
    # without the connection's address in memory, which says nothing and differs each time
    return _first_line(error).rpartition(">: ")[2]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _warnings_in(header: str) -> tuple[str, ...]:
    """Return the texts of `Warning` headers: `299 - "text"`, one after another."""
    return tuple(re.sub(r"\\(.)", r"\1", text) for text in _WARNING.findall(header))


def _is_success(status: int) -> bool:
    return 200 <= status < 300  # noqa: PLR2004 # the class of HTTP statuses

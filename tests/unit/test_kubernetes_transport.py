"""Who we are and where the cluster is, over real sockets and the official client's own loaders."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from scripted_api import (
    NAMESPACE,
    ScriptedApi,
    drop,
    in_turn,
    job,
    listing,
    refuse,
    reply,
    write_kubeconfig,
)
from urllib3.util.ssl_ import create_urllib3_context

from s3runner.cluster.kubernetes.api_errors import NotLoggedInError
from s3runner.cluster.kubernetes.calls import JOBS, Call
from s3runner.cluster.kubernetes.limits import Pace
from s3runner.cluster.kubernetes.transport import Connection, Place
from s3runner.errors import ClusterRefusedError, ClusterUnavailableError, SettingsError

LIST = Call("list", JOBS)
SECRET = "t0ken-nobody-may-see"  # noqa: S105 # a test's


@pytest.fixture(name="api")
def scripted_api() -> Iterator[ScriptedApi]:
    with ScriptedApi() as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no kubeconfig, proxy or pod of this machine take part."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    names = ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
    for name in (*names, "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def connection(path: Path, server: str, pace: Pace | None = None, **more: Any) -> Connection:
    return Connection(Place(kubeconfig=write_kubeconfig(path / "kc", server, **more)), pace)


def test_a_context_gives_server_namespace_and_token(api: ScriptedApi, tmp_path: Path) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "kc", api.url, user={"token": SECRET})
    api.on["list", "jobs"] = listing(job("j"))

    found = Connection(Place("here", None, kubeconfig))

    assert found.ask(LIST).body["items"][0]["metadata"]["name"] == "j"
    assert api.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert api.requests[0].headers["user-agent"].startswith("s3runner/")
    assert found.identity == {
        "kind": "kubernetes",
        "context": "here",
        "namespace": NAMESPACE,
        "server": api.url,
    }
    assert found.calls == {("list", "jobs"): 1}


def test_a_cluster_on_this_machine_is_asked_without_the_environments_proxy(
    api: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubectl never asks a proxy for it, and laptops have both."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    api.on["list", "jobs"] = listing(job("j"))

    assert connection(tmp_path, api.url).ask(LIST).body["items"]

    with pytest.raises(ClusterUnavailableError):
        connection(tmp_path, "http://cluster.invalid").ask(LIST)


def test_certificates_that_kubectl_takes_are_taken(
    api: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older clusters sign without a key identifier, which newer Pythons refuse by default."""

    def strict(**more: Any) -> ssl.SSLContext:
        context = create_urllib3_context(**more)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(urllib3.util.ssl_, "create_urllib3_context", strict)
    found = connection(tmp_path, api.url)

    context = found._session().pool.connection_pool_kw["ssl_context"]

    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_the_settings_namespace_goes_before_the_contexts(tmp_path: Path) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "kc", "http://127.0.0.1:1")

    assert Connection(Place(None, "other", kubeconfig)).namespace == "other"


def test_the_environment_names_a_kubeconfig_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even several, as kubectl has it."""
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'none'}:{tmp_path / 'kc'}")
    write_kubeconfig(tmp_path / "kc", "http://127.0.0.1:1")

    assert Connection(Place()).identity["context"] == "here"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (Place(kubeconfig="/nowhere/config"), "there is no kubeconfig at /nowhere/config"),
        (Place(context="elsewhere"), "elsewhere"),
        (Place(context="in-cluster"), "Service host"),
    ],
    ids=["no file", "no such context", "not in a cluster"],
)
def test_no_way_to_a_cluster_is_a_matter_of_the_settings(
    place: Place, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", write_kubeconfig(tmp_path / "kc", "http://127.0.0.1:1"))

    with pytest.raises(SettingsError, match=said) as caught:
        _ = Connection(place).identity
    assert "kubectl" in caught.value.hint


def test_a_broken_kubeconfig_is_a_matter_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "kc").write_text("{[")

    with pytest.raises(SettingsError):
        _ = Connection(Place(kubeconfig=str(tmp_path / "kc"))).identity


def test_a_pod_without_a_kubeconfig_uses_its_own_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside, all clusters have one address: what signs for it tells them apart."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "namespace").write_text("mine\n")
    seen = []
    for authority in ("one", "two"):
        (tmp_path / "ca.crt").write_text(authority)
        seen.append(Connection(Place(service_account=tmp_path)).identity)

    assert [(found["context"], found["namespace"]) for found in seen] == [
        ("in-cluster", "mine")
    ] * 2
    assert seen[0]["authority"] != seen[1]["authority"]


def test_a_token_that_was_rotated_is_read_again_once(api: ScriptedApi, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    found = connection(tmp_path, api.url, user={"tokenFile": str(tmp_path / "token")})
    found.ask(LIST)
    (tmp_path / "token").write_text("new")
    api.on["list", "jobs"] = in_turn(refuse(401, "Unauthorized"), listing())

    found.ask(LIST)

    tokens = [request.headers["authorization"] for request in api.requests]
    assert tokens == ["Bearer old", "Bearer old", "Bearer new"]


def test_a_login_program_is_run_again_when_its_token_is_refused(
    api: ScriptedApi, tmp_path: Path
) -> None:
    program = tmp_path / "login"
    program.write_text(
        f"#!{sys.executable}\nimport json, pathlib\n"
        f"count = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "number = int(count.read_text()) + 1 if count.exists() else 1\n"
        "count.write_text(str(number))\n"
        "status = {'token': f'token-{number}'}\n"
        "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', "
        "'kind': 'ExecCredential', 'status': status}))\n"
    )
    program.chmod(0o755)
    login = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(program),
        "interactiveMode": "Never",
    }
    api.on["list", "jobs"] = in_turn(refuse(401, "Unauthorized"), listing())

    connection(tmp_path, api.url, user={"exec": login}).ask(LIST)

    tokens = [request.headers["authorization"] for request in api.requests]
    assert tokens == ["Bearer token-1", "Bearer token-2"]


def test_who_is_refused_twice_is_told_to_log_in(api: ScriptedApi, tmp_path: Path) -> None:
    api.on["list", "jobs"] = refuse(401, "Unauthorized")

    with pytest.raises(NotLoggedInError) as caught:
        connection(tmp_path, api.url, user={"token": SECRET}).ask(LIST)

    assert api.count("list", "jobs") == 2
    assert SECRET not in f"{caught.value!r} {caught.value.to_json()}"


def test_a_context_that_was_turned_to_another_cluster_meanwhile_is_not_followed(
    api: ScriptedApi, tmp_path: Path
) -> None:
    found = connection(tmp_path, api.url)
    found.ask(LIST)
    write_kubeconfig(tmp_path / "kc", "http://127.0.0.1:1")
    api.on["list", "jobs"] = refuse(401, "Unauthorized")

    with pytest.raises(ClusterRefusedError, match="another cluster"):
        found.ask(LIST)


def test_a_server_that_is_not_there_may_come_back(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        with pytest.raises(ClusterUnavailableError, match=f"127.0.0.1:{port}.*refused") as caught:
            connection(tmp_path, f"http://127.0.0.1:{port}").ask(LIST)

    assert "0x" not in caught.value.reason


@pytest.mark.parametrize(
    "step",
    [drop, reply(b"<html>"), reply(b"[]"), refuse(503, "later")],
    ids=["closed", "no JSON", "no object", "503"],
)
def test_a_bad_answer_may_be_followed_by_a_good_one(
    step: object, api: ScriptedApi, tmp_path: Path
) -> None:
    api.on["list", "jobs"] = step  # type: ignore[assignment]

    with pytest.raises(ClusterUnavailableError):
        connection(tmp_path, api.url).ask(LIST)

    assert api.count("list", "jobs") == 1


def test_what_one_answer_says_of_later_holds_the_next_call(
    api: ScriptedApi, tmp_path: Path
) -> None:
    slept: list[float] = []
    pace = Pace(clock=lambda: 0.0, sleep=slept.append)
    body = {"kind": "Status", "message": "busy", "details": {"retryAfterSeconds": 2}}
    api.on["list", "jobs"] = in_turn(reply(body, 429, Retry_After="9"), listing())
    found = connection(tmp_path, api.url, pace)

    with pytest.raises(ClusterUnavailableError):
        found.ask(LIST)
    found.ask(LIST)

    assert slept == [9.0]


def test_the_servers_warnings_come_with_its_answer(api: ScriptedApi, tmp_path: Path) -> None:
    """One header for each, or one for all."""
    warning = '299 - "would violate \\"restricted\\"", 299 - "second"'
    api.on["create", "jobs"] = reply(job("j"), 201, Warning=warning)

    answer = connection(tmp_path, api.url).ask(Call("create", JOBS, "j"), body={})

    assert answer.warnings == ('would violate "restricted"', "second")


def test_a_namespace_and_a_name_stay_inside_their_part_of_the_path() -> None:
    assert Call("get", JOBS, "a/../b").path("n/m") == (
        "/apis/batch/v1/namespaces/n%2Fm/jobs/a%2F..%2Fb"
    )


@pytest.fixture(name="certificate", scope="module")
def make_certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not on this machine")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = str(folder / "key.pem"), str(folder / "cert.pem")
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=api"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([openssl, *made, *names], check=True, capture_output=True)
    return key, certificate


@pytest.mark.parametrize("trusted", [True, False], ids=["its authority", "no authority"])
def test_a_certificate_that_cannot_be_trusted_is_refused_at_once(
    trusted: bool, certificate: tuple[str, str], tmp_path: Path
) -> None:
    """Trying again would not help, and takes ten minutes."""
    key, pem = certificate
    with ScriptedApi() as api:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, key)
        api.wrap(context)
        cluster: dict[str, Any] = {"certificate-authority": pem} if trusted else {}
        found = connection(tmp_path, api.url.replace("http:", "https:"), **cluster)

        if trusted:
            assert found.ask(LIST).body["items"] == []
        else:
            with pytest.raises(ClusterRefusedError, match="certificate") as caught:
                found.ask(LIST)
            assert "certificate-authority" in caught.value.hint


def test_only_a_kubernetes_destination_pays_for_the_client() -> None:
    """It takes half a second to import."""
    program = "import json, sys, s3runner.wiring; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    loaded = json.loads(ran.stdout)
    assert "s3runner.wiring" in loaded
    assert not {"kubernetes", "urllib3"} & set(loaded)

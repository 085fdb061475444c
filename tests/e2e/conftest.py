"""One Galaxy for all tests of this folder, each with a user of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest
from conftest import S3Server
from galaxy_jobs import Jobs
from galaxy_server import GalaxyServer, GalaxyUser, require_galaxy, served
from gate import Gate, gate_before
from kube_api.sites import FAKE, KUBECONFIG, REAL, Site, open_site

TIMEOUT_S = 3600
"""A test may be the one that waits for Galaxy's start and for all jobs of the others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests their time."""
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def gate(moto_server: S3Server) -> Iterator[Gate]:
    """What Galaxy has before its store."""
    with gate_before(moto_server.endpoint) as opened:
        yield opened


@pytest.fixture(scope="session")
def pod_gate(moto_server: S3Server) -> Iterator[Gate]:
    """What the pods of this machine have before it."""
    with gate_before(moto_server.endpoint) as opened:
        yield opened


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, moto_server: S3Server) -> Iterator[Site]:
    """A Kubernetes cluster: the one that S3RUNNER_TEST_KUBECONFIG names, or the tests' own."""
    kind = REAL if os.environ.get(KUBECONFIG) else FAKE
    with open_site(kind, tmp_path_factory.mktemp("site"), lambda: moto_server) as opened:
        yield opened
        # Galaxy's runner made them, in a process of its own
        opened.made |= Jobs(opened.access).names()


@pytest.fixture(scope="session")
def galaxy(
    tmp_path_factory: pytest.TempPathFactory,
    moto_server: S3Server,
    gate: Gate,
    pod_gate: Gate,
    site: Site,
) -> Iterator[GalaxyServer]:
    """A Galaxy whose jobs run in pods on this machine, and in those of a cluster."""
    require_galaxy()
    directory = tmp_path_factory.mktemp("galaxy")
    endpoints = {"endpoint": gate.address, "pod_endpoint": pod_gate.address}
    access = moto_server.fresh_bucket()
    yield from served(GalaxyServer(directory, access, endpoints=endpoints, site=site))


@pytest.fixture
def user(galaxy: GalaxyServer) -> GalaxyUser:
    """Somebody with an empty history."""
    return galaxy.user(f"u{secrets.token_hex(4)}")

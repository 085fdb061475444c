"""One Galaxy for all tests of this folder, each with a user of its own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from conftest import S3Server
from galaxy_server import GalaxyServer, GalaxyUser, require_galaxy, served


@pytest.fixture(scope="session")
def galaxy(
    tmp_path_factory: pytest.TempPathFactory, moto_server: S3Server
) -> Iterator[GalaxyServer]:
    """A Galaxy whose jobs run in pods on this machine."""
    require_galaxy()
    directory = tmp_path_factory.mktemp("galaxy")
    yield from served(GalaxyServer(directory, moto_server.fresh_bucket()))


@pytest.fixture
def user(galaxy: GalaxyServer) -> GalaxyUser:
    """Somebody with an empty history."""
    return galaxy.user(f"u{secrets.token_hex(4)}")

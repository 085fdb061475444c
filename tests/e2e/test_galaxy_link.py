"""Datasets that stay in the bucket: links to where it is mounted, by s3fs on a Ceph gateway.

Tools run on this machine's local cluster, or on the real one that S3RUNNER_TEST_KUBECONFIG names,
with its bucket.
"""

from __future__ import annotations

import os
import secrets
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from byte_relay import Relay, relay_before
from conftest import S3Access
from galaxy_job_conf import of_site
from galaxy_server import GalaxyServer, GalaxyUser, hda, pasted, require_galaxy
from kube_api.sites import KUBECONFIG, Site
from s3fs_mount import Mount, mounted, require_s3fs
from waiting import wait_until

from s3runner.staging.layout import StoreLayout

SIZE = 5_000_000
LITTLE = SIZE // 10
"""Far more than all documents of a job, far less than its data."""

TOOLS = {
    "make": (
        (
            "yes 0123456 | head -c $size > '$output' && echo '<br/>' > '$page'"
            " && mkdir -p '$page.extra_files_path' && echo extra > '$page.extra_files_path/e'"
            " && : > '$empty' && echo left > 'a (left) %41.txt' && echo found > found.tab"
        ),
        "<param name='size' type='integer' value='0'/>",
        (
            "<data name='output' format='txt'/><data name='page' format='html'/>"
            "<data name='empty' format='txt'/>"
            "<data name='left' format='txt' from_work_dir='a (left) %41.txt'/>"
            "<data name='found' format='tabular'>"
            "<discover_datasets pattern='found.(?P&lt;ext&gt;tab)'"
            " assign_primary_output='true' directory='.'/></data>"
        ),
    ),
    "count": (
        "wc -c < '$input' > '$output'",
        "<param name='input' type='data' format='data'/>",
        "<data name='output' format='txt'/>",
    ),
    "wait": (
        "sleep $seconds && echo waited > '$output'",
        "<param name='seconds' type='integer' value='0'/>",
        "<data name='output' format='txt'/>",
    ),
}


@dataclass(frozen=True)
class Scene:
    """A Galaxy whose tools leave links; `evict_count` lets its input give way to one, too."""

    galaxy: GalaxyServer
    mount: Mount
    relay: Relay
    access: S3Access

    def user(self) -> GalaxyUser:
        return self.galaxy.user(f"u{secrets.token_hex(4)}")

    def shown(self, user: GalaxyUser, dataset: str) -> bytes:
        """Return a dataset as Galaxy shows it to its user."""
        url = f"http://127.0.0.1:{self.galaxy.port}/api/datasets/{dataset}/display"
        request = urllib.request.Request(url, headers={"x-api-key": user._key})
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 # our own server
            return bytes(answer.read())

    def kept(self) -> int:
        """Count the jobs that gc leaves alone."""
        prefix = StoreLayout(self.access.config.prefix).jobs_prefix
        return sum(item.key.endswith("/keep.json") for item in self.access.open().list(prefix))

    def is_link(self, path: Path) -> bool:
        """Tell whether a file is a link into the mount."""
        return path.is_symlink() and path.readlink().is_relative_to(self.mount.directory)


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Scene]:
    """Galaxy on the gateway, with the bytes of its own process counted: not the mount's."""
    require_galaxy()
    require_s3fs()
    site = request.getfixturevalue("site") if os.environ.get(KUBECONFIG) else None
    access = site.access if site else request.getfixturevalue("rgw").http.fresh_bucket()
    directory = tmp_path_factory.mktemp("link")
    mount = mounted(directory, access, request)
    with relay_before(access.config.endpoint or "") as relay:
        (directory / "galaxy").mkdir()
        galaxy = GalaxyServer(directory / "galaxy", access)
        galaxy.configure(
            job_config_file=str(_write_job_conf(directory, access, relay, mount, site)),
            tool_config_file=str(_write_tools(directory)),
        )
        try:
            galaxy.start()
            yield Scene(galaxy, mount, relay, access)
        finally:
            galaxy.stop()


def _write_tools(directory: Path) -> Path:
    tools = directory / "tools"
    tools.mkdir()
    names = {name: name for name in TOOLS} | {"evict_count": "count"}
    for name, kind in names.items():
        command, inputs, outputs = TOOLS[kind]
        (tools / f"{name}.xml").write_text(
            f"<tool id='{name}' name='{name}' version='1.0' profile='21.09'>"
            f"<command><![CDATA[ {command} ]]></command>"
            f"<inputs>{inputs}</inputs><outputs>{outputs}</outputs></tool>"
        )
    items = "".join(f"<tool file='{tools}/{name}.xml'/>" for name in names)
    path = directory / "tool_conf.xml"
    path.write_text(f"<toolbox><section id='t' name='t'>{items}</section></toolbox>")
    return path


def _where(access: S3Access, site: Site | None) -> dict[str, Any]:
    """Return a plugin's parameters: the cluster, the bucket, and how pods reach it."""
    if site is not None:
        return dict(of_site(site))
    config = access.config
    return {
        "s3runner_cluster": "local",
        "s3runner_bucket": config.bucket,
        "s3runner_prefix": config.prefix,
        "s3runner_pod_endpoint": config.endpoint,
        "s3runner_insecure_http": True,
    }


def _write_job_conf(
    directory: Path, access: S3Access, relay: Relay, mount: Mount, site: Site | None
) -> Path:
    ours: dict[str, Any] = {"runner": "s3", "outputs_to_working_directory": True}
    if site is not None:
        ours |= {"docker_enabled": True, "docker_default_container_id": site.tool_image}
    document = {
        "runners": {
            "local": {"load": "galaxy.jobs.runners.local:LocalJobRunner"},
            "s3": {
                **_where(access, site),
                "load": "s3runner.galaxy.runner:S3JobRunner",
                "s3runner_endpoint": relay.address,
                "s3runner_mount": str(mount.directory),
                "s3runner_sync": "link",
            },
        },
        "execution": {
            "default": "link",
            "environments": {
                "local": {"runner": "local"},
                "link": ours,
                "evict": {**ours, "s3runner_evict_inputs": True},
            },
        },
        "tools": [
            {"class": "local", "environment": "local"},
            {"class": "requires_galaxy", "environment": "local"},
            {"id": "evict_count", "environment": "evict"},
        ],
    }
    path = directory / "job_conf.yml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_results_are_links_that_galaxy_shows_and_the_next_job_moves_nothing(scene: Scene) -> None:
    """What Galaxy has to find as a file of its own is one; empty files lead nowhere."""
    user, kept = scene.user(), scene.kept()

    made = user.run("make", size=SIZE)

    assert made.state == "ok", made.job
    content = (b"0123456\n" * (SIZE // 8 + 1))[:SIZE]
    assert scene.shown(user, made["output"]) == content
    assert user.dataset(made["output"])["file_size"] == SIZE
    assert user.dataset(made["output"])["metadata_data_lines"] == SIZE // 8
    names = ("output", "page", "left", "empty", "found")
    links = {name: scene.is_link(user.path(made[name])) for name in names}
    assert links == {"output": True, "page": True, "left": True, "empty": False, "found": False}
    texts = {name: made.text(name) for name in ("page", "left", "empty", "found")}
    assert texts == {"page": "<br/>\n", "left": "left\n", "empty": "", "found": "found\n"}
    page = user.path(made["page"])
    (extra,) = page.parent.glob("*_files/e")
    assert extra.read_text() == "extra\n"
    assert scene.kept() == kept + 1

    before = scene.relay.bytes
    counted = user.run("count", input=hda(made["output"]))

    assert counted.text("output").strip() == str(SIZE)
    assert scene.relay.bytes - before < LITTLE


def test_an_input_gives_way_to_a_link_and_the_next_job_moves_nothing(scene: Scene) -> None:
    """The path leads to the same bytes throughout, and gc leaves what it leads to alone."""
    user, content = scene.user(), "uploaded\n" * (SIZE // 9)
    (dataset,) = user.fetch(pasted(content))
    path = user.path(dataset)
    assert not path.is_symlink()

    first = user.run("evict_count", input=hda(dataset))

    wait_until(lambda: scene.is_link(path))
    assert first.text("output").strip() == str(len(content))
    assert scene.shown(user, dataset) == content.encode()
    before = scene.relay.bytes
    again = user.run("evict_count", input=hda(dataset))
    assert again.text("output").strip() == str(len(content))
    assert scene.relay.bytes - before < LITTLE


def test_a_mount_that_is_away_loses_nothing(scene: Scene) -> None:
    """A job that ends meanwhile waits for it; one that begins says what is missing."""
    user = scene.user()
    made = user.run("make", size=10)
    waiting = user.start("wait", seconds=20)
    user.wait(waiting["jobs"][0]["id"], "running")

    scene.mount.unmount()

    refused = user.run("count", input=hda(made["output"]))
    assert refused.state == "error"
    told = str(user.dataset(refused["output"])["misc_info"])
    assert f"the bucket is not seen in {scene.mount.directory}" in told
    wait_until(lambda: "the mounted bucket does not show it" in scene.galaxy.log)
    assert user.job(waiting["jobs"][0]["id"])["state"] == "running"
    scene.mount.mount()
    assert user.wait(waiting["jobs"][0]["id"])["state"] == "ok"
    assert user.text(waiting["outputs"][0]["id"]) == "waited\n"
    assert user.text(made["output"]) == "0123456\n01"
    assert user.run("count", input=hda(made["output"])).text("output").strip() == "10"

"""A Galaxy between two Kubernetes API servers: one has s3runner's Jobs, one those of Galaxy's own.

Only the pods of ours are kept from Galaxy's files. Every step of both runners is noted, and every
byte between Galaxy's process and the store is counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from byte_relay import Relay, relay_before
from conftest import S3Access
from galaxy_server import GalaxyServer, GalaxyUser, hda
from kube_api.cluster import NAMESPACE, FakeKube
from kube_api.objects import JOBS, with_changes
from kube_api.routes import Answer, Request, Routes
from waiting import wait_until

PLUGINS = Path(__file__).parent / "galaxy_plugins"
OURS, THEIRS = "S3JobRunner", "KubernetesRunner"
"""The names by which Galaxy's runners call themselves, and their steps are noted."""

_SANDBOX = "S3RUNNER_LOCAL_SANDBOX"

_COUNTING = """\
<tool id="{name}" name="{name}" version="1.0" profile="21.09">
  <command><![CDATA[ cat #for $i in $inputs# '$i' #end for# | wc -c > '$output' ]]></command>
  <inputs><param name="inputs" type="data" format="data" multiple="true"/></inputs>
  <outputs><data name="output" format="txt"/></outputs>
</tool>
"""

_WAITING = """\
<tool id="{name}_many" name="{name}_many" version="1.0" profile="21.09">
  <command><![CDATA[ cat '$input' > '$output' ]]></command>
  <inputs><param name="input" type="data" format="data"/></inputs>
  <outputs><data name="output" format="txt"/></outputs>
</tool>
"""


class Step(NamedTuple):
    """One line of `galaxy_measured`: seconds by the wall, and of the thread's CPU."""

    runner: str
    what: str
    job: str
    jobs: int
    wall: float
    cpu: float


@dataclass(frozen=True)
class Scene:
    """The tools `ours` and `ours_many` run by s3runner, `theirs` and `theirs_many` by Galaxy's own.

    The former take a list of `inputs` and count their bytes, the latter take one `input`.
    """

    galaxy: GalaxyServer
    ours: FakeKube
    theirs: FakeKube | None
    relay: Relay
    noted: Path

    def steps(self, runner: str = OURS, what: str = "") -> list[Step]:
        """Return the steps so far."""
        text = self.noted.read_text() if self.noted.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        found = (Step(**json.loads(line)) for line in whole.splitlines())
        return [step for step in found if step.runner == runner and what in ("", step.what)]

    def start_many(self, user: GalaxyUser, tool: str, dataset: str, count: int) -> None:
        """Start so many jobs, each with this one input, by few requests."""
        values = hda(dataset)["values"]
        for begin in range(0, count, 20):
            batch = {"batch": True, "values": values * min(20, count - begin)}
            user.start(tool, input=batch)

    def await_passes(self, count: int, watched: int, runner: str = OURS) -> Sequence[Step]:
        """Return so many more passes of the monitor loop, each with so many jobs to look at."""
        before = len(self.steps(runner))

        def passes() -> list[Step]:
            later = self.steps(runner)[before:]
            return [step for step in later if (step.what, step.jobs) == ("pass", watched)]

        wait_until(lambda: len(passes()) >= count, 600)
        return passes()


@contextmanager
def open_scene(
    directory: Path, access: S3Access, *, pykube: Path | None = None, **settings: Any
) -> Iterator[Scene]:
    """Start all of it; Galaxy's own runner only where `pykube` names a directory that has it."""
    with ExitStack() as stack:
        relay = stack.enter_context(relay_before(access.config.endpoint or ""))
        ours = stack.enter_context(FakeKube(directory / "ours"))
        keys = access.credentials
        ours.add_secret("s3", {"accesskey": keys.access_key, "secretkey": keys.secret_key})
        theirs = stack.enter_context(_shared_disk(directory / "theirs")) if pykube else None
        settings["job_config_file"] = str(_write_job_conf(directory, access, relay, ours, theirs))
        settings["tool_config_file"] = str(_write_tools(directory))
        (directory / "galaxy").mkdir()
        galaxy = GalaxyServer(directory / "galaxy", access, **settings)
        noted = directory / "steps.jsonl"
        path = os.pathsep.join(str(each) for each in (PLUGINS, pykube) if each)
        stack.callback(galaxy.stop)
        galaxy.start(PYTHONPATH=path, S3RUNNER_MEASURES=str(noted))
        yield Scene(galaxy, ours, theirs, relay, noted)


class _ScalingRoutes(Routes):
    """Takes the one change that Galaxy's runner makes of a Job: its parallelism."""

    def answer(self, request: Request) -> Answer:
        if (request.verb, request.resource) != ("patch", JOBS):
            return super().answer(request)
        self._rbac.check(request.access, request.name)
        with self._objects.changed:
            changed = with_changes(self._found(request), spec=json.loads(request.body)["spec"])
            return Answer(document=self._objects.put(JOBS, changed))


@contextmanager
def _shared_disk(directory: Path) -> Iterator[FakeKube]:
    """Give a cluster whose pods see this machine's disk, as if every volume were mounted."""
    forced = os.environ.get(_SANDBOX)
    os.environ[_SANDBOX] = "unshare"
    try:
        kube = FakeKube(directory)
    finally:
        os.environ.pop(_SANDBOX)
        if forced is not None:
            os.environ[_SANDBOX] = forced
    logs = directory / "logs"
    kube.server.routes = _ScalingRoutes(kube.objects, kube.clock, kube.rbac, kube.watching, logs)
    with kube:
        yield kube


def _write_tools(directory: Path) -> Path:
    tools = directory / "tools"
    tools.mkdir()
    names = ("ours", "theirs")
    for name in names:
        (tools / f"{name}.xml").write_text(_COUNTING.format(name=name))
        (tools / f"{name}_many.xml").write_text(_WAITING.format(name=name))
    items = "".join(f"<tool file='{path}'/>" for path in sorted(tools.glob("*.xml")))
    path = directory / "tool_conf.xml"
    path.write_text(f"<toolbox><section id='t' name='t'>{items}</section></toolbox>")
    return path


def _write_job_conf(
    directory: Path, access: S3Access, relay: Relay, ours: FakeKube, theirs: FakeKube | None
) -> Path:
    config = access.config
    plugins = {
        "ours": {
            "s3runner_bucket": config.bucket,
            "s3runner_prefix": config.prefix,
            "s3runner_endpoint": relay.address,
            "s3runner_pod_endpoint": str(config.endpoint),
            "s3runner_insecure_http": "true",
            "s3runner_credentials": "{secret: s3, access_key: accesskey, secret_key: secretkey}",
            "s3runner_worker_image": "s3runner-worker",
            "k8s_config_path": str(ours.kubeconfig()),
            "k8s_namespace": NAMESPACE,
        }
    }
    loads = {"ours": "galaxy_measured:MeasuredS3JobRunner"}
    if theirs is not None:
        loads["theirs"] = "galaxy_measured:MeasuredKubernetesJobRunner"
        plugins["theirs"] = {
            "k8s_config_path": str(theirs.kubeconfig()),
            "k8s_namespace": NAMESPACE,
        }
    own = {
        "docker_enabled": "true",
        "docker_default_container_id": "tool:1",
        "outputs_to_working_directory": "true",
    }
    path = directory / "job_conf.xml"
    path.write_text(
        "<job_conf><plugins workers='2'>"
        "<plugin id='local' type='runner' load='galaxy.jobs.runners.local:LocalJobRunner'/>"
        + "".join(
            f"<plugin id='{name}' type='runner' load='{loads[name]}'>{_params(given)}</plugin>"
            for name, given in plugins.items()
        )
        + "</plugins><destinations default='ours'><destination id='local' runner='local'/>"
        + "".join(
            f"<destination id='{name}' runner='{name}'>{_params(own)}</destination>"
            for name in plugins
        )
        + "</destinations><tools><tool class='local' destination='local'/>"
        "<tool class='requires_galaxy' destination='local'/>"
        + "".join(
            f"<tool id='{tool}' destination='{name}'/>"
            for name in plugins
            for tool in (name, f"{name}_many")
        )
        + "</tools></job_conf>"
    )
    return path


def _params(given: dict[str, str]) -> str:
    return "".join(f"<param id='{name}'>{value}</param>" for name, value in given.items())

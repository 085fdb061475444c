"""A real Galaxy of its own, from the package index, and a user who works with it over HTTP.

Galaxy lives in one directory with SQLite; its jobs run on the local cluster, whose pods see nothing
of that directory.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from conftest import S3Access
from galaxy_job_conf import ON_KUBERNETES, REMOTE, job_conf, write_settings
from kube_api.sites import Site
from service_rule import missing_service
from waiting import wait_until

TOOLS = Path(__file__).parent / "galaxy_tools"
_KEY = "bootstrap-key-of-the-tests"
ADMIN = "admin"
"""The name of the user who may upload files of the server's machine."""

_START_S = 900
_JOB_S = 900
"""Far beyond what a machine takes that has nothing else to do; each job costs it seconds."""

_LOOK_S = 0.3
"""From one question to the next: each takes time that Galaxy would do something else in."""

_OVER = ("ok", "error", "deleted", "paused", "failed")


def require_galaxy() -> None:
    """Let a test run only where Galaxy is installed: `make test-galaxy` installs it."""
    if importlib.util.find_spec("galaxy") is None:
        missing_service("galaxy", "it is not installed here; make test-galaxy does it")


class GalaxyServer:
    """A Galaxy that can be started, killed and started again; its directory stays.

    Its jobs run on the local cluster, through the bucket of `access`, with what `endpoints` says
    among the store's settings; where there is a `site`, tools whose ids begin with k_ run on
    Kubernetes. `more` is for galaxy.yml.
    """

    def __init__(
        self,
        directory: Path,
        access: S3Access,
        *,
        endpoints: Mapping[str, str] | None = None,
        site: Site | None = None,
        **more: Any,
    ) -> None:
        self.directory = directory
        self.access = access
        self.site = site
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._write_tools()
        self._write_tables()
        write_settings(directory, access, endpoints or {})
        (directory / "job_conf.xml").write_text(job_conf(site).as_xml())
        (directory / "job_conf.yml").write_text(job_conf(site).as_yaml())
        self._more = {"job_config_file": f"{directory}/job_conf.xml", **more}
        self.configure()

    @property
    def log(self) -> str:
        """What Galaxy has said so far."""
        return (self.directory / "galaxy.log").read_text(errors="replace")

    def start(self, **environment: str) -> None:
        """Start Galaxy and return when it answers."""
        command = [
            *(sys.executable, "-m", "uvicorn", "--factory"),
            "galaxy.webapps.galaxy.fast_factory:factory",
            *("--host", "127.0.0.1", "--port", str(self.port), "--log-level", "warning"),
        ]
        with (self.directory / "galaxy.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.directory / "run",
                env={**self._environment, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, _START_S, every_s=_LOOK_S)

    def stop(self) -> None:
        """End Galaxy as an administrator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End Galaxy as a power failure would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(timeout=_JOB_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"Galaxy has ended: {self.log[-3000:]}"
        try:
            self.call("GET", "/api/version")
        except OSError:
            return False
        return True

    def call(self, method: str, path: str, body: Any = None, key: str = _KEY) -> Any:
        """Ask Galaxy something; raises urllib's errors."""
        request = urllib.request.Request(  # our own server
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"x-api-key": key, "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_JOB_S) as answer:  # noqa: S310 # our own server
            return json.loads(answer.read() or b"null")

    def user(self, name: str) -> GalaxyUser:
        """Make a user."""
        named = {"username": name, "email": f"{name}@example.org", "password": "long-enough-1"}
        made = self.call("POST", "/api/users", named)
        return GalaxyUser(self, self.call("POST", f"/api/users/{made['id']}/api_key"))

    @property
    def _environment(self) -> dict[str, str]:
        home = self.directory / "home"
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "GALAXY_CONFIG_FILE": str(self.directory / "galaxy.yml"),
            "S3RUNNER_STATE_DIR": str(self.directory / "state"),
            # a telemetry plugin that Galaxy's packages bring makes each start of Galaxy's code a
            # third slower, and setting a job's metadata is one
            "PYDANTIC_DISABLE_PLUGINS": "__all__",
            **(self.site.access if self.site else self.access).environment,
        }

    def _write_tools(self) -> None:
        here = self.directory
        shutil.copytree(TOOLS, here / "tools")
        if self.site is not None:
            for name in ON_KUBERNETES:
                self._write_contained(name, name)
            self._write_contained("hold", "fragile")
        tools = sorted(path.name for path in (here / "tools").glob("*.xml"))
        (here / "tool_conf.xml").write_text(
            "<toolbox><section id='t' name='t'>"
            + "".join(f"<tool file='{here}/tools/{name}'/>" for name in tools)
            + "</section></toolbox>"
        )

    def _write_contained(self, name: str, new: str) -> None:
        """Write a tool once more, as one that needs a container and has another id."""
        assert self.site is not None
        text = (TOOLS / f"{name}.xml").read_text()
        first, rest = text.split("\n", 1)
        image = f'<container type="docker">{self.site.tool_image}</container>'
        contained = f"{first}\n  <requirements>{image}</requirements>\n{rest}"
        path = self.directory / "tools" / f"k_{new}.xml"
        path.write_text(contained.replace(f'id="t_{name}"', f'id="k_{new}"'))

    def _write_tables(self) -> None:
        here = self.directory
        for name in ("run", "home", "config", "data", "tool-data", "indexes"):
            (here / name).mkdir()
        (here / "indexes" / "hg.1.ebwt").write_text("index one\n")
        (here / "indexes" / "hg.2.ebwt").write_text("index two\n")
        (here / "indexes" / "other.1.ebwt").write_text("of another genome\n")
        (here / "tool-data" / "genomes.loc").write_text(
            f"hg\thg\tHuman\t{here}/indexes/hg\nmm\tmm\tMouse\t/{REMOTE}/mm\n"
        )
        store = self.access.open()
        for name, content in {"mm.1.ebwt": b"far one\n", "mm.2.ebwt": b"far two\n"}.items():
            store.put_if_absent(f"{REMOTE}/{name}", content)
        (here / "tables.xml").write_text(
            "<tables><table name='genomes' comment_char='#'>"
            "<columns>value, dbkey, name, path</columns>"
            f"<file path='{here}/tool-data/genomes.loc'/></table></tables>"
        )

    def configure(self, **settings: Any) -> None:
        """Say what galaxy.yml says from the next start on."""
        here = self.directory
        self._more |= settings
        found = {
            "config_dir": f"{here}/config",
            "data_dir": f"{here}/data",
            "database_connection": f"sqlite:///{here}/universe.sqlite?isolation_level=IMMEDIATE",
            "tool_config_file": f"{here}/tool_conf.xml",
            "tool_data_table_config_path": f"{here}/tables.xml",
            "tool_data_path": f"{here}/tool-data",
            "bootstrap_admin_api_key": _KEY,
            "admin_users": f"{ADMIN}@example.org",
            "id_secret": "the tests' own",
            "galaxy_infrastructure_url": f"http://127.0.0.1:{self.port}",
            "conda_auto_init": False,
            "involucro_auto_init": False,
            "enable_celery_tasks": False,
            "watch_tools": "false",
            "job_runner_monitor_sleep": 0.5,
            "job_handler_monitor_sleep": 0.5,
            "cleanup_job": "never",
            "calculate_dataset_hash": "never",
            "allow_path_paste": True,
            **self._more,
        }
        (here / "galaxy.yml").write_text(yaml.safe_dump({"galaxy": found}))


class GalaxyUser:
    """Somebody with a history who uploads files and runs tools."""

    def __init__(self, server: GalaxyServer, key: str) -> None:
        self._server = server
        self._key = key
        self.history = self._call("POST", "/api/histories", {"name": "h"})["id"]

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        return self._server.call(method, path, body, self._key)

    def fetch(self, *items: Mapping[str, Any]) -> list[str]:
        """Upload `pasted` or `local` things together; return the datasets' ids."""
        target = {"destination": {"type": "hdas"}, "items": [*items]}
        body = {"history_id": self.history, "targets": [target]}
        made = self._call("POST", "/api/tools/fetch", body)
        self.wait(made["jobs"][0]["id"])
        return [str(each["id"]) for each in made["outputs"]]

    def start(self, tool: str, /, **inputs: Any) -> dict[str, Any]:
        """Run a tool; return what Galaxy says of its job and its outputs."""
        body = {"history_id": self.history, "tool_id": tool, "inputs": inputs}
        made: dict[str, Any] = self._call("POST", "/api/tools", body)
        return made

    def run(self, tool: str, /, **inputs: Any) -> Ran:
        """Run a tool to its end."""
        made = self.start(tool, **inputs)
        return Ran(self, made, self.wait(made["jobs"][0]["id"]))

    def wait(self, job: str, *states: str) -> dict[str, Any]:
        """Return a job's description once it is over, or in one of these states."""
        wait_until(lambda: self.job(job)["state"] in (*_OVER, *states), _JOB_S, every_s=_LOOK_S)
        return self.job(job)

    def job(self, job: str) -> dict[str, Any]:
        """Return what Galaxy says of a job."""
        found: dict[str, Any] = self._call("GET", f"/api/jobs/{job}?full=true")
        return found

    def cancel(self, job: str) -> None:
        """Delete a job."""
        self._call("DELETE", f"/api/jobs/{job}")

    def dataset(self, dataset: str) -> dict[str, Any]:
        """Return what Galaxy says of a dataset."""
        path = f"/api/histories/{self.history}/contents/{dataset}"
        found: dict[str, Any] = self._call("GET", path)
        return found

    def datasets(self) -> list[dict[str, Any]]:
        """Return all datasets of the history."""
        path = f"/api/histories/{self.history}/contents?v=dev&view=detailed"
        found: list[dict[str, Any]] = self._call("GET", path)
        return found

    def collect(self, *datasets: str) -> str:
        """Make a list of datasets; return the collection's id."""
        elements = [
            {"src": "hda", "id": each, "name": f"e{number}"} for number, each in enumerate(datasets)
        ]
        body = {
            "history_id": self.history,
            "collection_type": "list",
            "name": "l",
            "element_identifiers": elements,
        }
        return str(self._call("POST", "/api/dataset_collections", body)["id"])

    def collection(self, collection: str) -> dict[str, Any]:
        """Return what Galaxy says of a collection."""
        path = f"/api/histories/{self.history}/contents/dataset_collections/{collection}"
        found: dict[str, Any] = self._call("GET", path)
        return found

    def text(self, dataset: str) -> str:
        """Return a dataset's content."""
        return self.path(dataset).read_text()

    def path(self, dataset: str) -> Path:
        """Return where Galaxy keeps a dataset."""
        found = self._server.call("GET", f"/api/datasets/{dataset}?view=detailed")
        return Path(found["file_name"])


class Ran:
    """A tool's run that is over."""

    def __init__(self, user: GalaxyUser, made: Mapping[str, Any], job: Mapping[str, Any]) -> None:
        self._user = user
        self.made = made
        self.job = job

    @property
    def state(self) -> str:
        """How Galaxy says that it ended."""
        return str(self.job["state"])

    def __getitem__(self, name: str) -> str:
        """Return the id of an output by its name in the tool."""
        return next(str(o["id"]) for o in self.made["outputs"] if o["output_name"] == name)

    def text(self, name: str) -> str:
        """Return an output's content."""
        return self._user.text(self[name])


def pasted(content: str, name: str = "pasted") -> dict[str, Any]:
    """Return a text as something to upload."""
    return {"src": "pasted", "paste_content": content, "name": name, "ext": "txt"}


def local(path: Path, ext: str) -> dict[str, Any]:
    """Return a file of the server's machine as something that an administrator may upload."""
    return {"src": "url", "url": f"file://{path}", "ext": ext, "name": path.name}


def hda(dataset: str) -> dict[str, Any]:
    """Return a dataset as a tool's input."""
    return {"values": [{"src": "hda", "id": dataset}]}


def hdas(datasets: Sequence[str]) -> dict[str, Any]:
    """Return several datasets as one input."""
    return {"values": [{"src": "hda", "id": each} for each in datasets]}


def hdca(collection: str) -> dict[str, Any]:
    """Return a collection as a tool's input."""
    return {"values": [{"src": "hdca", "id": collection}]}


def served(server: GalaxyServer) -> Iterator[GalaxyServer]:
    """Start a server for as long as a fixture lasts."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


Started = Callable[..., GalaxyServer]

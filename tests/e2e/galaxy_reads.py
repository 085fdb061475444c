"""What Galaxy's own code makes of the files in conf/, as JSON: run by Galaxy's interpreter.

A program of its own, because importing Galaxy takes seconds and leaves threads behind. Its argument
is a JSON list of readings, each a list of words; its last line the list of what they found.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any


def destinations_of_xml(path: str) -> Mapping[str, Any]:
    """Return runners' and destinations' parameters of a job_conf.xml."""
    from galaxy.jobs import job_config_xml_to_dict  # noqa: PLC0415
    from galaxy.util.xml_macros import load  # noqa: PLC0415

    config = SimpleNamespace(config_dict={}, server_name="main")
    found = job_config_xml_to_dict(config, load(path).getroot())
    return {
        "runners": {name: each["kwds"] for name, each in found["runners"].items()},
        "destinations": {each["id"]: each["params"] for each in found["execution"]["environments"]},
    }


def destination_of_tpv(path: str, tool_id: str) -> Mapping[str, Any]:
    """Return where Total Perspective Vortex sends a tool's job."""
    from galaxy.jobs import JobDestination  # noqa: PLC0415
    from tpv.rules.gateway import map_tool_to_destination  # noqa: PLC0415

    app = SimpleNamespace(config=SimpleNamespace(watch_job_rules="false"))
    job = SimpleNamespace(input_datasets=[], parameters=[], get_param_values=lambda _app: {})
    tool = SimpleNamespace(id=tool_id, version="1", dynamic_tool=None, tool_type="default")
    found = map_tool_to_destination(
        app, job, tool, None, JobDestination(id="tpv"), tpv_config_files=[path]
    )
    return {"id": found.id, "runner": found.runner, "params": found.params}


def accepted(_path: str) -> Mapping[str, Any]:
    """Return what Galaxy's check of a plugin's parameters hands on."""
    from galaxy.jobs.runners import RunnerParams  # noqa: PLC0415

    from s3runner.galaxy.params import runner_param_specs  # noqa: PLC0415

    params = {"k8s_use_service_account": "false", "s3runner_spot": {"max_evictions": 1}}
    found = RunnerParams(specs=runner_param_specs(), params=params)
    return {"said": dict(found), "unsaid": found["k8s_namespace"]}


if __name__ == "__main__":
    reading: dict[str, Callable[..., Any]] = {
        "xml": destinations_of_xml,
        "tpv": destination_of_tpv,
        "params": accepted,
    }
    found = [reading[what](*words) for what, *words in json.loads(sys.argv[1])]
    print(json.dumps(found))  # noqa: T201  # its answer

"""Our reading of Galaxy's configuration against Galaxy's own code, and that of TPV."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from galaxy_server import require_galaxy
from service_rule import missing_service

from s3runner.galaxy.job_conf import load_job_conf
from s3runner.galaxy.param_table import KUBERNETES
from s3runner.galaxy.params import destination_of
from s3runner.model import Quantity

CONF = Path(__file__).parents[2] / "conf"
RUNNER = {"s3runner_bucket": "bkt", "s3runner_credentials": "{secret: s3}"}
TPV_TOOLS = ("cat1", "bwa_mem", "deepvariant")
OTHERS = {"docker_enabled", "require_container"}
"""Of Galaxy's container resolution."""


@pytest.fixture(autouse=True)
def _galaxy() -> None:
    require_galaxy()


@pytest.fixture(scope="session")
def galaxy_reads() -> Callable[..., Any]:
    """What Galaxy's own code finds, read by one process for all tests."""
    require_galaxy()
    readings = [["xml", str(CONF / "job_conf.xml")], ["params", ""]]
    if importlib.util.find_spec("tpv") is not None:
        readings += [["tpv", str(CONF / "tpv.yml"), tool] for tool in TPV_TOOLS]
    program = Path(__file__).parent / "galaxy_reads.py"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", program, json.dumps(readings)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout.splitlines()[-1])
    found = {tuple(words): each for words, each in zip(readings, answers, strict=True)}
    return lambda *words: found[words]


def tree_of_galaxys_runner() -> ast.Module:
    found = importlib.util.find_spec("galaxy")
    assert found is not None
    assert found.submodule_search_locations is not None
    for place in found.submodule_search_locations:
        path = Path(place) / "jobs" / "runners" / "kubernetes.py"
        if path.exists():
            return ast.parse(path.read_text())
    raise AssertionError("Galaxy has no Kubernetes runner")


def params_in(tree: ast.Module) -> Iterator[str]:
    """Yield what Galaxy's runner declares, and what it looks for in a destination's params."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            names = [each.id for each in node.targets if isinstance(each, ast.Name)]
            if names == ["runner_param_specs"]:
                yield from (str(each.arg) for each in node.value.keywords)
        if isinstance(node, ast.Compare):
            yield from _looked_for(node.left, node.comparators[0])
        if isinstance(node, ast.Subscript):
            yield from _looked_for(node.slice, node.value)


def _looked_for(word: ast.expr, place: ast.expr) -> Iterator[str]:
    where = ast.unparse(place)
    if isinstance(word, ast.Constant) and where.endswith("job_destination.params"):
        yield str(word.value)


def test_every_parameter_of_galaxys_own_runner_is_taken_or_refused() -> None:
    found = set(params_in(tree_of_galaxys_runner())) - OTHERS
    assert {"k8s_namespace", "requests_cpu", "max_pod_retries"} <= found
    assert found == {*KUBERNETES.taken, *KUBERNETES.refused}


def test_galaxy_reads_the_same_parameters_out_of_xml(galaxy_reads: Callable[..., Any]) -> None:
    found = galaxy_reads("xml", str(CONF / "job_conf.xml"))
    for each in load_job_conf(CONF / "job_conf.xml", {}).destinations:
        assert found["runners"][each.runner] == each.runner_params
        theirs = dict(found["destinations"][each.name])
        assert theirs.pop("docker_sudo") == "true"
        assert theirs == each.params


def test_galaxys_own_check_of_a_plugin_lets_our_parameters_pass(
    galaxy_reads: Callable[..., Any],
) -> None:
    said = {"k8s_use_service_account": "false", "s3runner_spot": {"max_evictions": 1}}
    assert galaxy_reads("params", "") == {"said": said, "unsaid": None}


@pytest.mark.parametrize(
    ("tool", "destination", "cores", "memory", "gpu"),
    [
        ("cat1", "s3_spot", "1", 4, 0),
        ("bwa_mem", "s3_spot", "8", 32, 0),
        ("deepvariant", "s3_gpu", "4", 16, 1),
    ],
)
def test_what_tpv_computes_is_understood(
    galaxy_reads: Callable[..., Any],
    tool: str,
    destination: str,
    cores: str,
    memory: int,
    gpu: int,
) -> None:
    if importlib.util.find_spec("tpv") is None:
        missing_service("total-perspective-vortex", "not installed")
    found = galaxy_reads("tpv", str(CONF / "tpv.yml"), tool)
    assert (found["id"], found["runner"]) == (destination, "s3")

    meant = destination_of(RUNNER, found["params"], {}, name=found["id"]).destination
    bytes_ = str(memory * 1024**3)
    assert meant.resources.cpu == Quantity(cores, None)
    assert meant.resources.memory == Quantity(bytes_, bytes_)
    assert meant.resources.gpu == gpu
    assert meant.kubernetes is not None
    assert len(meant.kubernetes.then) == (0 if gpu else 1)
    assert bool(meant.kubernetes.pod.labels) == bool(gpu)

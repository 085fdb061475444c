from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import samples
import yaml

from s3runner.cluster.job_object import declared_roots, job_object, literal, roots
from s3runner.errors import SettingsError
from s3runner.model import Destination, Output, StoreConfig
from s3runner.runner.decide import first_generation
from s3runner.staging.records import Generation, Spec

GOLDEN = Path(__file__).parent.parent / "golden"

SPECS: dict[str, Spec] = {
    "job": samples.spec(),
    "job-with-roots": samples.spec(
        outputs=(Output("/data/run1/out.txt"),), roots=("/data/run1", "/refs")
    ),
    "job-gpu": samples.spec(
        resources=dataclasses.replace(samples.spec().resources, gpu=2),
        destination=Destination(grace_s=100, max_evictions=5),
    ),
}


def render(spec: Spec) -> dict[str, Any]:
    return job_object(spec, first(spec), samples.STORE)


def first(spec: Spec) -> Generation:
    return first_generation(spec, "sha256:" + "0" * 64, f"{spec.job_id}-g1")


@pytest.mark.parametrize("name", SPECS)
def test_the_job_object_is_the_golden_one(name: str) -> None:
    text = yaml.safe_dump(render(SPECS[name]), sort_keys=False, width=100)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("S3RUNNER_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", SPECS)
def test_the_official_models_keep_every_field(name: str) -> None:
    client: Any = kubernetes.client.ApiClient()
    # the public method takes a response object whose shape differs between the client's versions
    model = client._ApiClient__deserialize(render(SPECS[name]), "V1Job")
    assert client.sanitize_for_serialization(model) == render(SPECS[name])


def test_no_secret_has_a_place_in_the_job_object() -> None:
    text = yaml.safe_dump(render(SPECS["job"]))
    assert "AWS_" not in text
    assert "secret" not in text.lower()


def test_only_s3runners_own_words_are_commands() -> None:
    pod = render(samples.spec(command="echo $(HOSTNAME); rm -rf /"))["spec"]["template"]["spec"]
    words = [c["command"] for c in (*pod["initContainers"], *pod["containers"])]
    assert words == [
        ["execute_job.py", "fetch"],
        ["/bin/sh", "/s3runner/control/tool_shim.sh"],
        ["execute_job.py", "stager"],
    ]


def test_a_dollar_survives_kubernetes_expansion() -> None:
    assert literal("$(HOME) $$ $x") == "$$(HOME) $$$$ $$x"
    env = render(samples.spec())["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "PRICE", "value": "$$(5) $$HOME"} in env


def test_the_tool_is_told_whole_cores_and_mebibytes() -> None:
    env = render(samples.spec())["spec"]["template"]["spec"]["containers"][0]["env"]
    values = {item["name"]: item["value"] for item in env}
    assert values["CPUS"] == "2"
    assert values["MEMORY_MB"] == "8192"
    assert values["S3RUNNER_REF_HG38"] == "/s3runner/references/hg38"


def test_a_variable_of_ours_cannot_be_overwritten() -> None:
    with pytest.raises(SettingsError, match="CPUS is set by s3runner"):
        render(samples.spec(env={"CPUS": "64"}))


def test_a_ca_bundle_that_a_pod_cannot_carry_is_refused() -> None:
    store = StoreConfig(bucket="runs", ca_pem="x" * 65_537)
    with pytest.raises(SettingsError, match="CA bundle has 65537 bytes"):
        job_object(samples.spec(), first(samples.spec()), store)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        pytest.param(["in.bam"], (), id="relative paths need no root"),
        pytest.param(["/data/a/x", "/data/b/y"], ("/data/a", "/data/b"), id="one each"),
        pytest.param(["/data/x", "/data/b/y"], ("/data",), id="an inner one is covered"),
        pytest.param(["/data/ab/x", "/data/a/x"], ("/data/a", "/data/ab"), id="no common name"),
    ],
)
def test_roots_are_the_outermost_parents(paths: list[str], expected: tuple[str, ...]) -> None:
    assert roots(paths) == expected


@pytest.mark.parametrize(
    "path", ["/x", "/usr/share/x", "/etc/x", "/lib64/x", "/proc/1/x", "/opt/x", "/s3runner/work/x"]
)
def test_a_root_that_hides_the_image_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="hide the image's own files"):
        roots([path])


def test_references_in_their_own_place_need_no_root() -> None:
    assert declared_roots(samples.spec(), ["/data/in/x"]) == ("/data/in",)

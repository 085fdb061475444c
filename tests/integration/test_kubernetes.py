"""The command against a Kubernetes API: from a settings file to results, keys in a Secret only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from conftest import S3Access
from kube_api import FakeKube
from kube_desk import KubeDesk

from s3runner.store.retrying import read

GREET: dict[str, Any] = {
    "name": "greet",
    "image": "tool:1",
    "command": "cat in.txt > out.txt; env > seen.txt; echo ${TOKEN:-none} >> out.txt",
    "outputs": ["out.txt", "seen.txt"],
}


def desk_of(kube: FakeKube, directory: Path, access: S3Access, **destination: Any) -> KubeDesk:
    """Return a desk at the cluster, which has another Secret besides the one with the keys."""
    kube.add_secret("licence", {"token": "t0ken"})
    return KubeDesk(kube, directory / "desk", access, **destination)


def test_a_job_runs_on_kubernetes_and_its_results_come_back(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    """The tool sees none of the store's keys, and the Job goes when its outcome stands."""
    licence = {"TOKEN": {"secret": "licence", "key": "token"}}
    labels = {"kueue.x-k8s.io/queue-name": "lab"}
    desk = desk_of(kube, tmp_path, moto_access, secret_env=licence, labels=labels)
    ran = desk.run_job(**GREET, inputs={"in.txt": "in.txt"})

    assert ran.code == 0, ran.stderr
    assert ran.json["outcome"] == "succeeded"
    assert (desk.directory / "greet" / "out.txt").read_text() == "hello\nt0ken\n"
    seen = (desk.directory / "greet" / "seen.txt").read_text()
    assert "AWS_" not in seen
    assert moto_access.credentials.secret_key not in seen
    (key,) = desk.keys("spec.json")
    spec = json.loads(read(desk.store, key))
    # the floor, and three blocks for six bytes
    assert spec["resources"]["disk"] == {"request": "1025Mi", "limit": "1025Mi"}
    assert "t0ken" not in json.dumps(spec)


def test_the_plan_is_the_object_that_the_cluster_gets(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    desk = desk_of(kube, tmp_path, moto_access, tool_user="image", disk_floor="2Gi")
    (desk.directory / "in.txt").write_bytes(b"x" * 5_000_000)
    ran = desk.run("plan", desk.write_job(**GREET, inputs={"in.txt": "in.txt"}))

    assert ran.code == 0, ran.stderr
    job = yaml.safe_load(ran.stdout)
    pod = job["spec"]["template"]["spec"]
    # three times the input's blocks, and the floor
    assert pod["containers"][0]["resources"]["limits"]["ephemeral-storage"] == "2063Mi"
    assert pod["volumes"][1] == {"name": "work", "emptyDir": {"sizeLimit": "2063Mi"}}
    assert "fetch and stager run as root" in ran.stderr
    assert kube.pods() == []


def test_what_the_cluster_would_refuse_is_refused_before_anything_goes_up(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    """Field names in Kubernetes' own objects are checked by the API server itself."""
    desk = desk_of(kube, tmp_path, moto_access, tolerations=[{"kye": "spot", "operator": "Exists"}])
    ran = desk.run_job(**GREET, inputs={"in.txt": "in.txt"})

    assert ran.code == 3, ran.stderr
    assert 'unknown field "spec.template.spec.tolerations[0].kye"' in ran.stderr
    assert desk.keys("blobs/") == []


def test_what_a_job_adds_runs_between_its_inputs_and_its_tool(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    desk = desk_of(kube, tmp_path, moto_access)
    make = ["sh", "-c", "mkdir -p made/deep; cat in.txt > made/deep/copy; env > made/env"]
    container = {"name": "mkdirs", "image": "busybox:1", "command": make}
    added = {"init_containers": [container], "scratch": [{"path": "/fast"}]}
    ran = desk.run_job(
        name="made",
        image="tool:1",
        command="cp made/deep/copy /fast/x; cat /fast/x > out.txt",
        inputs={"in.txt": "in.txt"},
        outputs=["out.txt", "made"],
        pod=added,
    )

    assert ran.code == 0, ran.stderr
    assert (desk.directory / "made" / "out.txt").read_text() == "hello\n"
    assert "AWS_" not in (desk.directory / "made" / "made" / "env").read_text()


def test_a_job_without_an_image_is_refused(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    desk = desk_of(kube, tmp_path, moto_access)
    ran = desk.run_job(name="bare", command="true")

    assert ran.code == 2
    assert "a job on Kubernetes needs an image" in ran.stderr


def test_a_container_beside_the_tool_decides_nothing(
    kube: FakeKube, tmp_path: Path, moto_access: S3Access
) -> None:
    """One fails, one would never end: the outcome is the tool's, and the Job is removed."""
    fails = {"name": "fails", "image": "x:1", "command": ["sh", "-c", "exit 3"]}
    stays = {"name": "stays", "image": "x:1", "command": ["sleep", "600"]}
    desk = desk_of(kube, tmp_path, moto_access, containers=[fails, stays], grace="1s")
    ran = desk.run_job(**GREET, inputs={"in.txt": "in.txt"})

    assert ran.code == 0, ran.stderr
    assert ran.json["attempts"] == 1
    kube.await_state(lambda: not kube.jobs())

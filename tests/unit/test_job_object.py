from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import samples
import yaml
from golden_jobs import LOCAL, first, read_case, render
from kube_api.job_checks import job_causes

from s3runner.cluster.job_object import job_object, pod_caveats
from s3runner.cluster.local.disk import DiskLimits, Limit, disk_limits
from s3runner.cluster.pod_paths import declared_roots, roots
from s3runner.cluster.pod_resources import automatic_disk, resources_of
from s3runner.cluster.pod_spec import literal
from s3runner.errors import SettingsError
from s3runner.model import Destination, Quantity, Resources, StoreConfig
from s3runner.pod_model import Directory, PodParts, PodShape, SecretKey, Volume


def test_no_secret_has_a_place_in_the_job_object() -> None:
    text = yaml.safe_dump(render(LOCAL["job"]))
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


def test_a_job_is_found_by_its_destination() -> None:
    made = render(samples.spec(destination=Destination("spot.big")))
    assert made["metadata"]["labels"]["s3runner/destination"] == "spot.big"


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


def test_a_root_above_paths_stands_for_all_their_parents() -> None:
    """Each of many datasets has a directory of its own: one mount for all of them is enough."""
    paths = ["/data/objects/a/b/x", "/data/objects/c/d/y", "/jobs/1/outputs/z", "/index/hg"]

    found = roots(paths, above=("/data/objects", "/jobs/1", "/unused"))

    assert found == ("/data/objects", "/index", "/jobs/1")


@pytest.mark.parametrize(
    "path", ["/x", "/usr/share/x", "/etc/x", "/lib64/x", "/proc/1/x", "/opt/x", "/s3runner/work/x"]
)
def test_a_root_that_hides_the_image_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="hide the image's own files"):
        roots([path])


def test_references_in_their_own_place_need_no_root() -> None:
    assert declared_roots(samples.spec(), ["/data/in/x"]) == ("/data/in",)


def test_the_tools_container_carries_the_disk_limit_and_so_the_pod_does() -> None:
    disk = Quantity("1Gi", "2Gi")
    pod = render(samples.spec(resources=Resources(disk=disk)))["spec"]["template"]["spec"]
    tool = pod["containers"][0]["resources"]
    assert tool["requests"]["ephemeral-storage"] == "1Gi"
    assert tool["limits"]["ephemeral-storage"] == "2Gi"
    assert disk_limits(pod) == DiskLimits(
        {}, Limit(2 * 1024**3, "2Gi"), frozenset({"control", "work"})
    )
    assert disk_limits(render(samples.spec())["spec"]["template"]["spec"]) is None


def of_case(name: str, **changes: Any) -> dict[str, Any]:
    """Return the pod of a case whose spec was changed."""
    spec, store = read_case(name)
    made: dict[str, Any] = render(dataclasses.replace(spec, **changes), store)
    found: dict[str, Any] = made["spec"]["template"]["spec"]
    return found


def test_a_job_without_an_image_is_refused_on_kubernetes() -> None:
    with pytest.raises(SettingsError, match="a job on Kubernetes needs an image"):
        of_case("secret", image=None)


def test_what_a_job_adds_to_its_pod_is_refused_on_this_machine() -> None:
    with pytest.raises(SettingsError, match="pod: is for Kubernetes; this one is local"):
        render(samples.spec(pod=PodParts(scratch=(Directory("/fast"),))))


def volume(name: str = "v", mount: str = "/mnt/v", **more: Any) -> Volume:
    return Volume(name, {"persistentVolumeClaim": {"claimName": "c"}}, mount, **more)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"containers": ({"name": "stager", "image": "x"},)}, "stager is s3runner's own"),
        (
            {
                "containers": ({"name": "x", "image": "x"},),
                "sidecars": ({"name": "x", "image": "x"},),
            },
            "x is not the only one",
        ),
        ({"volumes": (volume("work"),)}, "the name work is s3runner's own"),
        (
            {"volumes": (volume(), Volume("v", {"secret": {"secretName": "s"}}, "/mnt/w"))},
            "two different ones named v",
        ),
        ({"volumes": (volume(mount="/data"),)}, "/data/run1 would hide each other"),
        ({"volumes": (volume(mount="/data/run1/x"),)}, "/data/run1 would hide each other"),
        ({"scratch": (Directory("/data/run1"),)}, "/data/run1 would hide each other"),
        ({"volumes": (volume(containers=("git",)),)}, "mounted in git, which is no container"),
        ({"volumes": (volume(containers=("stager",)),)}, "which is no container"),
        ({"secret_env": {"CPUS": SecretKey("s", "k")}}, "CPUS is set by s3runner itself"),
        ({"secret_env": {"LANG": SecretKey("s", "k")}}, "LANG is set by s3runner itself, or twice"),
    ],
)
def test_parts_that_cannot_be_together_are_refused(parts: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        of_case("secret", pod=PodParts(**parts), roots=("/data/run1",), env={"LANG": "C"})


def test_one_volume_may_be_mounted_in_two_places() -> None:
    pod = of_case("secret", pod=PodParts(volumes=(volume(), volume(mount="/mnt/w"))))
    assert [each["name"] for each in pod["volumes"]] == ["control", "work", "v"]


def test_a_jobs_parts_come_after_its_destinations() -> None:
    added = PodParts(init_containers=({"name": "second", "image": "x"},))
    pod = of_case("init-containers", pod=added)
    assert [each["name"] for each in pod["initContainers"]] == ["fetch", "mkdirs", "second"]


def test_fetch_has_a_limit_only_where_every_main_container_has_one() -> None:
    limited, open_ = of_case("resources"), of_case("secret")
    assert limited["initContainers"][0]["resources"]["limits"] == {
        "cpu": "5",
        "memory": "8704Mi",
        "ephemeral-storage": "51300Mi",
    }
    assert "limits" not in open_["initContainers"][0]["resources"]


def test_fetch_may_fill_the_memory_that_the_tool_was_given_for_the_pods_directories() -> None:
    pod = of_case("memory")
    fetch, tool = pod["initContainers"][0], pod["containers"][0]
    env = {item["name"]: item.get("value") for item in tool["env"]}
    # 8 GiB of the tool, 4 and 2 of the directories, half of stager
    assert fetch["resources"]["limits"]["memory"] == "14848Mi"
    assert tool["resources"]["limits"]["memory"] == "14336Mi"
    assert env["MEMORY_MB"] == "8192"


def test_a_gpu_is_the_tools_alone() -> None:
    pod = of_case("gpu")
    having = [
        each["name"]
        for each in (*pod["initContainers"], *pod["containers"])
        if "nvidia.com/gpu" in str(each["resources"])
    ]
    assert having == ["tool"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}


def test_a_job_without_a_gpu_is_not_sent_to_one() -> None:
    assert "nodeSelector" not in of_case("gpu", resources=Resources())


@pytest.mark.parametrize(
    ("sizes", "shape", "parts", "factor", "expected"),
    [
        pytest.param((), PodShape(), PodParts(), None, "1024Mi", id="the floor"),
        pytest.param((1,) * 256, PodShape(), PodParts(), None, "1027Mi", id="whole blocks"),
        pytest.param((2**30,), PodShape(), PodParts(), None, "4096Mi", id="three times"),
        pytest.param((2**30,), PodShape(), PodParts(), 1.5, "2560Mi", id="the job's own factor"),
        pytest.param((2**30 + 1,), PodShape(disk_floor="1Mi"), PodParts(), 1, "1026Mi", id="up"),
        pytest.param(
            (2**30,),
            PodShape(work_volume=Directory("", "Memory", "4Gi")),
            PodParts(),
            None,
            "1024Mi",
            id="inputs in memory take no disk",
        ),
        pytest.param(
            (),
            PodShape(),
            PodParts(scratch=(Directory("/a", "", "2Gi"), Directory("/b", "Memory", "4Gi"))),
            None,
            "3072Mi",
            id="scratch on disk",
        ),
        pytest.param(
            (),
            PodShape(),
            PodParts(volumes=(Volume("v", {"emptyDir": {"sizeLimit": "1Gi"}}, "/v"),)),
            None,
            "2048Mi",
            id="a directory for containers to share",
        ),
    ],
)
def test_the_automatic_disk_is_made_of_what_lies_on_it(
    sizes: tuple[int, ...],
    shape: PodShape,
    parts: PodParts,
    factor: float | None,
    expected: str,
) -> None:
    assert automatic_disk(sizes, shape, parts, factor) == Quantity(expected, expected)


def test_what_a_job_asks_for_goes_before_its_destinations_resources() -> None:
    default = Resources(Quantity("1", "2"), Quantity("1Gi"), Quantity("5Gi"), 1)
    job = Resources(memory=Quantity(None, "8Gi"))
    assert resources_of(job, default) == Resources(
        Quantity("1", "2"), Quantity(None, "8Gi"), Quantity("5Gi"), 1
    )


def test_the_net_around_a_job_is_no_larger_than_kubernetes_takes() -> None:
    where = Destination(max_evictions=100)
    job = render(samples.spec(destination=where, walltime_s=365 * 86400.0))
    assert job["spec"]["activeDeadlineSeconds"] == 2**31 - 1


def test_the_user_is_told_who_the_containers_are() -> None:
    (told,) = pod_caveats(read_case("tool-user")[0])
    assert "fetch and stager run as root" in told
    assert pod_caveats(read_case("secret")[0]) == []
    assert pod_caveats(samples.spec()) == []


def test_root_has_to_be_asked_for() -> None:
    spec, _ = read_case("user")
    place = spec.destination.kubernetes
    assert place is not None
    shape = dataclasses.replace(place.pod, run_as_user=0)
    where = dataclasses.replace(spec.destination, kubernetes=dataclasses.replace(place, pod=shape))
    context = of_case("user", destination=where)["securityContext"]
    assert context["runAsUser"] == 0
    assert "runAsNonRoot" not in context


def test_a_job_id_that_is_no_label_is_one_in_the_object() -> None:
    spec, store = read_case("secret")
    job = render(dataclasses.replace(spec, job_id="Galaxy_42."), store)
    assert [*job_causes({**job, "metadata": {**job["metadata"], "name": "x"}})] == []

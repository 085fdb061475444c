"""Strategic merge patches of pod templates: what kubectl does, and what s3runner does not allow."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import samples

from s3runner.cluster.job_object import job_object
from s3runner.cluster.merge import merge
from s3runner.cluster.pod_patch import patched
from s3runner.errors import SettingsError
from s3runner.runner.decide import first_generation

POD: dict[str, Any] = {
    "dnsPolicy": "Default",
    "nodeSelector": {"a": "1", "b": "2"},
    "tolerations": [{"key": "x"}],
    "containers": [
        {"name": "tool", "env": [{"name": "A", "value": "1"}], "args": ["x", "y"]},
        {"name": "other"},
    ],
    "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}],
}


@pytest.mark.parametrize(
    ("patch", "path", "expected"),
    [
        pytest.param({}, (), POD, id="nothing"),
        pytest.param({"hostname": "h"}, ("hostname",), "h", id="a new field"),
        pytest.param({"dnsPolicy": "None"}, ("dnsPolicy",), "None", id="a field"),
        pytest.param({"dnsPolicy": None}, ("dnsPolicy",), None, id="null deletes"),
        pytest.param(
            {"nodeSelector": {"a": None, "c": "3"}},
            ("nodeSelector",),
            {"b": "2", "c": "3"},
            id="mappings merge",
        ),
        pytest.param(
            {"nodeSelector": {"$patch": "replace", "c": "3"}},
            ("nodeSelector",),
            {"c": "3"},
            id="a mapping is replaced",
        ),
        pytest.param(
            {"nodeSelector": {"$patch": "delete"}},
            ("nodeSelector",),
            None,
            id="a mapping is deleted",
        ),
        pytest.param(
            {"tolerations": [{"key": "y"}]},
            ("tolerations",),
            [{"key": "y"}],
            id="a list without a key is replaced",
        ),
        pytest.param(
            {"containers": [{"name": "tool", "args": ["z"]}]},
            ("containers", 0, "args"),
            ["z"],
            id="a list of words is replaced",
        ),
        pytest.param(
            {"containers": [{"name": "tool", "env": [{"name": "B", "value": "2"}]}]},
            ("containers", 0, "env"),
            [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            id="an item is added to a list in a list",
        ),
        pytest.param(
            {"containers": [{"name": "tool", "env": [{"name": "A", "$patch": "delete"}]}]},
            ("containers", 0, "env"),
            [],
            id="an item is deleted",
        ),
        pytest.param(
            {"containers": [{"name": "third", "stdin": None}]},
            ("containers", 2),
            {"name": "third"},
            id="an item is appended, its nulls are nothing",
        ),
        pytest.param(
            {"containers": [{"$patch": "replace"}, {"name": "only"}]},
            ("containers",),
            [{"name": "only"}],
            id="a list is replaced",
        ),
        pytest.param(
            {"volumes": [{"name": "v", "$retainKeys": ["name", "nfs"], "nfs": {"path": "/"}}]},
            ("volumes",),
            [{"name": "v", "nfs": {"path": "/"}}],
            id="a volume becomes another kind",
        ),
        pytest.param(
            {"affinity": {"nodeAffinity": {"x": None, "y": 1}}},
            ("affinity",),
            {"nodeAffinity": {"y": 1}},
            id="nulls in a new mapping are nothing",
        ),
        pytest.param(
            {"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 2}]},
            ("topologySpreadConstraints",),
            [{"topologyKey": "zone", "maxSkew": 2}],
            id="a new list",
        ),
    ],
)
def test_a_patch_merges_as_kubectl_does(
    patch: dict[str, Any], path: tuple[str | int, ...], expected: Any
) -> None:
    before = copy.deepcopy(POD)
    found: Any = merge(POD, patch)
    for step in path:
        found = found.get(step) if isinstance(step, str) else found[step]

    assert found == expected
    assert before == POD


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ({"containers": [{"image": "x"}]}, r"patch.containers\[0\]: needs `name`"),
        ({"nodeSelector": {"$patch": "merg"}}, "there is no directive 'merg'"),
        ({"$setElementOrder/containers": []}, "this directive is not known"),
    ],
)
def test_a_patch_that_means_nothing_is_refused(patch: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        merge(POD, patch)


def template() -> dict[str, Any]:
    spec = samples.spec()
    job = job_object(spec, first_generation(spec, "sha256:0", "j-g1"), samples.STORE)
    made: dict[str, Any] = job["spec"]["template"]
    return made


def of_container(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"spec": {kind: [{"name": name, **fields}]}}


DELETE = {"$patch": "delete"}
TOOL = ("containers", "tool")
STAGER = ("containers", "stager")
FETCH = ("initContainers", "fetch")


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (of_container(*TOOL, **DELETE), r"containers\[tool\] was removed"),
        (of_container(*STAGER, **DELETE), r"containers\[stager\] was removed"),
        (of_container(*FETCH, **DELETE), r"initContainers\[fetch\] was removed"),
        (of_container(*TOOL, command=["sh"]), r"containers\[tool\].command was changed"),
        (of_container(*TOOL, args=["x"]), r"containers\[tool\].args was changed"),
        (of_container(*TOOL, workingDir="/"), r"containers\[tool\].workingDir was changed"),
        (of_container(*STAGER, image="x"), r"containers\[stager\].image was changed"),
        (of_container(*FETCH, restartPolicy="Always"), "restartPolicy was changed"),
        (
            of_container(*TOOL, env=[{"name": "CPUS", "value": "64"}]),
            r"containers\[tool\].env: CPUS was changed",
        ),
        (
            of_container(*STAGER, volumeMounts=[{"mountPath": "/s3runner/work", **DELETE}]),
            "volumeMounts: /s3runner/work was changed or removed",
        ),
        (
            {"spec": {"volumes": [{"name": "work", "emptyDir": {"sizeLimit": "1Mi"}}]}},
            "volumes: work was changed",
        ),
        (
            {"spec": {"containers": [{"$patch": "replace"}, {"name": "tool", "image": "x"}]}},
            "was changed",
        ),
        ({"spec": {"restartPolicy": "OnFailure"}}, "spec.restartPolicy was changed"),
        ({"spec": {"shareProcessNamespace": True}}, "shareProcessNamespace"),
        ({"spec": {"hostPID": True}}, "hostPID"),
        ({"spec": {"terminationGracePeriodSeconds": 1}}, "settings of its own"),
        (
            {"metadata": {"labels": {"s3runner/job-id": None}}},
            "labels: s3runner/job-id was changed or removed",
        ),
        ({"spec": None}, "was changed"),
    ],
)
def test_a_patch_that_breaks_what_runs_in_the_pod_is_refused(
    patch: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason):
        patched(template(), [patch])


@pytest.mark.parametrize("kind", ["initContainers", "containers"])
def test_nothing_comes_before_fetch_or_tool(kind: str) -> None:
    """The first container is the one that people see without a name."""
    before = template()
    items = [{"$patch": "replace"}, {"name": "x", "image": "x"}, *before["spec"][kind]]
    with pytest.raises(SettingsError, match="is no longer the first"):
        patched(before, [{"spec": {kind: items}}])


def test_patches_are_applied_one_after_the_other() -> None:
    first = {"spec": {"hostname": "a", "priority": 1}}
    found = patched(template(), [first, {"spec": {"hostname": "b"}}])

    assert (found["spec"]["hostname"], found["spec"]["priority"]) == ("b", 1)

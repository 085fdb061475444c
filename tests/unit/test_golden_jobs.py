"""The Job object of each feature, as a file that people read and an API server takes."""

from __future__ import annotations

import os
from typing import Any

import kubernetes
import pytest
import yaml
from golden_jobs import GOLDEN, KUBERNETES, LOCAL, read_case, rendered
from kube_api.job_checks import job_causes
from kube_api.known_fields import flaws

from s3runner.staging.records import Spec


class _NoAliases(yaml.SafeDumper):
    """Writes what stands in two places twice, as people would."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


@pytest.mark.parametrize("name", [*LOCAL, *KUBERNETES])
def test_the_job_object_is_the_golden_one(name: str) -> None:
    text = yaml.dump(rendered(name), Dumper=_NoAliases, sort_keys=False, width=100)
    path = GOLDEN / ("" if name in LOCAL else "kubernetes") / f"{name}.yaml"
    if os.environ.get("S3RUNNER_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", [*LOCAL, *KUBERNETES])
def test_the_official_models_keep_every_field(name: str) -> None:
    client: Any = kubernetes.client.ApiClient()
    # the public method takes a response object whose shape differs between the client's versions
    model = client._ApiClient__deserialize(rendered(name), "V1Job")
    assert client.sanitize_for_serialization(model) == rendered(name)


@pytest.mark.parametrize("name", KUBERNETES)
def test_a_strict_api_server_takes_it(name: str) -> None:
    job = rendered(name)
    assert [*flaws(job, "V1Job")] == []
    assert [*job_causes(job)] == []


@pytest.mark.parametrize("name", KUBERNETES)
def test_a_spec_comes_back_from_its_document_as_it_was(name: str) -> None:
    """Another head, and the pods, read the destination from there."""
    spec, _ = read_case(name)
    assert Spec.load(spec.dump(), "s3://x/spec.json") == spec


@pytest.mark.parametrize("name", sorted({*KUBERNETES} - {"tool-user", "volumes"}))
def test_every_container_keeps_the_restricted_standard(name: str) -> None:
    pod = rendered(name)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", KUBERNETES)
def test_nobody_but_fetch_and_stager_has_a_way_to_the_store(name: str) -> None:
    job = rendered(name)
    template = job["spec"]["template"]
    others = []
    for container in (*template["spec"]["initContainers"], *template["spec"]["containers"]):
        if container["name"] in {"fetch", "stager"}:
            continue
        others.append(container["name"])
        assert not [v for v in container.get("env", ()) if v["name"].startswith("AWS_")]
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert ("/s3runner/control" in mounted) == (container["name"] == "tool")
    assert template["spec"]["automountServiceAccountToken"] is False
    if "serviceAccountName" in template["spec"]:
        skipped = template["metadata"]["annotations"]["eks.amazonaws.com/skip-containers"]
        assert sorted(skipped.split(",")) == sorted(others)

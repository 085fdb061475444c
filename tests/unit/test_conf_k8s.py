"""The objects in conf/k8s: what an API server would refuse, and what they share with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import samples
import yaml

from s3runner.cluster.job_object import job_object
from s3runner.runner.decide import first_generation

FOLDER = Path(__file__).parents[2] / "conf" / "k8s"

MODELS = {
    ("v1", "Namespace"): "V1Namespace",
    ("v1", "Secret"): "V1Secret",
    ("v1", "Service"): "V1Service",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("v1", "PersistentVolumeClaim"): "V1PersistentVolumeClaim",
    ("v1", "ResourceQuota"): "V1ResourceQuota",
    ("v1", "LimitRange"): "V1LimitRange",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("batch/v1", "Job"): "V1Job",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("rbac.authorization.k8s.io/v1", "Role"): "V1Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "V1RoleBinding",
}
CUSTOM = {
    ("kueue.x-k8s.io/v1beta2", "ResourceFlavor"),
    ("kueue.x-k8s.io/v1beta2", "ClusterQueue"),
    ("kueue.x-k8s.io/v1beta2", "LocalQueue"),
    ("karpenter.sh/v1", "NodePool"),
    ("karpenter.k8s.aws/v1", "EC2NodeClass"),
}
CLUSTER_WIDE = {"Namespace", "ResourceFlavor", "ClusterQueue", "NodePool", "EC2NodeClass"}

LABEL = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

Json = dict[str, Any]


def objects() -> list[Any]:
    """Return every document of every file, named."""
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            name = f"{path.name}:{document['kind']}/{document['metadata']['name']}"
            found.append(pytest.param(document, id=name))
    return found


def every(kind: str) -> list[Json]:
    return [each.values[0] for each in objects() if each.values[0]["kind"] == kind]


def pods() -> list[Any]:
    """Return the pod templates."""
    return [
        pytest.param(each.values[0]["spec"]["template"], id=each.id)
        for each in objects()
        if each.values[0]["kind"] in {"Deployment", "Job"}
    ]


@pytest.mark.parametrize("document", objects())
def test_the_official_models_keep_every_field(document: Json) -> None:
    """A field that they drop is one that a strict API server refuses."""
    kind = document["apiVersion"], document["kind"]
    if kind in CUSTOM:
        return
    client: Any = kubernetes.client.ApiClient()
    model = client._ApiClient__deserialize(document, MODELS[kind])
    assert client.sanitize_for_serialization(model) == document


@pytest.mark.parametrize("document", objects())
def test_names_labels_and_namespaces_are_valid(document: Json) -> None:
    metadata = document["metadata"]

    assert NAME.fullmatch(metadata["name"])
    expected = None if document["kind"] in CLUSTER_WIDE else "s3runner"
    assert metadata.get("namespace") == expected
    for label, value in metadata.get("labels", {}).items():
        assert LABEL.fullmatch(label), label
        assert len(value) <= 63


@pytest.mark.parametrize("template", pods())
def test_a_pod_passes_the_restricted_standard_of_its_namespace(template: Json) -> None:
    pod = template["spec"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert all(
        set(volume) - {"name"} <= {"emptyDir", "persistentVolumeClaim", "secret"}
        for volume in pod["volumes"]
    )


@pytest.mark.parametrize("template", pods())
def test_every_image_has_a_version(template: Json) -> None:
    for container in template["spec"]["containers"]:
        _, colon, tag = container["image"].rpartition("/")[2].partition(":")
        assert colon
        assert tag not in {"", "latest"}


def test_the_role_is_bound_to_the_heads_account() -> None:
    (role,), (binding,) = every("Role"), every("RoleBinding")
    accounts = {account["metadata"]["name"] for account in every("ServiceAccount")}

    assert binding["roleRef"]["kind"] == "Role"
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert {subject["name"] for subject in binding["subjects"]} <= accounts
    assert {subject["namespace"] for subject in binding["subjects"]} == {"s3runner"}


def test_both_examples_of_keys_have_the_same_entries() -> None:
    first, *others = every("Secret")

    assert set(first["stringData"]) == {"accesskey", "secretkey"}
    for other in others:
        assert set(other["stringData"]) == set(first["stringData"])
        assert other["metadata"]["name"] == first["metadata"]["name"]


def test_a_key_in_a_file_opens_no_store_but_a_laptops() -> None:
    values = [value for secret in every("Secret") for value in secret["stringData"].values()]

    assert set(values) == {"REPLACE-ME", "laptop", "laptop-only"}
    assert not any("data" in secret for secret in every("Secret"))


def test_the_network_policy_is_for_the_pods_that_the_code_makes() -> None:
    spec = samples.spec()
    generation = first_generation(spec, "sha256:" + "0" * 64, f"{spec.job_id}-g1")
    labels = job_object(spec, generation, samples.STORE)["spec"]["template"]["metadata"]["labels"]

    for policy in every("NetworkPolicy"):
        wanted = policy["spec"]["podSelector"]["matchLabels"]
        assert wanted
        assert wanted.items() <= labels.items()


def test_the_network_policy_lets_no_pod_reach_the_nodes_own_credentials() -> None:
    for policy in every("NetworkPolicy"):
        blocks = [
            to["ipBlock"]
            for rule in policy["spec"]["egress"]
            for to in rule["to"]
            if "ipBlock" in to
        ]
        assert blocks
        assert all("169.254.0.0/16" in block["except"] for block in blocks)


def test_a_queue_covers_whatever_a_pod_requests() -> None:
    """Kueue admits no Job that requests something else."""
    (queue,) = every("ClusterQueue")
    (group,) = queue["spec"]["resourceGroups"]

    assert set(group["coveredResources"]) >= {"cpu", "memory", "ephemeral-storage"}
    for flavor in group["flavors"]:
        assert [each["name"] for each in flavor["resources"]] == group["coveredResources"]


def test_selectors_find_what_they_are_for() -> None:
    """A Service or a Deployment whose selector misses its pods is one that the API accepts."""
    (service,), (deployment,) = every("Service"), every("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]

    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = [
        port["containerPort"]
        for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    ]
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ports


def test_a_secret_that_a_pod_names_is_there_with_the_entry() -> None:
    entries = {secret["metadata"]["name"]: set(secret["stringData"]) for secret in every("Secret")}
    named = [
        variable["valueFrom"]["secretKeyRef"]
        for template in pods()
        for container in template.values[0]["spec"]["containers"]
        for variable in container["env"]
        if "valueFrom" in variable
    ]

    assert named
    for reference in named:
        assert reference["key"] in entries[reference["name"]]

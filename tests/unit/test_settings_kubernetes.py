"""Destinations on Kubernetes: what their keys become, and what no cluster gets to see."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from s3runner.errors import SettingsError
from s3runner.jobfile import parse_job
from s3runner.model import Destination, Job, Quantity, Resources
from s3runner.pod_model import (
    Directory,
    KubernetesPlace,
    NodeChoice,
    Placement,
    PodCredentials,
    PodShape,
    SecretKey,
)
from s3runner.settings import parse_settings

KEYS = "credentials: {secret: s3}"


def destination(keys: str, credentials: str = KEYS) -> Destination:
    text = f"store: {{url: s3://bkt/p}}\ndestinations: {{k: {{cluster: kubernetes, {credentials}, "
    return parse_settings(f"{text}{keys}}}}}", "s3runner.yml", Path("/base")).destination()


def place(keys: str, credentials: str = KEYS) -> KubernetesPlace:
    found = destination(keys, credentials).kubernetes
    assert found is not None
    return found


def refusal(keys: str, credentials: str = KEYS) -> str:
    with pytest.raises(SettingsError) as caught:
        destination(keys, credentials)
    return caught.value.reason


def test_without_more_than_credentials_everything_is_the_values_own_default() -> None:
    assert place("") == KubernetesPlace(PodCredentials(secret="s3"))  # noqa: S106  # a name


@pytest.mark.parametrize(
    "credentials",
    [
        "grace: 5s",
        "credentials: {}",
        "credentials: {service_account: a, secret: b}",
        "credentials: {service_account: a, access_key: k}",
    ],
)
def test_credentials_have_two_forms_and_one_is_needed(credentials: str) -> None:
    reason = refusal("", credentials)
    assert "credentials: {service_account: NAME}" in reason
    assert "credentials: {secret: NAME, access_key: KEY, secret_key: KEY}" in reason


def test_the_entries_of_a_secret_have_any_names() -> None:
    written = "credentials: {secret: minio, access_key: accesskey, secret_key: root.key}"
    found = place("", written).credentials
    assert (found.secret, found.access_key, found.secret_key) == ("minio", "accesskey", "root.key")


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ("namespace: x", "namespace"),
        ("credentials: {secret: s3}", "credentials"),
        ("do_not_disrupt: true, labels: {a: b}", "labels, do_not_disrupt"),
        ("spot: {then: [{max_evictions: 1}]}", "spot.then"),
    ],
)
def test_the_local_cluster_takes_no_key_of_kubernetes(keys: str, named: str) -> None:
    text = f"store: {{url: s3://bkt/p}}\ndestinations: {{here: {{{keys}}}}}"
    with pytest.raises(SettingsError, match=f"here: {named}: on cluster: kubernetes only"):
        parse_settings(text, "s3runner.yml", Path("/base"))


def test_kubernetes_takes_no_key_of_the_local_cluster() -> None:
    assert "local: belongs to cluster: local" in refusal("local: {read_only: [/refs]}")


def test_the_kubeconfig_stays_out_of_the_destination() -> None:
    """It may hold keys, and is a path of this machine: no other head could use it."""
    text = (
        "store: {url: s3://bkt/p}\n"
        "destinations: {k: {cluster: kubernetes, credentials: {secret: s}, kubeconfig: ./kube}}"
    )
    settings = parse_settings(text, "s3runner.yml", Path("/base"))
    assert settings.kubeconfig("k") == "/base/kube"
    assert "kube" not in repr(settings.destination()).replace("kubernetes", "")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("namespace: My_Space", "namespace: 'My_Space' is no name"),
        (f"namespace: {'x' * 64}", "is no name"),
        ("labels: {a b: c}", "labels"),
        ("labels: {a: 'b c'}", "'b c' cannot be a label's value"),
        (f"labels: {{a: {'x' * 64}}}", "cannot be a label's value"),
        ("labels: {s3runner/job-id: x}", "is set by s3runner itself"),
        ("pod_labels: {app.kubernetes.io/managed-by: x}", "is set by s3runner itself"),
        ("annotations: {'-x': y}", "'-x' is no name"),
        ("image_pull_policy: Sometimes", "'Always', 'IfNotPresent' or 'Never'"),
        ("image_pull_secrets: [A]", "'A' is no name"),
        ("run_as_user: -1", "greater than or equal to 0"),
        ("run_as_user: 4294967296", "less than or equal to"),
        ("worker_resources: {memory: 5}", "less than 1Mi"),
        ("worker_resources: {cpu: {request: 2, limit: 1}}", "the request 2 is more than"),
        ("work_volume: {medium: Memory}", "a directory in memory needs a size"),
        ("work_volume: {medium: Disk}", "medium"),
        ("scratch: [{path: fast}]", "is no absolute path to mount at"),
        ("scratch: [{path: /usr/share}]", "would hide the image's own files"),
        ("scratch: [{path: /s3runner/work/x}]", "would hide each other"),
        ("volumes: [{name: v, mount: /x}]", "needs exactly one of pvc, host_path"),
        ("volumes: [{name: v, mount: /x, pvc: a, secret: b}]", "needs exactly one of"),
        ("volumes: [{name: v, mount: /, pvc: a}]", "is no absolute path to mount at"),
        ("volumes: [{name: v, mount: /a/../b, pvc: a}]", "is no absolute path to mount at"),
        ("volumes: [{name: v, mount: /s3runner, pvc: a}]", "would hide each other"),
        ("volumes: [{name: v, mount: /x, pvc: a, sub_path: ../y}]", "is no path in a volume"),
        ("volumes: [{name: v, mount: /x, source: {}}]", "names one kind of volume"),
        ("containers: [{image: x}]", "a container needs `name`"),
        ("containers: [{name: x}]", "a container needs `image`"),
        ("containers: [{name: X, image: x}]", "'X' is no name"),
        ("init_containers: [{name: x, image: x, restartPolicy: Always}]", "put it under sidecars"),
        ("containers: [x]", "must be a container"),
        ("tolerations: [spot]", "must be a mapping, as Kubernetes writes it"),
        ("affinity: []", "must be a mapping, as Kubernetes writes it"),
        ("secret_env: {A-B: {secret: s, key: k}}", "'A-B' is no name of a variable"),
        ("secret_env: {A: {secret: s, key: 'k k'}}", "cannot be an entry of a Secret"),
        ("tool_usr: image", "unknown key (did you mean 'tool_user'?)"),
        ("spot: {then: [{node_selectr: {}}]}", "unknown key (did you mean 'node_selector'?)"),
        ("volumes: [{name: v, mout: /x, pvc: a}]", "unknown key (did you mean 'mount'?)"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_with_its_line(keys: str, reason: str) -> None:
    found = refusal(keys)
    assert reason in found
    assert found.startswith("s3runner.yml:2: destinations.k")


def test_text_and_numbers_are_what_they_are_to_kubernetes() -> None:
    """Quotes make text; a port is a number, a word of an argument is not."""
    found = place(
        'patch: {a: 1, b: "1", c: true, d: "true", e: yes, f: 1.5, g: 0755, h: ~, i: [1, x]}, '
        "containers: [{name: x, image: y:1, args: [1.10, true], env: [{name: N, value: 1.10}], "
        "ports: [{containerPort: 8080}], resources: {limits: {cpu: 2}}}]"
    ).pod.parts
    wanted: dict[str, Any] = {"a": 1, "b": "1", "c": True, "d": "true", "e": "yes", "f": 1.5}
    assert found.patches == ({**wanted, "g": 493, "h": None, "i": [1, "x"]},)
    assert found.containers == (
        {
            "name": "x",
            "image": "y:1",
            "args": ["1.10", "true"],
            "env": [{"name": "N", "value": "1.10"}],
            "ports": [{"containerPort": 8080}],
            "resources": {"limits": {"cpu": "2"}},
        },
    )


def test_a_destination_says_what_comes_after_its_evictions() -> None:
    found = destination(
        "node_selector: {spot: 'yes'}, "
        "spot: {max_evictions: 2, then: [{node_selector: {spot: , size: big}, tolerations: []}]}"
    )
    assert found.max_evictions == 2
    assert found.kubernetes is not None
    choice = NodeChoice({"spot": None, "size": "big"}, tolerations=())
    assert found.kubernetes.then == (Placement(choice, None),)


def test_resources_of_a_destination_are_those_of_jobs_that_do_not_say() -> None:
    found = destination("resources: {cpu: 4, memory: {request: 1Gi, limit: 2Gi}, disk_factor: 2}")
    assert found.resources == Resources(Quantity("4", "4"), Quantity("1Gi", "2Gi"))
    assert found.kubernetes is not None
    assert found.kubernetes.pod.disk_factor == 2


def test_times_are_whole_seconds() -> None:
    found = place("image_pull_timeout: 5m, ttl_after_finished: 1h")
    assert (found.image_pull_timeout_s, found.pod.ttl_after_finished_s) == (300, 3600)


def job(pod: str, resources: str = "{}") -> Job:
    text = f"command: x\nresources: {resources}\npod: {pod}\n"
    return parse_job(text, "job.yml", Path("/base"), {})


def test_a_job_adds_the_same_parts_as_a_destination() -> None:
    keys = (
        "scratch: [{path: /fast/, medium: Memory, size: 1Gi}], "
        "secret_env: {TOKEN: {secret: api, key: token}}, patch: {spec: {hostname: x}}"
    )
    found = job(f"{{{keys}}}").pod
    assert found == place(keys).pod.parts
    assert found.scratch == (Directory("/fast", "Memory", "1Gi"),)
    assert found.secret_env == {"TOKEN": SecretKey("api", "token")}


def test_a_job_has_its_own_factor_for_its_disk() -> None:
    assert job("{}", "{disk_factor: 7.5}").disk_factor == 7.5
    assert job("{}").disk_factor is None


def test_a_mistake_in_a_jobs_pod_has_its_line() -> None:
    with pytest.raises(SettingsError) as caught:
        job("{volumes: [{name: v, mount: /x}]}")
    assert caught.value.reason.startswith("job.yml:3: pod.volumes[0]: needs exactly one of")


@pytest.mark.parametrize("document", ["kubernetes.md", "settings.md"])
def test_the_settings_in_the_documentation_are_good(document: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / document).read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    found = [each for each in blocks if re.search(r"^(store|destinations):", each, re.MULTILINE)]
    for block in found:
        store = "" if "store:" in block else "store: {url: s3://bkt/p}\n"
        settings = parse_settings(store + block, document, Path("/base"))
        for name in settings.file.destinations:
            settings.destination(name)
    assert len(found) > 1


def test_a_shape_without_any_key_is_the_default() -> None:
    assert place("").pod == PodShape()

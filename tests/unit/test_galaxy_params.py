"""Parameters of Galaxy's job configuration: what they become, what is refused, who goes first."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from s3runner.errors import SettingsError
from s3runner.galaxy.param_table import KUBERNETES, OptionFields, Param, own_params
from s3runner.galaxy.params import (
    GalaxyDestination,
    destination_of,
    runner_param_specs,
    settings_of,
    staging_workers,
)
from s3runner.model import Quantity
from s3runner.pod_model import KubernetesPlace, NodeChoice, Volume
from s3runner.settings import parse_settings

ROOT = Path(__file__).parents[2]
RUNNER = {"s3runner_bucket": "bkt", "s3runner_credentials": "{secret: s3}"}
NEEDED = {"docker_enabled": "true", "outputs_to_working_directory": "true"}

Params = Mapping[str, Any]


def meant(
    params: Params, runner: Params | None = None, config: Params | None = None
) -> GalaxyDestination:
    return destination_of({**RUNNER, **(runner or {})}, {**NEEDED, **params}, config or {})


def place(params: Params, runner: Params | None = None) -> KubernetesPlace:
    found = meant(params, runner).destination.kubernetes
    assert found is not None
    return found


def mistakes(params: Params, runner: Params | None = None, config: Params | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        meant(params, runner, config)
    return caught.value.reason


# --- what a parameter becomes ---------------------------------------------------------------------

AFFINITY = {"nodeAffinity": {"x": 1}}

SAYS: list[tuple[dict[str, Any], str]] = [
    ({"k8s_config_path": "kube"}, "kubeconfig: kube"),
    ({"k8s_use_service_account": "true"}, ""),
    ({"k8s_use_service_account": "false", "k8s_config_path": "/k"}, "kubeconfig: /k"),
    (
        {"k8s_persistent_volume_claims": "data:/data, idx/hg38/x:/idx:r"},
        (
            "volumes: [{name: claim-1, pvc: data, mount: /data}, "
            "{name: claim-2, pvc: idx, sub_path: hg38/x, mount: /idx, read_only: true}]"
        ),
    ),
    ({"k8s_namespace": "ns"}, "namespace: ns"),
    ({"k8s_pod_priority_class": "high"}, "priority_class: high"),
    ({"k8s_affinity": "nodeAffinity:\n  x: 1\n"}, "affinity: {nodeAffinity: {x: 1}}"),
    ({"k8s_affinity": AFFINITY}, "affinity: {nodeAffinity: {x: 1}}"),
    ({"k8s_node_selector": "spot: yes"}, "node_selector: {spot: yes}"),
    ({"k8s_node_selector": {"spot": True, "n": 2}}, 'node_selector: {spot: "true", n: "2"}'),
    ({"k8s_tolerations": "- key: a\n  value: 'true'"}, 'tolerations: [{key: a, value: "true"}]'),
    (
        {"k8s_galaxy_instance_id": "main", "k8s_job_metadata": {"labels": {"a": "b"}}},
        "pod_labels: {a: b, app.kubernetes.io/instance: gxy-main}",
    ),
    ({"k8s_job_api_version": "batch/v1"}, ""),
    ({"k8s_job_ttl_secs_after_finished": "60"}, "ttl_after_finished: 60"),
    ({"k8s_job_ttl_secs_after_finished": 0}, "ttl_after_finished: 1"),
    (
        {"k8s_job_metadata": "{labels: {a: b}, annotations: {c: d}}"},
        "pod_labels: {a: b}, pod_annotations: {c: d}",
    ),
    (
        {"k8s_supplemental_group_id": "7"},
        "patch: {spec: {securityContext: {supplementalGroups: [7]}}}",
    ),
    ({"k8s_run_as_user_id": "$uid"}, f"run_as_user: {os.getuid()}"),
    ({"k8s_run_as_user_id": 0}, "run_as_user: 0"),
    ({"k8s_run_as_group_id": "$gid"}, f"run_as_group: {os.getgid()}"),
    ({"k8s_fs_group_id": "12"}, "fs_group: 12"),
    ({"k8s_pull_policy": "Always"}, "image_pull_policy: Always"),
    ({"k8s_pull_policy": "Default"}, ""),
    ({"k8s_cleanup_job": "always"}, ""),
    ({"k8s_pod_retries": "2"}, ""),
    ({"k8s_job_spec_back_off_limit": "3"}, "retry: {tool: 1}"),
    ({"k8s_job_spec_back_off_limit": "3", "k8s_pod_retries": "5"}, "retry: {tool: 3}"),
    ({"k8s_job_spec_back_off_limit": 3, "max_pod_retries": 2}, "retry: {tool: 2}"),
    (
        {"k8s_job_spec_back_off_limit": 3, "s3runner_retry": "{memory_factor: 1}"},
        "retry: {tool: 1, memory_factor: 1}",
    ),
    ({"k8s_walltime_limit": "3600"}, "walltime: 1h"),
    ({"k8s_unschedulable_walltime_limit": "60"}, "pending_timeout: 60"),
    ({"k8s_unschedulable_walltime_limit": "0"}, ""),
    ({"requests_cpu": "500m"}, "resources: {cpu: {request: 500m}}"),
    ({"requests_cpu": 0.5, "limits_cpu": 2}, "resources: {cpu: {request: 0.5, limit: 2}}"),
    ({"requests_memory": "4g"}, 'resources: {memory: {request: "4000000000"}}'),
    ({"limits_memory": "129e6"}, 'resources: {memory: {limit: "129000000"}}'),
    ({"limits_memory": "500m"}, 'resources: {memory: {limit: "500000000"}}'),
    ({"limits_memory": "1.5Gi"}, 'resources: {memory: {limit: "1610612736"}}'),
    ({"limits_memory": 2097152}, 'resources: {memory: {limit: "2097152"}}'),
    ({"s3runner_gpu": "1", "s3runner_disk": "50Gi"}, "resources: {gpu: 1, disk: 50Gi}"),
    (
        {"s3runner_memory": "{request: 1Gi, limit: 2Gi}"},
        "resources: {memory: {request: 1Gi, limit: 2Gi}}",
    ),
    ({"s3runner_queue": "q"}, "labels: {kueue.x-k8s.io/queue-name: q}"),
    (
        {"s3runner_queue": "q", "s3runner_labels": "{a: b}"},
        "labels: {a: b, kueue.x-k8s.io/queue-name: q}",
    ),
    ({"s3runner_image_pull_secrets": "[a, b]"}, "image_pull_secrets: [a, b]"),
    ({"s3runner_do_not_disrupt": "no"}, "do_not_disrupt: false"),
    ({"s3runner_do_not_disrupt": False}, "do_not_disrupt: false"),
    (
        {"s3runner_patch": {"spec": {"hostNetwork": True, "x": "1"}}},
        'patch: {spec: {hostNetwork: true, x: "1"}}',
    ),
    ({"s3runner_spot": {"max_evictions": 1}}, "spot: {max_evictions: 1}"),
]


@pytest.mark.parametrize(("params", "keys"), SAYS, ids=lambda value: str(value)[:60])
def test_a_parameter_is_a_key_of_a_destination(params: dict[str, Any], keys: str) -> None:
    """Text of XML or values of YAML: the destination is that of such an s3runner.yml."""
    text = (
        "store: {url: s3://bkt}\n"
        f"destinations: {{galaxy: {{cluster: kubernetes, credentials: {{secret: s3}}, {keys}}}}}"
    )
    wanted = parse_settings(text, "s3runner.yml", Path("/base"))
    found = meant(params)

    assert found.destination == wanted.destination()
    assert found.settings.kubeconfig("galaxy") in (None, "/kube", "/k")


@pytest.mark.parametrize("name", [*KUBERNETES.taken], ids=str)
def test_a_runner_says_the_same_as_a_destination(name: str) -> None:
    said = [params for params, _ in SAYS if name in params]
    for params in said:
        assert meant({}, params).destination == meant(params).destination
    assert said or name == "k8s_extra_job_envs"


def test_every_key_of_a_destination_has_its_parameter() -> None:
    """And says something else than where it stands."""
    places = [param.place for param in own_params().taken.values() if param.place]
    assert len(places) == len(set(places))
    assert {"s3runner_grace", "s3runner_ca_bundle", "s3runner_credentials"} <= {*own_params().taken}


def test_options_are_of_the_head() -> None:
    assert meant({"k8s_extra_job_envs": "{A: 1, B: yes}"}).options.env == {"A": "1", "B": "yes"}


def test_volumes_keep_what_a_claim_line_says() -> None:
    found = place({"k8s_persistent_volume_claims": "data/a:/mnt/a:r"}).pod.parts.volumes
    claim = {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}}
    assert found == (Volume("claim-1", claim, "/mnt/a", read_only=True, sub_path="a"),)


def test_a_cluster_may_be_this_machine() -> None:
    found = destination_of(
        {"s3runner_bucket": "bkt", "s3runner_cluster": "local"},
        {"outputs_to_working_directory": True},
        {},
    )
    assert (found.destination.cluster, found.destination.kubernetes) == ("local", None)


# --- which level counts ---------------------------------------------------------------------------


def test_the_nearer_level_goes_first() -> None:
    config = {"s3runner_prefix": "config", "s3runner_grace": "1m", "s3runner_region": "eu"}
    runner = {"s3runner_prefix": "runner", "s3runner_grace": "2m"}
    found = meant({"s3runner_grace": "3m"}, runner, config)
    assert (found.store.region, found.store.prefix) == ("eu", "runner")
    assert found.destination.grace_s == 180


def test_two_names_of_one_setting_are_one_setting_over_levels() -> None:
    found = place({"s3runner_namespace": "near"}, {"k8s_namespace": "far"})
    assert found.namespace == "near"
    resources = meant({"s3runner_cpu": "4"}, {"requests_cpu": "1"}).destination.resources
    assert resources.cpu == Quantity("4", "4")
    resources = meant({"requests_cpu": "1"}, {"s3runner_cpu": "4"}).destination.resources
    assert resources.cpu == Quantity("1", None)


@pytest.mark.parametrize(
    "params",
    [
        {"k8s_namespace": "a", "s3runner_namespace": "b"},
        {"k8s_affinity": AFFINITY, "s3runner_affinity": AFFINITY},
        {"requests_cpu": "1", "s3runner_cpu": "2"},
    ],
)
def test_two_names_of_one_setting_at_one_place_contradict_each_other(params: Params) -> None:
    assert re.search(r"(\w+): (\w+) says the same setting; leave one out", mistakes(params))


@pytest.mark.parametrize("nothing", ["", " ", None])
def test_an_empty_value_takes_away_what_lies_below(nothing: str | None) -> None:
    """What a resubmitted job inherits can be taken back."""
    runner = {"k8s_node_selector": "{spot: yes}", "s3runner_queue": "q"}
    found = place({"k8s_node_selector": nothing, "s3runner_queue": nothing}, runner).pod
    assert found.nodes == NodeChoice()
    assert found.labels == {}


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ({"gg_workspace_bucket": "work", "gg_storage_bucket": "data"}, "s3://work/"),
        ({"gg_storage_bucket": "data", "gg_instance_name": "main"}, "s3://data/main"),
        (
            {"gg_storage_bucket": "data", "gg_instance_name": "main", "s3runner_bucket": "own"},
            "s3://own/main",
        ),
    ],
)
def test_the_keys_of_the_fork_are_understood_in_galaxys_configuration(
    config: Params, url: str
) -> None:
    runner = {"s3runner_credentials": "{secret: s3}"}
    store = destination_of(runner, NEEDED, {**config, "gg_setup_env": "aws"}).store
    assert f"s3://{store.bucket}/{store.prefix}" == url


def test_what_a_runner_says_cannot_stand_in_galaxys_configuration() -> None:
    found = mistakes({}, config={"s3runner_staging_workers": 2, "s3runner_gras": "x"})
    assert "s3runner_staging_workers: belongs to the runner" in found
    assert "s3runner_gras: unknown parameter (did you mean" in found


def test_the_fork_ran_on_another_cloud_too() -> None:
    assert "gg_setup_env: only aws" in mistakes({}, config={"gg_setup_env": "gcp"})


def test_a_settings_file_lies_below_all_parameters(tmp_path: Path) -> None:
    path = tmp_path / "s3runner.yml"
    path.write_text(
        "store: {url: s3://file/p, ca_bundle: ca.pem, region: eu}\n"
        "references: {hg38: s3://refs/hg38/}\n"
        "destinations:\n"
        "  spot: {cluster: kubernetes, credentials: {secret: k}, grace: 10s, namespace: a}\n"
        "  here: {grace: 20s}\n"
    )
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    runner = {"s3runner_settings": str(path), "s3runner_destination": "here", "k8s_namespace": "b"}
    found = destination_of(runner, {**NEEDED, "s3runner_destination": "spot"}, {})
    assert (found.store.bucket, found.store.prefix, found.store.region) == ("file", "p", "eu")
    assert found.store.ca_pem == "-----BEGIN CERTIFICATE-----"
    assert [*found.settings.references] == ["hg38"]
    assert found.destination.grace_s == 10
    assert found.destination.kubernetes is not None
    assert found.destination.kubernetes.namespace == "b"
    local = destination_of(runner, {**NEEDED, "k8s_namespace": ""}, {}).destination
    assert (local.cluster, local.grace_s) == ("local", 20)

    with pytest.raises(SettingsError, match="there is no 'spo'"):
        destination_of(runner, {**NEEDED, "s3runner_destination": "spo"}, {})


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KUBERNETES.refused)
def test_what_cannot_be_kept_is_refused_with_its_reason(name: str) -> None:
    reason = f"destination galaxy: {name}: {KUBERNETES.refused[name]}"
    assert mistakes({name: "x"}) == reason
    assert mistakes({}, {name: "x"}) == reason


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"k8s_node_selectr": "x"}, "unknown parameter (did you mean 'k8s_node_selector'?)"),
        ({"s3runner_sink": "x"}, "s3runner_sink: unknown parameter"),
        ({"requests_memry": "x"}, "unknown parameter (did you mean 'requests_memory'?)"),
        ({"k8s_namespace": "Not_One"}, "k8s_namespace: 'Not_One' is no name here"),
        ({"k8s_affinity": "["}, "k8s_affinity: not YAML"),
        ({"k8s_affinity": "x"}, "k8s_affinity: must be a mapping, as Kubernetes writes it"),
        ({"k8s_affinity": "{a: 1, a: 2}"}, "k8s_affinity: a: this key stands here twice"),
        ({"k8s_tolerations": "{a: 1}"}, "k8s_tolerations: must be a list"),
        ({"k8s_tolerations": "[a]"}, "k8s_tolerations[0]: must be a mapping"),
        ({"k8s_extra_job_envs": "[a]"}, "k8s_extra_job_envs: must be a mapping"),
        ({"k8s_extra_job_envs": "{a-b: 1}"}, "k8s_extra_job_envs"),
        ({"k8s_galaxy_instance_id": "Main_1"}, "'Main_1': small letters"),
        ({"k8s_galaxy_instance_id": "x" * 21}, "20 at most"),
        ({"k8s_job_metadata": "{label: {a: b}}"}, "has labels and annotations, and nothing else"),
        ({"k8s_job_metadata": "{labels: {a: 'b c'}}"}, "k8s_job_metadata.a: 'b c' cannot be"),
        ({"k8s_job_api_version": "batch/v1beta1"}, "k8s_job_api_version: only batch/v1"),
        ({"k8s_cleanup_job": "never"}, "k8s_cleanup_job: only always is done"),
        ({"k8s_pull_policy": "Sometimes"}, "k8s_pull_policy: should be 'Always'"),
        ({"k8s_run_as_user_id": "galaxy"}, "k8s_run_as_user_id: must be a whole number"),
        ({"k8s_supplemental_group_id": "users"}, "k8s_supplemental_group_id: must be a whole"),
        ({"k8s_walltime_limit": "0"}, "k8s_walltime_limit: must be more than nothing"),
        ({"k8s_pod_retries": "-1"}, "k8s_pod_retries: must be a whole number"),
        ({"k8s_job_spec_back_off_limit": 20, "k8s_pod_retries": 20}, "k8s_pod_retries: should be"),
        ({"k8s_use_service_account": "maybe"}, "k8s_use_service_account: must be true or false"),
        ({"k8s_use_service_account": "1", "k8s_config_path": "/k"}, "there is a kubeconfig, too"),
        ({"k8s_persistent_volume_claims": "data"}, "'data' is not claim:/mount"),
        ({"k8s_persistent_volume_claims": "data:/d:x"}, "'data:/d:x' is not claim:/mount"),
        ({"k8s_persistent_volume_claims": "data:/usr/../x"}, "[0].mount"),
        ({"requests_cpu": "many"}, "requests_cpu: 'many' is no number of cores"),
        ({"requests_cpu": 2, "limits_cpu": 1}, "the request 2 is more than the limit 1"),
        ({"limits_memory": "much"}, "limits_memory: 'much' is no amount of memory"),
        ({"limits_memory": "nan"}, "limits_memory: 'nan' is no amount of memory"),
        ({"s3runner_staging_workers": "2"}, "s3runner_staging_workers: belongs to the runner"),
        ({"s3runner_spot": "{max_eviction: 1}"}, "s3runner_spot.max_eviction: unknown key (did"),
        ({"s3runner_ca_bundle": "/no/ca"}, "s3runner_ca_bundle: /no/ca: No such file"),
        ({"s3runner_bucket": ""}, "s3runner_bucket: is required"),
        ({"s3runner_bucket": "s3://x"}, "s3runner_bucket: "),
        ({"s3runner_prefix": "a//b"}, "the prefix has an empty"),
        ({"s3runner_endpoint": "http://x"}, "s3runner_endpoint: is plain http"),
        ({"s3runner_credentials": ""}, "s3runner_credentials: is required"),
        ({"outputs_to_working_directory": "false"}, "outputs_to_working_directory: must be true"),
        ({"docker_enabled": "false"}, "docker_enabled: must be true: a pod needs an image"),
        ({"tool_evaluation_strategy": "remote"}, "tool_evaluation_strategy: must be local"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_mistake_is_one_sentence_with_the_parameters_name(params: Params, sentence: str) -> None:
    found = mistakes(params)
    assert sentence in found
    assert found.startswith("destination galaxy: ")
    assert len(found.splitlines()) == 1


def test_all_mistakes_are_told_at_once() -> None:
    found = mistakes({"s3runner_grace": "soon", "limits_cpu": "x", "k8s_tolerations": "["})
    assert len(found.splitlines()) == 3


def test_what_galaxy_says_for_all_destinations_counts() -> None:
    needed = {"docker_enabled": True}
    found = destination_of(RUNNER, needed, {"outputs_to_working_directory": True})
    assert found.destination.cluster == "kubernetes"
    config = {"outputs_to_working_directory": True, "tool_evaluation_strategy": "remote"}
    with pytest.raises(SettingsError, match="tool_evaluation_strategy: must be local"):
        destination_of(RUNNER, needed, config)


def test_parameters_of_others_are_left_alone() -> None:
    found = meant({"docker_sudo": "true", "request_cpus": 1, "tmp_dir": True, "gg_x": 1})
    assert found.destination == meant({}).destination


def test_a_job_that_is_not_galaxys_needs_nothing_of_galaxy() -> None:
    assert settings_of(RUNNER, {"limits_cpu": "2"}, {}).destination().resources.cpu.limit == "2"


# --- Galaxy's form --------------------------------------------------------------------------------


def test_galaxy_hands_every_parameter_on_as_it_is_written() -> None:
    """Its own mapping would make truth of the word false."""
    specs = runner_param_specs()
    assert {*KUBERNETES.taken, *KUBERNETES.refused, *own_params().taken} == {*specs}
    for spec in specs.values():
        assert spec["map"]("false") == "false"
        assert spec["default"] is None
        assert "valid" not in spec


def test_a_runner_says_how_many_jobs_are_staged_at_a_time() -> None:
    assert staging_workers({}) == 4
    assert staging_workers({"s3runner_staging_workers": "9", "k8s_x": "y"}) == 9
    with pytest.raises(SettingsError, match="runner: s3runner_staging_workers: "):
        staging_workers({"s3runner_staging_workers": "none"})


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("spot", "spot"),
        ("a b/c", "a-b-c"),
        ("x" * 80, "x" * 63),
        ("--", "galaxy"),
        ("é-", "galaxy"),
    ],
)
def test_any_id_of_galaxy_becomes_a_name_that_kubernetes_takes(name: str, shown: str) -> None:
    assert destination_of(RUNNER, NEEDED, {}, name=name).destination.name == shown


def test_what_is_printed_is_a_settings_file_of_the_same_meaning() -> None:
    found = meant(
        {
            "k8s_node_selector": "{v: 1.10, w: 'yes', x: true}",
            "s3runner_patch": "{spec: {a: true, b: 'true', c: 5, d: '5', e: 1.10}}",
            "s3runner_references": "{hg38: {url: s3://r/x, path: /data/db}}",
        }
    )
    again = parse_settings(found.as_yaml(), "s3runner.yml", Path("/"))
    assert again.destination() == found.destination
    assert again.references == found.settings.references
    assert again.store_config() == found.store


# --- links ----------------------------------------------------------------------------------------


def test_links_are_options_with_a_mount() -> None:
    options = meant(
        {"s3runner_sync": "link", "s3runner_evict_inputs": "true"},
        {"s3runner_mount": "/mnt/bucket/"},
    ).options
    assert (options.sync, options.evict_inputs, options.mount) == ("link", True, "/mnt/bucket")
    options = meant({}, {"s3runner_evict_inputs": False}).options
    assert (options.sync, options.evict_inputs, options.mount) == ("copy", False, None)


@pytest.mark.parametrize(
    ("params", "config", "said"),
    [
        ({"s3runner_sync": "link"}, {}, "s3runner_sync: needs s3runner_mount, "),
        ({"s3runner_evict_inputs": "yes"}, {}, "s3runner_evict_inputs: needs s3runner_mount, "),
        ({"s3runner_mount": "mnt"}, {}, "s3runner_mount: 'mnt' is not an absolute directory"),
        ({"s3runner_sync": "move"}, {}, "s3runner_sync: "),
        (
            {"s3runner_sync": "link", "s3runner_mount": "/m", "metadata_strategy": "extended"},
            {"metadata_strategy": "directory"},
            "s3runner_sync: link needs metadata_strategy: directory",
        ),
        (
            {"s3runner_sync": "link", "s3runner_mount": "/m"},
            {"metadata_strategy": "extended"},
            "s3runner_sync: link needs metadata_strategy: directory",
        ),
    ],
)
def test_links_that_cannot_be_are_refused_in_one_sentence(
    params: Params, config: Params, said: str
) -> None:
    (line,) = mistakes(params, config=config).splitlines()
    assert line.startswith(f"destination galaxy: {said}")


# --- the documentation ----------------------------------------------------------------------------


def row_of(name: str, param: Param) -> str:
    own = {each.place: mine for mine, each in own_params().taken.items() if each.place}
    meaning = f"`{own[param.place]}`" if param.place in own else ""
    return f"| `{name}` | {meaning} | {param.told} |"


def test_the_documentation_names_every_option() -> None:
    """Settings of s3runner.yml stand in docs/settings.md, these nowhere else."""
    text = (ROOT / "docs/galaxy.md").read_text()
    names = set(OptionFields.model_fields) - {"env"}
    assert {name for name in names if f"| `s3runner_{name}`" not in text} == set()


def test_the_table_of_the_documentation_is_the_one_that_is_used() -> None:
    lines = (ROOT / "docs/galaxy.md").read_text().splitlines()
    table = [line for line in lines if re.match(r"\| `(k8s_|requests_|limits_|max_pod)", line)]
    taken = [row_of(name, param) for name, param in KUBERNETES.taken.items()]
    refused = [f"| `{name}` | refused | {why} |" for name, why in KUBERNETES.refused.items()]
    assert table == [*taken, *refused]

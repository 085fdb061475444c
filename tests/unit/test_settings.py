"""The settings file: found in the right order, checked, and documented as it is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from s3runner.documented import sentences_of
from s3runner.errors import SettingsError
from s3runner.kubernetes_fields import KubernetesFields
from s3runner.model import Destination, Reference
from s3runner.settings import (
    EXAMPLE,
    MAX_CA_BYTES,
    Settings,
    load_settings,
    parse_settings,
    settings_schema,
)
from s3runner.settings_model import SettingsFile

ROOT = Path(__file__).parents[2]
STORE = "store: {url: s3://bucket/runs}\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def parsed(text: str, base_dir: Path = Path("/nowhere")) -> Settings:
    return parse_settings(text, "s3runner.yml", base_dir)


def refusal(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parsed(text)
    return caught.value.reason


def test_the_url_gives_bucket_and_prefix() -> None:
    config = parsed("store: {url: s3://bucket/some/runs/}").store_config()
    assert (config.bucket, config.prefix) == ("bucket", "some/runs")


def test_a_url_without_a_prefix_uses_the_whole_bucket() -> None:
    assert parsed("store: {url: s3://bucket}").store_config().prefix == ""


@pytest.mark.parametrize(
    "url",
    ["bucket/runs", "s3://", "s3:///x", "https://x/y", "s3://b/a//b", "s3://b/../x", "s3://b b/x"],
)
def test_a_url_that_names_no_bucket_and_prefix_is_refused(url: str) -> None:
    assert "s3runner.yml:1: store.url: " in refusal(f"store: {{url: '{url}'}}")


def test_the_store_as_the_pods_see_it_differs_in_its_endpoint_only() -> None:
    settings = parsed(
        "store: {url: s3://bkt/p, endpoint: 'https://out/', pod_endpoint: 'https://in'}"
    )
    here, there = settings.store_config(), settings.pod_store_config()
    assert (here.endpoint, there.endpoint) == ("https://out", "https://in")
    assert (here.bucket, here.prefix) == (there.bucket, there.prefix)


def test_without_a_pod_endpoint_the_pods_use_the_endpoint() -> None:
    settings = parsed("store: {url: s3://bkt/p, endpoint: https://out}")
    assert settings.pod_store_config() == settings.store_config()


@pytest.mark.parametrize("key", ["endpoint", "pod_endpoint"])
def test_plain_http_has_to_be_allowed(key: str) -> None:
    assert "insecure_http: true" in refusal(f"store: {{url: s3://bkt/p, {key}: 'http://x:9000'}}")
    text = f"store: {{url: s3://bkt/p, {key}: 'http://x:9000', insecure_http: true}}"
    assert parsed(text).store_config().insecure_http


@pytest.mark.parametrize("url", ["https://user:secret@x", "x:9000", "ftp://x", "https://x/?a=b"])
def test_an_endpoint_is_an_http_url_without_secrets(url: str) -> None:
    assert "store.endpoint: must " in refusal(f"store: {{url: s3://bkt/p, endpoint: '{url}'}}")


def test_all_mistakes_are_told_at_once_with_line_and_nearest_key() -> None:
    text = (
        "store:\n"
        "  url: s3://bkt/p\n"
        "  endpont: https://x\n"
        "destinations:\n"
        "  spot:\n"
        "    graec: 5\n"
        "    spot: {max_evictons: 2}\n"
        "    walltime: soon\n"
    )
    assert refusal(text).splitlines() == [
        "s3runner.yml:3: store.endpont: unknown key (did you mean 'endpoint'?)",
        "s3runner.yml:6: destinations.spot.graec: unknown key (did you mean 'grace'?)",
        (
            "s3runner.yml:7: destinations.spot.spot.max_evictons: unknown key "
            "(did you mean 'max_evictions'?)"
        ),
        (
            "s3runner.yml:8: destinations.spot.walltime: "
            "must be a time such as 90s, 30m, 2h, 1d or 1h30m, or seconds"
        ),
    ]


def test_a_missing_store_is_named() -> None:
    assert refusal("destinations: {default: {cluster: local}}") == (
        "s3runner.yml:1: store: is required"
    )


def test_an_empty_file_is_no_settings() -> None:
    assert refusal("") == "s3runner.yml: must be a mapping of keys to values"


def test_an_unknown_kind_of_cluster_says_what_there_is() -> None:
    assert refusal(STORE + "destinations: {b: {cluster: lokal, namespace: x, wat: y}}") == (
        "s3runner.yml:2: destinations.b: cluster: there is no 'lokal' (did you mean 'local'?) "
        "(available: local, kubernetes)"
    )


def test_a_destination_becomes_plain_values() -> None:
    settings = parsed(
        STORE + "destinations:\n"
        "  here: {grace: 1m, walltime: 1h30m, spot: {max_evictions: 0}, local: {read_only: [/a]}, "
        "max_active: 7}\n"
    )
    assert settings.destination() == Destination(
        name="here",
        grace_s=60,
        default_walltime_s=5400,
        max_evictions=0,
        read_only=("/a",),
        max_active=7,
    )


@pytest.mark.parametrize("most", ["0", "-1", "many", "1.5"])
def test_a_bound_that_lets_no_job_run_is_refused(most: str) -> None:
    with pytest.raises(SettingsError, match=r"destinations\.x\.max_active"):
        parsed(STORE + f"destinations: {{x: {{max_active: {most}}}}}")


def test_a_destinations_name_is_a_value_of_a_label() -> None:
    with pytest.raises(SettingsError, match="'x-' must end with a letter or digit"):
        parsed(STORE + "destinations: {x-: {}}")


def test_the_defaults_of_a_destination_are_the_values_own() -> None:
    assert parsed(STORE).destination() == Destination()


def test_without_a_name_the_default_destination_is_taken() -> None:
    assert parsed(STORE + "destinations: {b: {}, default: {}}").destination().name == "default"


@pytest.mark.parametrize("wanted", ["dfault", None])
def test_an_unknown_destination_is_refused_with_the_names_there_are(wanted: str | None) -> None:
    names = "destinations: {default: {}}" if wanted else "destinations: {a: {}, b: {}}"
    with pytest.raises(SettingsError, match="there is no") as caught:
        parsed(STORE + names).destination(wanted)
    assert "choose with --destination from: " in caught.value.hint


def test_references_are_a_url_or_a_mapping() -> None:
    settings = parsed(
        STORE + "references: {hg38: 's3://r/hg38/', mm10: {url: 's3://r/mm10/', path: /data/mm10}}"
    )
    assert settings.references == {
        "hg38": Reference("hg38", "s3://r/hg38/"),
        "mm10": Reference("mm10", "s3://r/mm10/", "/data/mm10"),
    }


@pytest.mark.parametrize(
    ("references", "reason"),
    [
        ("{hg38: 'http://x'}", "references.hg38: not an s3:// URI: 'http://x'"),
        ("{hg-38: 's3://r/a', hg_38: 's3://r/b'}", "share S3RUNNER_REF_HG_38"),
        ("{hg38: {url: 's3://r/a', path: ../x}}", "references.hg38.path: '../x' climbs out"),
        ("{hg38: {ulr: 's3://r/a'}}", "unknown key (did you mean 'url'?)"),
        ("{'h g': 's3://r/a'}", "'h g' is no name"),
    ],
)
def test_a_reference_that_cannot_be_staged_is_refused(references: str, reason: str) -> None:
    assert reason in refusal(f"{STORE}references: {references}")


def test_the_ca_bundle_is_read_beside_the_settings(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    settings = parsed("store: {url: s3://bkt/p, ca_bundle: ca.pem}", tmp_path)
    assert settings.store_config().ca_pem == CERTIFICATE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (CERTIFICATE * (MAX_CA_BYTES // len(CERTIFICATE) + 1), "larger than 65536 bytes"),
        (CERTIFICATE + "-----BEGIN PRIVATE KEY-----", "holds a private key"),
        ("nonsense", "not a PEM file with certificates"),
    ],
    ids=["missing", "large", "key", "nonsense"],
)
def test_a_ca_bundle_that_cannot_travel_is_refused(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    settings = parsed("store: {url: s3://bkt/p, ca_bundle: ca.pem}", tmp_path)
    with pytest.raises(SettingsError, match=reason):
        settings.store_config()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Return one file for each place where settings are looked for, the first one first."""
    user = tmp_path / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(user))
    found = {
        "flag": tmp_path / "flag.yml",
        "variable": tmp_path / "variable.yml",
        "here": tmp_path / "s3runner.yml",
        "user": user / "s3runner" / "s3runner.yml",
    }
    for name, path in found.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"store: {{url: s3://{name}-bucket/}}")
    return found


@pytest.mark.parametrize("first", ["flag", "variable", "here", "user"])
def test_settings_are_looked_for_in_one_order(
    places: dict[str, Path], tmp_path: Path, first: str
) -> None:
    order = list(places)
    for name in order[: order.index(first)]:
        places[name].unlink()
    flag = places["flag"] if first == "flag" else None
    environ = {"S3RUNNER_SETTINGS": str(places["variable"])} if first in order[:2] else {}
    found = load_settings(flag, environ, tmp_path)
    assert found.store_config().bucket == f"{first}-bucket"


def test_settings_that_were_named_but_are_not_there_are_an_error(
    places: dict[str, Path], tmp_path: Path
) -> None:
    places["variable"].unlink()
    with pytest.raises(SettingsError, match=r"variable\.yml: No such file"):
        load_settings(None, {"S3RUNNER_SETTINGS": str(places["variable"])}, tmp_path)


def test_without_settings_the_error_shows_how_to_write_them(
    places: dict[str, Path], tmp_path: Path
) -> None:
    for path in places.values():
        path.unlink()
    with pytest.raises(SettingsError, match="no settings found") as caught:
        load_settings(None, {}, tmp_path)
    assert "      url: s3://my-bucket/runs" in caught.value.hint
    assert "s3runner demo" in caught.value.hint


def test_the_example_of_that_error_is_good() -> None:
    assert parsed(EXAMPLE).store_config().endpoint == "https://minio.example"


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo, bool, str]]:
    """Yield every key that a settings file can have, and whether it stands for many."""
    for name, field in model.model_fields.items():
        origin = get_origin(field.annotation)
        many = origin is dict
        key = f"{prefix}{name}.NAME" if many else f"{prefix}{name}"
        below = list(models_in(get_args(field.annotation)[1] if many else field.annotation))
        if origin is not None or not below:
            yield key, field, many, sentences_of(model)[name]
        for inner in below:
            yield from keys_of(inner, f"{key}.")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def row_of(key: str, field: FieldInfo, many: bool, told: str) -> str:
    value = None if many or field.is_required() else field.get_default(call_default_factory=True)
    shown = "" if value in (None, "") else f"`{json.dumps(value)}`".replace('"', "")
    return f"| `{key}` | {'required' if field.is_required() else shown} | {told} |"


def test_the_table_of_the_documentation_is_the_models() -> None:
    lines = (ROOT / "docs/settings.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| `")]
    assert table == [row_of(*row) for row in keys_of(SettingsFile)]


def test_the_settings_that_are_shipped_hold_the_defaults() -> None:
    path = ROOT / "conf/s3runner.yml"
    settings = load_settings(path, {}, ROOT)
    assert settings.file == parsed("store: {url: s3://my-bucket/runs}").file


def test_the_settings_that_are_shipped_show_every_key() -> None:
    text = (ROOT / "conf/s3runner.yml").read_text()
    own = set(KubernetesFields.model_fields)
    keys = [key.removesuffix(".NAME").split(".") for key, *_ in keys_of(SettingsFile)]
    ends = {key[-1] for key in keys if not {*own, "then"} & {*key}}
    assert ends - _shown(text) - {"path", "request", "limit"} == set()
    examples = text.replace("references: {}", "references:")
    examples = re.sub(r"^( *)# (\w+: \S.*)$", r"\1\2", examples, flags=re.MULTILINE)
    examples = re.sub(r"^#(  \w+: \S.*)$", r"\1", examples, flags=re.MULTILINE)
    settings = parsed(examples)
    assert settings.file.store.profile == "s3runner"
    assert set(settings.references) == {"hg38", "mm10"}


def _shown(text: str) -> set[str]:
    return set(re.findall(r"(?:^\s*(?:# )?|[{ ])(\w+): ?", text, re.MULTILINE))


def test_the_destination_that_is_shipped_holds_the_defaults_and_shows_every_key() -> None:
    path = ROOT / "conf/s3runner-kubernetes.yml"
    shipped = load_settings(path, {}, ROOT)
    smallest = STORE.replace("bucket", "my-bucket") + (
        "destinations: {cluster: {cluster: kubernetes, credentials: {secret: s3-keys}}}"
    )
    assert shipped.destination() == parsed(smallest).destination()
    text = path.read_text()
    keys = [key.removesuffix(".NAME").split(".") for key, *_ in keys_of(SettingsFile)]
    below = {key[-1] for key in keys if {*key} & {*KubernetesFields.model_fields, "then"}}
    assert below - _shown(text) - {"request", "limit"} == set()
    examples = re.sub(r"^( *)# (\w+: \S.*)$", r"\1\2", text, flags=re.MULTILINE)
    other_form = "secret|access_key|secret_key|session_token|scratch|volumes|secret_env"
    examples = re.sub(rf"^ +({other_form}): .*$", "", examples, flags=re.MULTILINE)
    examples = re.sub(r"^#(  .*)$", r"  \1", examples, flags=re.MULTILINE)
    examples = examples.replace("# pod_endpoint", "pod_endpoint").replace(
        "  url:", "  insecure_http: true\n  url:"
    )
    place = parsed(examples).destination().kubernetes
    assert place is not None
    assert place.credentials.service_account == "s3runner-worker"
    assert len(place.pod.parts.volumes) == 6
    assert place.pod.parts.patches


def test_the_schema_knows_every_key() -> None:
    schema = json.dumps(settings_schema())
    for key, *_ in keys_of(SettingsFile):
        name = key.removesuffix(".NAME").rpartition(".")[2]
        assert f'"{name}": {{' in schema


def test_the_variable_is_read_from_the_process_by_default(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "S3RUNNER_SETTINGS", str(places["variable"]))
    assert load_settings().store_config().bucket == "variable-bucket"

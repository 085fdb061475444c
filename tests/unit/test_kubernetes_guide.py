"""docs/kubernetes.md: what it tells people to write is what the parsers and conf/k8s know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import s3runner
from s3runner.jobfile import load_job
from s3runner.settings import load_settings

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "kubernetes.md").read_text()
BLOCKS = re.findall(r"```yaml\n(# (\S+)\n.*?)```", GUIDE, flags=re.DOTALL)
SETTINGS = [text for text, name in BLOCKS if name == "s3runner.yml"]
JOBS = [text for text, name in BLOCKS if name == "job.yml"]


def laptop() -> dict[tuple[str, str], dict[str, object]]:
    """Return the objects of laptop.yaml by kind and name."""
    text = (ROOT / "conf" / "k8s" / "laptop.yaml").read_text()
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text)}


def test_there_are_examples_to_look_at() -> None:
    assert len(SETTINGS) >= 3
    assert JOBS


@pytest.mark.parametrize("text", SETTINGS, ids=range(len(SETTINGS)))
def test_the_settings_in_the_guide_are_settings(text: str, tmp_path: Path) -> None:
    path = tmp_path / "s3runner.yml"
    path.write_text(text)

    settings = load_settings(path, {}, tmp_path)

    assert settings.destination(None).cluster == "kubernetes"


@pytest.mark.parametrize("text", JOBS, ids=range(len(JOBS)))
def test_the_jobs_in_the_guide_are_jobs(text: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yml"
    path.write_text(text)
    (tmp_path / "in.txt").write_text("hello\n")

    assert load_job(path, {}).image


def test_the_first_settings_fit_the_laptops_objects() -> None:
    """Names that differ by a letter cost a reader an evening."""
    settings = yaml.safe_load(SETTINGS[0])
    destination, store = settings["destinations"]["default"], settings["store"]
    keys, objects = destination["credentials"], laptop()
    secret = objects["Secret", keys["secret"]]["stringData"]

    assert ("Namespace", destination["namespace"]) in objects
    assert isinstance(secret, dict)
    assert {keys["access_key"], keys["secret_key"]} == set(secret)
    assert store["pod_endpoint"] == "http://minio.s3runner.svc:9000"
    assert ("Service", "minio") in objects
    for value in secret.values():
        assert f"={value}" in GUIDE


def test_the_guide_speaks_of_this_version_of_the_worker_image() -> None:
    assert set(re.findall(r"s3runner-worker:(\S+?)[\s`]", GUIDE)) == {s3runner.__version__}


def test_every_file_of_the_folder_stands_in_the_guide() -> None:
    for path in (ROOT / "conf" / "k8s").glob("*.yaml"):
        assert f"conf/k8s/{path.name}" in GUIDE

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attempts import patient, put
from memory_store import MemoryStore

from s3runner.errors import SettingsError
from s3runner.galaxy.destinations import Places
from s3runner.galaxy.linking import Disk
from s3runner.model import Input
from s3runner.runner.runner import Runner

KEYS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
RUNNER = {
    "s3runner_cluster": "local",
    "s3runner_bucket": "lab-runs",
    "s3runner_endpoint": "https://s3.example",
    "k8s_namespace": None,
}
GALAXY = {"outputs_to_working_directory": True}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """The places of a plugin; what they keep lies in a directory of the test's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("S3RUNNER_STATE_DIR", str(tmp_path))
    return Places(RUNNER, GALAXY, KEYS)


def test_destinations_of_one_place_share_store_and_cluster(places: Places) -> None:
    """Rules may make up another destination for every job; each cluster is watched once."""
    one, two = (places.at("d", {"limits_memory": size}) for size in ("1Gi", "2Gi"))

    heads = one.runner.head, two.runner.head
    assert heads[0].cluster is heads[1].cluster
    assert [head.destination.resources.memory.limit for head in heads] == [
        "1073741824",
        "2147483648",
    ]


def test_relative_paths_start_at_the_given_directory(tmp_path: Path) -> None:
    """As for `s3runner job-conf`, wherever Galaxy itself was started."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "s3.yml").write_text("store: {url: 's3://other/x'}\n")
    (tmp_path / "conf" / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    destinations: dict[str, dict[str, Any]] = {
        "settings": {"s3runner_settings": "s3.yml"},
        "ca": {**RUNNER, "s3runner_ca_bundle": "ca.pem"},
    }

    Places({"s3runner_cluster": "local"}, GALAXY, KEYS, tmp_path / "conf").check(destinations)

    for name, path in (("settings", "s3.yml"), ("ca", "ca.pem")):
        elsewhere = Places({"s3runner_cluster": "local"}, GALAXY, KEYS, tmp_path)
        with pytest.raises(SettingsError, match=f"{tmp_path}/{path}|{path}.*no such"):
            elsewhere.check({name: destinations[name]})


def test_all_mistakes_of_all_destinations_are_told_at_the_start(places: Places) -> None:
    """Galaxy does not start, and says once what is wrong."""
    wrong: dict[str, dict[str, Any]] = {
        "good": {},
        "typo": {"s3runner_graze": "5s"},
        "bad": {"limits_memory": "lots", "k8s_data_volume_claim": "x:/y"},
    }

    with pytest.raises(SettingsError) as caught:
        places.check(wrong)

    lines = caught.value.reason.splitlines()
    assert len(lines) == 3
    assert ["typo" in line for line in lines] == [True, False, False]
    places.check({"good": {}})


LINKS = {"s3runner_sync": "link", "s3runner_mount": "/absent/mount"}


def test_links_are_refused_at_the_start_where_they_cannot_be(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Galaxy's disks, and by a bucket that is not seen; later the latter is no reason."""
    monkeypatch.setenv("HOME", str(tmp_path))
    disk = Disk((str(tmp_path / "objects"),), (str(tmp_path / "jobs"),))
    linked = Places(RUNNER, GALAXY, KEYS, disk=disk)

    with pytest.raises(SettingsError, match="d: s3runner_sync: links need an object store"):
        places.check({"d": LINKS})
    with pytest.raises(SettingsError, match="d: s3runner_sync: links need an object store"):
        places.at("d", {**LINKS})
    why = "d: s3runner_mount: the bucket is not seen in /absent/mount: No such file"
    for params in (LINKS, {"s3runner_mount": "/absent/mount"}):
        with pytest.raises(SettingsError, match=why):
            linked.check({"d": params})
    place = linked.at("d", LINKS)
    assert not place.linking.is_mounted()
    assert list(place.linking.directories) == [str(tmp_path / "objects")]
    verbs = place.verbs(lambda: {"a": "b"})
    assert verbs.results is not None
    assert verbs.inputs is None
    assert places.at("d", {}).verbs(dict).results is None


def test_a_volume_of_the_pods_and_a_reference_stand_for_what_lies_below(places: Places) -> None:
    """What a pod has, or gets from elsewhere in the bucket, is not staged from here."""
    place = places.at(
        "d",
        {
            "s3runner_local": "{read_only: [/cvmfs]}",
            "s3runner_references": "{db: {url: 's3://lab-runs/db', path: /data/db}}",
        },
    )
    store = MemoryStore("lab-runs")
    for name in ("hg.1.bt2", "hg.2.bt2", "other.1.bt2"):
        put(store, f"db/{name}", b"index")
    place = replace(place, runner=Runner(replace(place.runner.head, store=patient(store))))

    found = place.referenced("/data/db/hg")

    assert place.holds("/cvmfs/hg/seq")
    assert not place.holds("/cvmfs2/hg")
    assert found is not None
    assert list(found) == [
        Input(f"/data/db/hg.{number}.bt2", f"s3://lab-runs/db/hg.{number}.bt2") for number in (1, 2)
    ]
    assert place.referenced("/elsewhere/hg") is None

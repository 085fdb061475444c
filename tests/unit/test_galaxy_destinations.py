from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attempts import patient, put
from memory_store import MemoryStore

from s3runner.errors import SettingsError
from s3runner.galaxy.destinations import Places
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

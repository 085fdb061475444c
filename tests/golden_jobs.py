"""Golden Job objects: each is made of a settings file and a job file, as a head makes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import samples

from s3runner.cluster.job_object import job_object
from s3runner.cluster.pod_resources import automatic_disk, resources_of
from s3runner.jobfile import parse_job
from s3runner.model import Destination, Output, Quantity, StoreConfig
from s3runner.runner.decide import first_generation
from s3runner.settings import parse_settings
from s3runner.staging.records import Generation, Spec

GOLDEN = Path(__file__).parent / "golden"
SIZES = (5_000_000, 1)
NOWHERE = Path("/nowhere")

LOCAL: dict[str, Spec] = {
    "job": samples.spec(),
    "job-with-roots": samples.spec(
        outputs=(Output("/data/run1/out.txt"),), roots=("/data/run1", "/refs")
    ),
    "job-gpu": samples.spec(
        resources=dataclasses.replace(samples.spec().resources, gpu=2),
        destination=Destination(grace_s=100, max_evictions=5),
    ),
}
KUBERNETES = sorted(
    path.name.removesuffix(".in.yml") for path in GOLDEN.glob("kubernetes/*.in.yml")
)
PLACEMENTS = {"spot-then": 1}


def render(spec: Spec, store: StoreConfig = samples.STORE, placement: int = 0) -> dict[str, Any]:
    return job_object(spec, dataclasses.replace(first(spec), placement=placement), store)


def first(spec: Spec) -> Generation:
    return first_generation(spec, "sha256:" + "0" * 64, f"{spec.job_id}-g1")


def read_case(name: str) -> tuple[Spec, StoreConfig]:
    """Make a spec of a settings file and a job file, as a head does."""
    text = (GOLDEN / "kubernetes" / f"{name}.in.yml").read_text()
    settings_text, job_text = text.split("---\n")
    settings = parse_settings(settings_text, "s3runner.yml", NOWHERE)
    job = parse_job(job_text, "job.yml", NOWHERE, settings.references)
    where = settings.destination()
    assert where.kubernetes is not None
    resources = resources_of(job.resources, where.resources)
    shape = where.kubernetes.pod
    if resources.disk == Quantity():
        disk = automatic_disk(SIZES, shape, shape.parts.plus(job.pod), job.disk_factor)
        resources = dataclasses.replace(resources, disk=disk)
    spec = samples.spec(
        name=job.name,
        command=job.command,
        image=job.image,
        env=job.env,
        outputs=job.outputs,
        references={},
        resources=resources,
        walltime_s=job.walltime_s or where.default_walltime_s,
        destination=where,
        pod=job.pod,
    )
    return spec, settings.pod_store_config()


def rendered(name: str) -> dict[str, Any]:
    if name in LOCAL:
        return render(LOCAL[name])
    return render(*read_case(name), PLACEMENTS.get(name, 0))

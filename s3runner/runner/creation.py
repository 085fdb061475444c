"""Making a generation's Job, by whichever head comes by: recorded, created, noted, in this order.

A head that dies between two of these steps leaves it to the next one; none of them can happen
twice with a different result.
"""

from __future__ import annotations

from s3runner.cluster.job_object import job_object
from s3runner.errors import ObjectNotFoundError, SpecError
from s3runner.model import Phase
from s3runner.runner.head import Head
from s3runner.staging.manifest import dump_document
from s3runner.staging.records import Generation, Spec
from s3runner.store.retrying import read


def create_job(head: Head, spec: Spec, spec_digest: str, stage_in: Phase | None = None) -> None:
    """Record the first generation, create its Job, and note that it was created.

    Safe to repeat and to race: records are put if absent, and the cluster adopts a Job of the same
    spec. If the job was ended meanwhile, its Job is deleted again.
    """
    keys = head.layout.job(spec.job_id)
    generation = Generation(
        number=1, job_name=keys.job_name(1), spec_digest=spec_digest, stage_in=stage_in
    )
    head.store.put_if_absent(keys.generation(1), generation.dump())
    uid = head.cluster.submit(job_object(spec, 1, spec_digest, head.pod_config))
    created = dump_document({"generation": 1, "job_uid": uid})
    head.store.put_if_absent(keys.generation_created(1), created)
    if head.read_commit(spec.job_id) is not None:
        head.cluster.delete(keys.job_name(1))


def was_created(head: Head, job_id: str) -> bool:
    """Tell whether the first generation's Job was ever created."""
    try:
        head.store.head(head.layout.job(job_id).generation_created(1))
    except ObjectNotFoundError:
        return False
    return True


def put_spec(head: Head, spec: Spec, body: bytes) -> None:
    """Store the spec under its new id. Raises SpecError if another document has that id."""
    key = head.layout.job(spec.job_id).spec
    # 412 after a lost answer can be our own: only reading it back tells
    if not head.store.put_if_absent(key, body) and read(head.store, key) != body:
        raise SpecError("another document is there already", target=head.config.uri(key))

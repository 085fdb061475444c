"""Making a generation's Job, by whichever head comes by: recorded, created, noted, in this order.

A head that dies between two of these steps leaves it to the next one; none of them can happen
twice with a different result.
"""

from __future__ import annotations

from s3runner.cluster.job_object import job_object
from s3runner.errors import ObjectNotFoundError, SpecError
from s3runner.runner.head import Head
from s3runner.staging.manifest import dump_document
from s3runner.staging.records import Generation, Spec
from s3runner.store.retrying import read


def record_generation(head: Head, job_id: str, generation: Generation) -> Generation:
    """Store a generation's record unless there is one; return the one that stands.

    This is how heads agree: who comes second follows the first.
    """
    key = head.layout.job(job_id).generation(generation.number)
    if head.store.put_if_absent(key, generation.dump()):
        return generation
    return Generation.load(read(head.store, key), head.config.uri(key))


def create_job(head: Head, spec: Spec, generation: Generation) -> None:
    """Create a recorded generation's Job, and note that it was created.

    Safe to repeat and to race: the cluster adopts a Job of the same spec. The Job before it goes
    first: who recorded this generation may have died before that. If the job was ended meanwhile,
    its Job is deleted again.
    """
    created = job_object(spec, generation, head.pod_config)
    if generation.number > 1:
        head.cluster.delete(head.layout.job(spec.job_id).job_name(generation.number - 1))
    note_created(head, spec.job_id, generation.number, head.cluster.submit(created))
    if head.read_commit(spec.job_id) is not None:
        head.cluster.delete(generation.job_name)


def note_created(head: Head, job_id: str, number: int, uid: str) -> None:
    """Note that a generation's Job was created: once it is gone, no head makes it again."""
    created = dump_document({"generation": number, "job_uid": uid})
    head.store.put_if_absent(head.layout.job(job_id).generation_created(number), created)


def was_created(head: Head, job_id: str, number: int) -> bool:
    """Tell whether a generation's Job was ever created."""
    try:
        head.store.head(head.layout.job(job_id).generation_created(number))
    except ObjectNotFoundError:
        return False
    return True


def newest_generation(head: Head, job_id: str) -> Generation | None:
    """Return the record with the highest number, None if there is none yet."""
    return newest_with_note(head, job_id)[0]


def newest_with_note(head: Head, job_id: str) -> tuple[Generation | None, bool]:
    """Return the newest record, and whether it was noted by then that its Job was created."""
    keys = head.layout.job(job_id)
    found = {item.key for item in head.store.list(keys.generations_prefix)}
    stems = (key[len(keys.generations_prefix) :].removesuffix(".json") for key in found)
    numbers = [int(stem) for stem in stems if stem.isdecimal()]
    if not numbers:
        return None, False
    key = keys.generation(max(numbers))
    record = Generation.load(read(head.store, key), head.config.uri(key))
    return record, keys.generation_created(max(numbers)) in found


def put_spec(head: Head, spec: Spec, body: bytes) -> None:
    """Store the spec under its new id. Raises SpecError if another document has that id."""
    key = head.layout.job(spec.job_id).spec
    # 412 after a lost answer can be our own: only reading it back tells
    if not head.store.put_if_absent(key, body) and read(head.store, key) != body:
        raise SpecError("another document is there already", target=head.config.uri(key))

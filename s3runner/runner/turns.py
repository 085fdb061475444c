"""Whose turn it is: Jobs are made while their destination has room, the oldest job's first.

It stands apart from creation because a head that waits with its job makes those before it too,
whoever submitted them: a job that nobody waits for would hold up the others.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from s3runner.errors import ClusterRefusedError, ObjectNotFoundError, SettingsError, SpecError
from s3runner.runner.creation import create_job, newest_generation, was_created
from s3runner.runner.head import Head
from s3runner.staging.manifest import document_digest, dump_document
from s3runner.staging.records import Generation, Spec


@dataclass(frozen=True, slots=True)
class Room:
    """The Jobs of a destination that are not over, and how many there may be."""

    destination: str
    active: tuple[str, ...]
    most: int

    def __str__(self) -> str:
        """Say it to the user."""
        counted = f"{len(self.active)} of {self.most} jobs active"
        return f"{counted} on destination {self.destination}"

    @property
    def is_full(self) -> bool:
        """Tell whether a job has to wait."""
        return len(self.active) >= self.most


def make_job(head: Head, spec: Spec, generation: Generation) -> Room | None:
    """Create a recorded generation's Job if it is its turn and there is room.

    Returns None when it was made, else what there is no room in: the job then has a place in the
    queue, and every head of this cluster that comes by makes it when it is the oldest.

    The bound is a soft one. Heads that see the same queue make the same Job, which is made once;
    only where an older job comes in between may each head that makes a Job then go over by one.
    """
    if spec.destination.max_active is None:
        create_job(head, spec, generation)
        return None
    # the queue before the count, here, and the Job before its place goes, below: a head that no
    # longer sees the place does see the Job
    for job_id in _queue_with(head, spec):
        room = count_active(head, spec)
        if room is not None and room.is_full:
            return room
        if job_id == spec.job_id:
            create_job(head, spec, generation)
            leave_queue(head, spec)
            break
        # what is wrong with another's job is for those to hear who ask for it
        with contextlib.suppress(SpecError, SettingsError, ClusterRefusedError):
            if _make_for_another(head, job_id):
                head.store.delete(f"{_places(head, spec)}{job_id}")
    return None


def count_active(head: Head, spec: Spec) -> Room | None:
    """Ask the cluster for the active Jobs of a job's destination; None if it has no bound."""
    where = spec.destination
    if where.max_active is None:
        return None
    return Room(where.name, tuple(sorted(head.cluster.active(where.name))), where.max_active)


def leave_queue(head: Head, spec: Spec) -> None:
    """Give up the job's place, if it may have one."""
    if spec.destination.max_active is not None:
        head.store.delete(f"{_places(head, spec)}{spec.job_id}")


def _queue_with(head: Head, spec: Spec) -> list[str]:
    """Return the ids of the jobs that wait, the oldest first; this one is among them."""
    places = _places(head, spec)
    waiting = [item.key[len(places) :] for item in head.store.list(places)]
    if spec.job_id not in waiting:
        place = dump_document({"job_id": spec.job_id})
        head.store.put_if_absent(f"{places}{spec.job_id}", place)
        waiting.append(spec.job_id)
    return sorted(waiting)


def _make_for_another(head: Head, job_id: str) -> bool:
    """Create the Job of a job that waits, unless it was made or decided meanwhile, or is gone.

    Returns False if it goes on waiting: this head would make another Job than its submitter's.
    """
    try:
        spec, _ = head.read_spec(job_id)
        newest = newest_generation(head, job_id)
    except (SettingsError, ObjectNotFoundError):
        return True
    if newest is None or newest.end is not None or was_created(head, job_id, newest.number):
        return True
    if head.read_commit(job_id) is None:
        if not head.makes_jobs_of(spec.destination):
            return False
        create_job(head, spec, newest)
    return True


def _places(head: Head, spec: Spec) -> str:
    cluster = document_digest(dump_document(dict(spec.cluster)))
    return head.layout.queue(spec.destination.name, cluster)

"""Creating a Job exactly once, and trying it out before anything is uploaded.

Apart from the adapter's watching: here an answer may be lost, and a name may be taken.
"""

from __future__ import annotations

from s3runner.cluster.kubernetes.api_errors import NotThereError, TakenError
from s3runner.cluster.kubernetes.calls import JOBS, Call
from s3runner.cluster.kubernetes.transport import Connection
from s3runner.cluster.protocol import NO_IMAGE, JobObject
from s3runner.errors import ClusterRefusedError, ClusterUnavailableError

_DIGEST = "s3runner/spec-digest"
_STRICT = {"fieldManager": "s3runner", "fieldValidation": "Strict"}


def create(connection: Connection, job: JobObject) -> JobObject:
    """Return the Job as the cluster has it: made now, or earlier of the same spec. One try.

    Raises ClusterRefusedError when the name is taken by a Job of another spec.
    """
    name = job["metadata"]["name"]
    try:
        return connection.ask(Call("create", JOBS, name), _STRICT, job).body
    except TakenError:
        pass
    try:
        there = connection.ask(Call("get", JOBS, name)).body
    except NotThereError as error:
        # deleted between the two calls, so another try makes it
        raise ClusterUnavailableError(error.reason) from error
    wanted, found = _digest(job), _digest(there)
    if wanted is None or wanted != found:
        raise ClusterRefusedError(
            f"a Job of this name is there already, of another spec ({found}; this one: {wanted})",
            operation="create jobs",
            target=f"{name} in namespace {connection.namespace}",
            hint=f"kubectl describe job {name} --namespace {connection.namespace}",
        )
    if "deletionTimestamp" in there["metadata"]:
        # adopted it would vanish, and its name is free soon
        raise ClusterUnavailableError("a Job of this name is still being deleted", target=name)
    return there


def rehearse(connection: Connection, job: JobObject) -> list[str]:
    """Have the cluster check a Job without making it, and return what it warns of.

    Raises ClusterRefusedError for a Job that it would not take. A cluster that does not answer now
    may do so later, and one whose webhooks know no rehearsal does not say.
    """
    refuse_without_image(job)
    name = job["metadata"]["name"]
    try:
        reply = connection.ask(Call("create", JOBS, name), {**_STRICT, "dryRun": "All"}, job)
    except ClusterUnavailableError as error:
        return [f"the cluster could not be asked whether it takes the Job: {error}"]
    except TakenError:
        return []
    except ClusterRefusedError as error:
        if "does not support dry run" in error.reason:
            return []
        raise
    return [f"the cluster warns: {text}" for text in reply.warnings]


def refuse_without_image(job: JobObject) -> None:
    """Raise ClusterRefusedError for a container whose image nobody named."""
    pod = job["spec"]["template"]["spec"]
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        if container["image"] == NO_IMAGE:
            raise ClusterRefusedError(
                "a job on Kubernetes needs an image",
                target=str(job["metadata"]["name"]),
                hint="set `image` in the job file",
            )


def _digest(job: JobObject) -> str | None:
    return (job["metadata"].get("annotations") or {}).get(_DIGEST)

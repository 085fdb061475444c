"""One attempt, as its containers find it: who it is, where things lie, which store.

Everything comes from the environment that `cluster.job_object` wrote; nothing else is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from s3runner.errors import SpecError
from s3runner.model import Manifest, StoreConfig
from s3runner.staging.layout import AttemptLayout, JobLayout, StoreLayout
from s3runner.staging.manifest import load_manifest, parse_document
from s3runner.staging.named import read_named
from s3runner.staging.records import ExternalManifest, Generation, Spec
from s3runner.store.credentials import credentials_from_environment
from s3runner.store.obstore_store import ObstoreStore
from s3runner.store.retrying import Retry, RetryingStore, read

_REFERENCES = "/s3runner/references/"


@dataclass(frozen=True)
class Attempt:
    """One pod of one generation, with its store. Documents are read once, when first asked for."""

    job_id: str
    generation_number: int
    spec_digest: str
    uid: str
    control: str
    work: str
    references: str
    config: StoreConfig
    store: RetryingStore

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Attempt:
        """Read the container's environment. Raises SpecError for a variable that is not there."""
        try:
            config = StoreConfig(**json.loads(environ["S3RUNNER_STORE"]))
            job = json.loads(environ["S3RUNNER_JOB"])
            store = ObstoreStore(config, credentials_from_environment(environ))
            return cls(
                job_id=job["job_id"],
                generation_number=job["generation"],
                spec_digest=job["spec_digest"],
                uid=environ["S3RUNNER_ATTEMPT"],
                control=environ["S3RUNNER_CONTROL"],
                work=environ["S3RUNNER_WORK"],
                references=environ["S3RUNNER_REFERENCES"],
                config=config,
                store=RetryingStore(store, Retry(budget_s=config.retry_budget_s)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(f"the pod's environment is incomplete: {error}") from error

    @cached_property
    def job(self) -> JobLayout:
        """The job's keys."""
        return StoreLayout(self.config.prefix).job(self.job_id)

    @cached_property
    def keys(self) -> AttemptLayout:
        """The attempt's own keys."""
        return self.job.attempt(self.uid)

    @cached_property
    def spec(self) -> Spec:
        """The spec, checked against the digest that the Job object carries."""
        origin = self.config.uri(self.job.spec)
        body = read_named(self.store, self.job.spec, self.spec_digest, origin)
        return Spec.load(body, origin)

    @cached_property
    def generation(self) -> Generation:
        """The generation's record."""
        key = self.job.generation(self.generation_number)
        return Generation.load(read(self.store, key), self.config.uri(key))

    @cached_property
    def inputs(self) -> Manifest:
        """What fetch brings: the spec's own manifest, or the one beside it."""
        inputs = self.spec.inputs
        if not isinstance(inputs, ExternalManifest):
            return inputs
        origin = self.config.uri(inputs.key)
        body = read_named(self.store, inputs.key, inputs.digest, origin)
        return load_manifest(parse_document(body, origin), origin)

    def place(self, path: str) -> str:
        """Return where a path of the manifest or of an output lies in this container."""
        if path.startswith(_REFERENCES):
            return f"{self.references}/{path[len(_REFERENCES) :]}"
        return path if path.startswith("/") else f"{self.work}/{path}"

    def control_file(self, name: str) -> str:
        """Return the path of a file that the containers share (docs/protocol.md)."""
        return f"{self.control}/{name}"

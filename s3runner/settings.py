"""Where jobs run and where their files go: `s3runner.yml`, found, read and checked.

It stands at the edge: everything below takes the plain values that the methods of `Settings`
return, and never sees a settings file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import platformdirs

from s3runner.documented import documented_schema
from s3runner.errors import SettingsError
from s3runner.model import Destination, Reference, Retry, StoreConfig
from s3runner.nearest import did_you_mean
from s3runner.settings_model import SettingsFile, split_url
from s3runner.yamlfile import Document, check, parse_yaml, read_yaml

FILE_NAME = "s3runner.yml"
VARIABLE = "S3RUNNER_SETTINGS"
MAX_CA_BYTES = 64 * 1024
"""A CA bundle travels inside the Job object, and the cluster limits that object's size."""

EXAMPLE = """\
store:
  url: s3://my-bucket/runs
  endpoint: https://minio.example   # leave this line out on AWS
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a settings file says, as the values that the layers below take.

    `origin` names the file in messages; relative paths in it start at `base_dir`.
    """

    file: SettingsFile
    origin: str
    base_dir: Path

    @property
    def profile(self) -> str | None:
        """The AWS profile to take credentials from."""
        return self.file.store.profile

    @property
    def blob_ttl_s(self) -> float:
        """How long gc leaves a blob alone."""
        return self.file.store.blob_ttl

    @property
    def job_ttl_s(self) -> float:
        """How long gc leaves a job alone after its end."""
        return self.file.store.job_ttl

    @property
    def destination_names(self) -> tuple[str, ...]:
        """The names of all places to run."""
        return tuple(self.file.destinations)

    @property
    def references(self) -> dict[str, Reference]:
        """The references by name."""
        return {
            name: Reference(name, item)
            if isinstance(item, str)
            else Reference(name, item.url, item.path)
            for name, item in self.file.references.items()
        }

    def store_config(self) -> StoreConfig:
        """Return the store as this machine sees it. Reads the CA bundle; raises SettingsError."""
        store = self.file.store
        bucket, prefix = split_url(store.url)
        return StoreConfig(
            bucket=bucket,
            prefix=prefix,
            endpoint=store.endpoint,
            region=store.region,
            path_style=store.path_style,
            ca_pem=self._read_ca(store.ca_bundle) if store.ca_bundle is not None else None,
            insecure_http=store.insecure_http,
            retry_budget_s=store.retry_budget_s,
        )

    def pod_store_config(self) -> StoreConfig:
        """Return the store as the pods see it."""
        config = self.store_config()
        return replace(config, endpoint=self.file.store.pod_endpoint or config.endpoint)

    def destination(self, name: str | None = None) -> Destination:
        """Return a destination; without a name `default`, or the only one there is.

        Raises SettingsError for a name that is not there, or where one has to be chosen.
        """
        known = self.file.destinations
        wanted = name
        if wanted is None:
            wanted = "default" if "default" in known or len(known) > 1 else next(iter(known))
        found = known.get(wanted)
        if found is None:
            near = did_you_mean(wanted, known)
            raise SettingsError(
                f"{self.origin}: destinations: there is no {wanted!r}{near}",
                hint=f"choose with --destination from: {', '.join(known)}",
            )
        return Destination(
            name=wanted,
            cluster=found.cluster,
            worker_image=found.worker_image,
            grace_s=_whole_seconds(found.grace),
            start_timeout_s=_whole_seconds(found.start_timeout),
            staging_timeout_s=_whole_seconds(found.staging_timeout),
            pending_timeout_s=_whole_seconds(found.pending_timeout),
            default_walltime_s=_whole_seconds(found.walltime),
            max_evictions=found.spot.max_evictions,
            retry=Retry(**found.retry.model_dump()),
            read_only=tuple(found.local.read_only),
            max_active=found.max_active,
            resources=found.resources.values(),
            kubernetes=found.place(
                tuple(each.placement() for each in found.spot.then), found.resources.disk_factor
            ),
        )

    def kubeconfig(self, destination: str) -> str | None:
        """Return the kubeconfig that a destination names; it stays on this machine."""
        name = self.file.destinations[destination].kubeconfig
        return None if name is None else str(self.base_dir / Path(name).expanduser())

    def _read_ca(self, name: str) -> str:
        path = self.base_dir / Path(name).expanduser()
        where = f"{self.origin}: store.ca_bundle: {path}"
        try:
            with path.open("rb") as file:
                pem = file.read(MAX_CA_BYTES + 1)
            text = pem.decode()
        except OSError as error:
            raise SettingsError(f"{where}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SettingsError(f"{where}: not a PEM file") from error
        if len(pem) > MAX_CA_BYTES:
            raise SettingsError(
                f"{where}: larger than {MAX_CA_BYTES} bytes",
                hint="it travels inside the Job object: name a file with your own CA only",
            )
        if "PRIVATE KEY" in text:
            raise SettingsError(f"{where}: holds a private key, and would be sent to the cluster")
        if "BEGIN CERTIFICATE" not in text:
            raise SettingsError(f"{where}: not a PEM file with certificates")
        return text


def load_settings(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
) -> Settings:
    """Find and read the settings. Raises SettingsError, which says where it looked.

    The order: `path`, the variable S3RUNNER_SETTINGS, `s3runner.yml` in `cwd`, then in the user's
    configuration directory. The first that is there is the only one read.
    """
    found = _find(path, environ, cwd if cwd is not None else Path.cwd())
    return _settings(read_yaml(found), found.parent.absolute())


def parse_settings(text: str, origin: str, base_dir: Path) -> Settings:
    """Check settings that are at hand as text. Raises SettingsError."""
    return _settings(parse_yaml(text, origin), base_dir)


def settings_schema() -> dict[str, Any]:
    """Return the JSON Schema of a settings file."""
    return documented_schema(SettingsFile)


def _settings(document: Document, base_dir: Path) -> Settings:
    return Settings(check(document, SettingsFile), document.origin, base_dir)


def _find(path: Path | None, environ: Mapping[str, str], cwd: Path) -> Path:
    if path is not None:
        return path
    if environ.get(VARIABLE):
        return Path(environ[VARIABLE])
    user = Path(platformdirs.user_config_dir("s3runner")) / FILE_NAME
    for candidate in (cwd / FILE_NAME, user):
        if candidate.exists():
            return candidate
    example = "".join(f"    {line}\n" for line in EXAMPLE.splitlines())
    raise SettingsError(
        f"no settings found: no --settings, no ${VARIABLE}, no {cwd / FILE_NAME}, no {user}",
        hint=f"write {FILE_NAME}:\n{example}or see it work without a store: s3runner demo",
    )


def _whole_seconds(seconds: float) -> int:
    return max(1, round(seconds))

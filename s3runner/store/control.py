"""What needs boto3: the credentials chain, and what is asked of a bucket as a whole.

The only module that knows boto3, which takes most of a second to import: others import this one
where they need it. No data goes through here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    ProfileNotFound,
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as NoConnectionError,
)

from s3runner.errors import (
    S3RunnerError,
    SettingsError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
)
from s3runner.model import Credentials, S3Uri, StoreConfig
from s3runner.store.protocol import OpenUpload
from s3runner.store.s3_errors import explain_answer, store_error

_DEFAULT_REGION = "us-east-1"
_PAGE = 1000
_REQUESTS = 8
"""Pages that are deleted at once."""
_NO_KEYS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, write ~/.aws/credentials, "
    "or name a profile in store.profile"
)


def resolve_credentials(profile: str | None = None) -> Callable[[], Credentials]:
    """Find keys as botocore does, and return a function that gives them, fresh, at any time.

    Raises SettingsError for an unknown profile and StoreAccessError when there are none; the
    function raises StoreAccessError when they cannot be renewed.
    """
    session = botocore.session.Session(profile=profile)
    try:
        found = session.get_credentials()
    except ProfileNotFound as error:
        raise SettingsError(f"store.profile: {error}") from error
    except BotoCoreError as error:
        raise StoreAccessError(f"no credentials: {error}", hint=_NO_KEYS_HINT) from error
    if found is None:
        raise StoreAccessError("no credentials", hint=_NO_KEYS_HINT)

    def fresh() -> Credentials:
        try:
            keys = found.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise StoreAccessError(f"the credentials cannot be renewed: {error}") from error
        if not keys.access_key or not keys.secret_key:
            raise StoreAccessError("no credentials", hint=_NO_KEYS_HINT)
        return Credentials(keys.access_key, keys.secret_key, keys.token)

    fresh()
    return fresh


def check_bucket(
    config: StoreConfig, credentials: Credentials | Callable[[], Credentials] | None
) -> None:
    """Ask for one key below the prefix, as a check of the bucket, its region and the keys.

    A HEAD would be answered without a reason. Raises StoreAccessError, or
    StoreUnavailableError when there is no answer.
    """
    with _client(config, credentials) as client, _translated(config, "ListObjects"):
        prefix = f"{config.prefix}/" if config.prefix else ""
        answer = client.list_objects_v2(Bucket=config.bucket, Prefix=prefix, MaxKeys=1)
    # at AWS boto3 goes on in the bucket's own region by itself; the data path does not
    lies_in = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
    asked = config.region or _DEFAULT_REGION
    if config.endpoint is None and lies_in not in (None, asked):
        raise StoreAccessError(
            f"the bucket lies in {lies_in}, not in {asked} (ListObjects)",
            source=config.uri(""),
            hint=f"set store.region: {lies_in}",
        )


def create_bucket(
    config: StoreConfig, credentials: Credentials | Callable[[], Credentials] | None
) -> None:
    """Create the bucket; one that is ours already is no error."""
    request: dict[str, Any] = {"Bucket": config.bucket}
    region = config.region or _DEFAULT_REGION
    if region != _DEFAULT_REGION:
        request["CreateBucketConfiguration"] = {"LocationConstraint": region}
    with _client(config, credentials) as client, _translated(config, "CreateBucket"):
        try:
            client.create_bucket(**request)
        except client.exceptions.BucketAlreadyOwnedByYou:
            return


class BucketControl:
    """What gc asks of the bucket beside its objects; each call tries once (`StoreControl`)."""

    def __init__(
        self, config: StoreConfig, credentials: Credentials | Callable[[], Credentials] | None
    ) -> None:
        self._config = config
        self._credentials = credentials

    def now(self) -> datetime:
        """Return the time that the store's answers carry. Raises StoreError if they do not."""
        with self._calling("ListObjects") as client:
            answer = client.list_objects_v2(
                Bucket=self._config.bucket, Prefix=self._config.prefix, MaxKeys=1
            )
        told = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            return parsedate_to_datetime(told).astimezone(timezone.utc)
        except ValueError as error:
            uri = self._config.uri("")
            raise StoreError(
                f"the store does not say what time it is: {told!r}", source=uri
            ) from error

    def idle_uploads(self, prefix: str, before: datetime) -> list[OpenUpload]:
        """Return the uploads below `prefix` that nobody has begun or added to since `before`."""
        idle: list[OpenUpload] = []
        with self._calling("ListMultipartUploads") as client:
            pages = client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._config.bucket, Prefix=prefix, PaginationConfig={"PageSize": _PAGE}
            )
            for upload in (item for page in pages for item in page.get("Uploads", ())):
                parts = self._parts(client, upload) if upload["Initiated"] < before else None
                if parts is not None and all(part["LastModified"] < before for part in parts):
                    size = sum(part["Size"] for part in parts)
                    idle.append(OpenUpload(upload["Key"], upload["UploadId"], size))
        return idle

    def delete(self, keys: Sequence[str]) -> dict[str, S3RunnerError]:
        """Delete objects, 1000 a request; return by its key why one is left there."""
        pages = [keys[start : start + _PAGE] for start in range(0, len(keys), _PAGE)]
        with self._calling("DeleteObjects") as client, ThreadPoolExecutor(_REQUESTS) as threads:
            client.meta.events.register("before-call.s3.DeleteObjects", _add_md5)
            answers = threads.map(
                lambda page: client.delete_objects(
                    Bucket=self._config.bucket,
                    Delete={"Objects": [{"Key": key} for key in page], "Quiet": True},
                ),
                pages,
            )
            left = [item for answer in answers for item in answer.get("Errors", ())]
        # an answer of 200 may say of each key that it is still there
        region = self._config.region or _DEFAULT_REGION
        return {
            item["Key"]: explain_answer(
                0,
                item.get("Code", ""),
                request="DeleteObjects",
                uri=self._config.uri(item["Key"]),
                region=region,
            )
            for item in left
            if item.get("Code") != "NoSuchKey"
        }

    def abort(self, uploads: Sequence[OpenUpload]) -> None:
        """Abort uploads and free what has arrived; one that is over is no error."""
        if not uploads:
            return
        with self._calling("AbortMultipartUpload") as client:
            for upload in uploads:
                with contextlib.suppress(client.exceptions.NoSuchUpload):
                    client.abort_multipart_upload(
                        Bucket=self._config.bucket, Key=upload.key, UploadId=upload.upload_id
                    )

    def _parts(self, client: Any, upload: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
        """Return what has arrived of an upload; None if it is over."""
        pages = client.get_paginator("list_parts").paginate(
            Bucket=self._config.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
        )
        try:
            return [part for page in pages for part in page.get("Parts", ())]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "NoSuchUpload":
                return None
            raise

    @contextlib.contextmanager
    def _calling(self, request: str) -> Iterator[Any]:
        with _client(self._config, self._credentials) as client, _translated(self._config, request):
            yield client


def _add_md5(params: dict[str, Any], **_: object) -> None:
    """Add the one checksum of a request's body that every store takes for DeleteObjects."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


@contextlib.contextmanager
def _client(
    config: StoreConfig, credentials: Credentials | Callable[[], Credentials] | None
) -> Iterator[Any]:
    """Make a client that tries once; the CA bundle is a file while it lives."""
    given = credentials() if callable(credentials) else credentials
    keys: dict[str, Any] = {}
    if given is not None:
        keys["aws_access_key_id"] = given.access_key
        keys["aws_secret_access_key"] = given.secret_key
        keys["aws_session_token"] = given.session_token
    path_style = config.endpoint is not None if config.path_style is None else config.path_style
    settings: dict[str, Any] = {
        "connect_timeout": 10,
        "read_timeout": 30,
        "retries": {"total_max_attempts": 1},
        "s3": {"addressing_style": "path" if path_style else "virtual"},
        "ignore_configured_endpoint_urls": True,
        # without these, stores other than AWS refuse the checksums that newer versions add
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    with contextlib.ExitStack() as stack:
        bundle = None
        if config.ca_pem:
            file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".pem"))
            file.write(config.ca_pem)
            file.flush()
            bundle = file.name
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=config.endpoint,
            region_name=config.region or _DEFAULT_REGION,
            verify=bundle,
            config=Config(**settings),
            **keys,
        )
        stack.callback(client.close)
        yield client


@contextlib.contextmanager
def _translated(config: StoreConfig, request: str) -> Iterator[None]:
    """Turn what boto3 raises into our errors, and nothing else."""
    uri = str(S3Uri(config.bucket, config.prefix))
    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        region = config.region or _DEFAULT_REGION
        raise explain_answer(status, code, request=request, uri=uri, region=region) from error
    except BotoCoreError as error:
        raise _explain_silence(error, request, uri) from error


def _explain_silence(error: BotoCoreError, request: str, uri: str) -> S3RunnerError:
    if isinstance(error, SSLError):
        hint = "set store.ca_bundle to the PEM file of the authority that signed it"
        meaning = "the store's certificate is not trusted"
        return store_error(StoreAccessError, meaning, request=request, uri=uri, hint=hint)
    if isinstance(error, (NoConnectionError, HTTPClientError)):
        return store_error(StoreUnavailableError, "no answer", request=request, uri=uri)
    if isinstance(error, NoCredentialsError):
        meaning = "no credentials"
        return store_error(StoreAccessError, meaning, request=request, uri=uri, hint=_NO_KEYS_HINT)
    return store_error(StoreError, str(error), request=request, uri=uri)

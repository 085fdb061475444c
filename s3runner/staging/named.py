"""Reading a document that another one names by its digest.

Apart from `records`, which is pure: here bytes that are not the named ones are asked for again.
"""

from __future__ import annotations

from functools import partial

from s3runner.staging.records import check_digest
from s3runner.store.protocol import ObjectStore
from s3runner.store.retrying import read


def read_named(store: ObjectStore, key: str, digest: str, origin: str) -> bytes:
    """Return the document. Raises DamagedDocumentError (22) naming `origin`; the store's errors."""
    return read(store, key, check=partial(check_digest, expected=digest, origin=origin))

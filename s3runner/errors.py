"""Every error of ours, in one tree.

It stands at the bottom so that each layer can raise the same classes: an exception always means
that s3runner failed, never that the user's tool did (that is an outcome, see `model.Outcome`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

_TOLD = 10
"""So many failures of a stage are told in one line of JSON."""


class S3RunnerError(Exception):
    """Something s3runner could not do, told in one sentence.

    `code` is the number of DESIGN's outcome table (docs/cli.md, "Codes"); a pod exits with it and
    the message shows it as `[E21]`. `temporary` says that trying the same again may help.
    """

    code: ClassVar[int] = 70
    temporary: ClassVar[bool] = False

    def __init__(
        self,
        reason: str,
        *,
        operation: str = "",
        source: str = "",
        target: str = "",
        tries: int = 0,
        hint: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.operation = operation
        self.source = source
        self.target = target
        self.tries = tries
        self.hint = hint

    def during(self, operation: str, *, source: str = "", target: str = "") -> S3RunnerError:
        """Fill in what the lower layer could not know; what it did say stays. Returns itself."""
        self.operation = self.operation or operation
        self.source = self.source or source
        self.target = self.target or target
        return self

    def __str__(self) -> str:
        """Compose `operation source -> target: reason (N tries)`, control characters escaped."""
        route = " -> ".join(printable(part) for part in (self.source, self.target) if part)
        head = " ".join(part for part in (self.operation, route) if part)
        tries = f" ({self.tries} tries)" if self.tries > 1 else ""
        return f"{head}: {self.reason}{tries}" if head else f"{self.reason}{tries}"

    def to_json(self) -> dict[str, object]:
        """Return the `error` object of `--json` and of result.json."""
        return {
            "operation": self.operation,
            "source": printable(self.source),
            "target": printable(self.target),
            "reason": self.reason,
            "tries": self.tries,
            "hint": self.hint,
        }


class SettingsError(S3RunnerError):
    """The settings, the job file or the command line are wrong; nothing was started."""

    code = 20


class UnknownJobError(SettingsError):
    """There is no job of that id in this store."""


class SpecError(S3RunnerError):
    """A stored document (spec, manifest, result, commit) is damaged or of another protocol."""

    code = 20


class InputError(S3RunnerError):
    """A declared input is missing, unreadable, or changed while it was staged."""

    code = 21


class IntegrityError(S3RunnerError):
    """Bytes arrived that are not the bytes that were sent. Worth another try."""

    code = 22
    temporary = True


class DamagedDocumentError(SpecError, IntegrityError):
    """A stored document has other bytes than the digest says that another one names it by."""

    code = 22


class LocalAccessError(S3RunnerError):
    """A local directory that s3runner may not write to."""

    code = 23


class NoSpaceError(S3RunnerError):
    """A disk is full (blocks, inodes or quota)."""

    code = 24


class UnsupportedError(S3RunnerError):
    """A file, name or size that s3runner refuses rather than changes."""

    code = 25


class OutputMissingError(S3RunnerError):
    """A declared output was not written."""

    code = 26


class OutputConflictError(S3RunnerError):
    """An existing local directory differs from the output that would replace it."""

    code = 28


class StoreError(S3RunnerError):
    """The store refused a request for a reason with no class of its own."""

    code = 30


class ObjectNotFoundError(StoreError):
    """The store said 404 for this key; nothing else is read as absence."""

    code = 21


class ObjectChangedError(StoreError):
    """If-Match failed: the object is not the one that was named at submission."""

    code = 21


class StoreAccessError(StoreError):
    """Denied: credentials, clock, bucket policy, or no such bucket."""

    code = 23


class StoreUnavailableError(StoreError):
    """No answer, a broken answer, or one that says "later": worth another try.

    `wait_s` is for how long the server asked to be left alone.
    """

    code = 30
    temporary = True
    wait_s: float = 0.0


class ClusterUnavailableError(S3RunnerError):
    """The cluster does not answer."""

    code = 31
    temporary = True


class ClusterRefusedError(S3RunnerError):
    """The cluster refused (rights, quota, a name that is taken by another Job)."""

    code = 32


class StagingError(S3RunnerError):
    """A hop failed: all of its failures at once, the first one deciding the code."""

    def __init__(self, operation: str, failures: Sequence[S3RunnerError]) -> None:
        first = failures[0]
        reason = first.reason if len(failures) == 1 else f"{len(failures)} failures"
        super().__init__(
            reason,
            operation=operation,
            source=first.source,
            target=first.target,
            tries=first.tries,
            hint=first.hint,
        )
        self.failures = tuple(failures)
        self.code = first.code  # type: ignore[misc]  # an instance's own code, like its class's

    def __str__(self) -> str:
        """One line a failure."""
        return "\n".join(str(failure.during(self.operation)) for failure in self.failures)

    def to_json(self) -> dict[str, object]:
        """Return the `error` object: of the first failure, with the others' words in its reason."""
        first, *others = self.failures
        told = [
            f"{failure.source or failure.target}: {failure.reason}" for failure in others[:_TOLD]
        ]
        left = [f"and {len(others) - _TOLD} more"] if len(others) > _TOLD else []
        return {**super().to_json(), "reason": printable("; ".join((first.reason, *told, *left)))}


def printable(text: str) -> str:
    """Escape what could forge a log line or break a terminal; undecodable bytes show as hex."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    )

"""A tool that says far more than anybody reads: capped live, whole at the end, in little memory."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Desk
from conftest import S3Access
from holding import HOLD, while_it_holds
from waiting import wait_until

MIB = 1024**2
LIVE = 16 * MIB
"""What docs/protocol.md lets be seen of a stream before the end."""

LINE = b"a tool that says more than anybody will read\n"
LIMIT_KIB = 200 * 1024
"""What docs/architecture.md allows each process."""


@contextlib.contextmanager
def watched_memory(mark: str) -> Iterator[dict[str, int]]:
    """Gather the highest resident sizes (KiB) of the processes whose environment has `mark`."""
    peaks: dict[str, int] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal():
                    with contextlib.suppress(OSError, StopIteration):
                        note(entry)

    def note(entry: Path) -> None:
        words = (entry / "cmdline").read_bytes().split(b"\0")
        part = next(word for word in (b"fetch", b"stager", b"s3runner") if word in words)
        # bubblewrap has the worker's words on its own command line
        if b"bwrap" in words[0] or mark.encode() not in (entry / "environ").read_bytes():
            return
        status = (entry / "status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        peaks[part.decode()] = max(peaks.get(part.decode(), 0), peak)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield peaks
    ended.set()
    watcher.join()


def expected_digest(size: int) -> str:
    digest, left = hashlib.sha256(), size
    block = LINE * (MIB // len(LINE))
    while left > 0:
        digest.update(block[:left])
        left -= len(block)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(300 * MIB, id="300 MiB"),
        pytest.param(
            2048 * MIB, id="2 GiB", marks=[pytest.mark.nightly, pytest.mark.timeout(1200)]
        ),
    ],
)
def test_a_long_stream_is_capped_live_and_whole_at_the_end(
    tmp_path: Path, rgw_access: S3Access, size: int
) -> None:
    desk = Desk(tmp_path, rgw_access)
    said = LINE.decode().rstrip()
    job = desk.write_job(
        name="talks",
        command=f"yes '{said}' | head -c {size}; {HOLD}",
        resources={"disk": "8Gi"},
        walltime="10m",
    )

    def await_cap() -> None:
        wait_until(lambda: desk.keys("/logs/stdout/capped"))

    with watched_memory(rgw_access.config.bucket) as peaks:
        mark = {"S3RUNNER_TEST_MARK": rgw_access.config.bucket}
        ran = while_it_holds(desk, await_cap, "run", job, **mark)

    assert ran.code == 0, ran.stderr
    stream = tmp_path / "talks" / ".s3runner" / "stdout"
    assert stream.stat().st_size == size
    assert digest_of(stream) == expected_digest(size)
    segments = {item.key: item.size for item in desk.store.list("runs/jobs/")}
    live = {key: size for key, size in segments.items() if "/logs/stdout/" in key}
    capped = [key for key in live if key.endswith("/capped")]
    assert len(capped) == 1
    assert sum(size for key, size in live.items() if key not in capped) == LIVE
    assert sorted(peaks) == ["fetch", "s3runner", "stager"]
    assert all(peak < LIMIT_KIB for peak in peaks.values()), peaks

"""How much memory does moving a large file take? 4 GiB in and out again, peak RSS of each process.

Usage: python bench/memory.py [--gib 4]. Starts a Ceph gateway of its own when its programs are
installed (see .ci/run), else moto. A moved byte crosses four processes: the command, fetch, the
stager, and the command again; the tool itself only renames its input. Prints one line a process and
the limit from docs/architecture.md; exits 1 when one is above it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from gateway import Bucket, bench_bucket

LIMIT_MIB = 200
GIB = 1024**3

JOB = """\
name: memory
command: mv in.bin out.bin
inputs: {in.bin: ./in.bin}
outputs: [out.bin]
"""


def main() -> int:
    """Run the job and print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=4)
    size = int(parser.parse_args().gib * GIB)
    with tempfile.TemporaryDirectory(prefix="s3runner-bench-") as name:
        directory = Path(name)
        with bench_bucket(directory, memory="14G") as bucket:
            return _measure(directory, bucket, size)


def _measure(directory: Path, bucket: Bucket, size: int) -> int:
    (directory / "s3runner.yml").write_text(bucket.settings)
    (directory / "job.yml").write_text(JOB)
    _write_noise(directory / "in.bin", size)
    environment = {**os.environ, **bucket.credentials.environment, "HOME": str(directory)}
    began = time.monotonic()
    command = [sys.executable, "-m", "s3runner", "run", "job.yml", "--json"]
    with subprocess.Popen(command, cwd=directory, env=environment) as process:
        peaks = _watch(process, str(directory))
    seconds = time.monotonic() - began
    same = (directory / "memory" / "out.bin").stat().st_size == size
    print(f"{size / GIB:g} GiB in and out in {seconds:.0f} s, exit code {process.returncode}")
    for part, kib in sorted(peaks.items()):
        print(f"  {part:<12} peak {kib / 1024:6.0f} MiB   (limit {LIMIT_MIB})")
    fits = all(kib / 1024 < LIMIT_MIB for kib in peaks.values())
    return 0 if fits and same and process.returncode == 0 and len(peaks) >= 3 else 1  # noqa: PLR2004  # command, fetch, stager


def _write_noise(path: Path, size: int) -> None:
    """Write bytes of which no two blocks are alike, quickly."""
    block = os.urandom(1024 * 1024)
    with path.open("wb") as file:
        for number in range(0, size, len(block)):
            file.write(number.to_bytes(8, "big") + block[8 : min(len(block), size - number)])


def _watch(process: subprocess.Popen[bytes], mark: str) -> dict[str, int]:
    """Return each part's highest resident size in KiB, as the kernel kept it."""
    peaks: dict[str, int] = {}
    ended = threading.Event()

    def wait() -> None:
        process.wait()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    while not ended.wait(0.05):
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                _note_peak(entry, mark, process.pid, peaks)
    return peaks


def _note_peak(entry: Path, mark: str, command_pid: int, peaks: dict[str, int]) -> None:
    with contextlib.suppress(OSError):
        words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        part = "command" if int(entry.name) == command_pid else None
        if part is None and any(word.endswith("execute_job.py") for word in words):
            part = words[-2]
        if part is None and any("supervisor" in word for word in words) and mark in str(words):
            part = "supervisor"
        if part is not None and "bwrap" not in words[0]:
            status = (entry / "status").read_text()
            peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
            peaks[part] = max(peaks.get(part, 0), int(peak.split()[1]))


if __name__ == "__main__":
    sys.exit(main())

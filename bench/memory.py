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
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from s3runner.cli.demo_store import ACCESS_KEY, SECRET_KEY, embedded_store
from s3runner.model import Credentials, StoreConfig
from s3runner.store.control import create_bucket

LIMIT_MIB = 200
GIB = 1024**3
RGW = Path(__file__).parent.parent / "tests" / "services" / "ceph_rgw"

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
    with tempfile.TemporaryDirectory(prefix="s3runner-bench-") as name, _store(Path(name)) as store:
        directory = Path(name)
        endpoint, credentials = store
        config = StoreConfig(bucket="bench", endpoint=endpoint, insecure_http=True)
        create_bucket(config, credentials)
        (directory / "s3runner.yml").write_text(
            f"store: {{url: s3://bench/runs, endpoint: '{endpoint}', insecure_http: true}}\n"
        )
        (directory / "job.yml").write_text(JOB)
        _write_noise(directory / "in.bin", size)
        environment = {**os.environ, **credentials.environment, "HOME": name}
        began = time.monotonic()
        command = [sys.executable, "-m", "s3runner", "run", "job.yml", "--json"]
        with subprocess.Popen(command, cwd=directory, env=environment) as process:
            peaks = _watch(process, name)
        seconds = time.monotonic() - began
        same = (directory / "memory" / "out.bin").stat().st_size == size
    print(f"{size / GIB:g} GiB in and out in {seconds:.0f} s, exit code {process.returncode}")
    for part, kib in sorted(peaks.items()):
        print(f"  {part:<12} peak {kib / 1024:6.0f} MiB   (limit {LIMIT_MIB})")
    fits = all(kib / 1024 < LIMIT_MIB for kib in peaks.values())
    return 0 if fits and same and process.returncode == 0 and len(peaks) >= 3 else 1  # noqa: PLR2004  # command, fetch, stager


@contextlib.contextmanager
def _store(directory: Path) -> Iterator[tuple[str, Credentials]]:
    if shutil.which("radosgw") is None:
        with embedded_store() as endpoint:
            yield endpoint, Credentials(ACCESS_KEY, SECRET_KEY)
        return
    home = directory / "rgw"
    started = subprocess.run(
        [RGW, "start", home, "7680", "7681"],
        env={**os.environ, "RGW_MEMORY": "14G"},
        check=True,
        capture_output=True,
        text=True,
    )
    values = dict(line.split("=", 1) for line in started.stdout.splitlines() if "=" in line)
    try:
        keys = Credentials(values["RGW_ACCESS_KEY_ID"], values["RGW_SECRET_ACCESS_KEY"])
        yield values["RGW_HTTP_ENDPOINT"], keys
    finally:
        subprocess.run([RGW, "stop", home], check=True)


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

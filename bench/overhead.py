"""What does s3runner add to a short job? Against the script a user would write with the AWS CLI.

Usage: python bench/overhead.py [--rounds 7]. The job has 30 small files and one of 1 MiB as inputs,
runs `true` in the local cluster, and brings its streams back. The peer syncs the same files up,
runs `true`, and syncs its results down, of which there are none. Each round has new contents, so
both upload everything. Bytecode is compiled before, as pip does it, for both. Prints the medians,
their ratios, and where the time goes: hops and their requests, and what each of a job's four Python
processes takes to start and import; exits 1 when a ratio is below its target. Needs `aws` (pip
install awscli).
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gateway import Bucket, bench_bucket

from s3runner.installed import package_dir
from s3runner.jobfile import load_job
from s3runner.runner.report import PHASES, JobEnd, Silence
from s3runner.runner.runner import Runner
from s3runner.settings import load_settings
from s3runner.wiring import build

COMMAND_TARGET, PROCESS_TARGET = 1.5, 3.0

PROCESSES = {
    "bare Python": ["-S", "-s", "-c", "pass"],
    "command": ["-c", "import s3runner.cli.main, s3runner.cli.run"],
    "supervisor": ["-S", "-s", "-c", "import s3runner.cluster.local.supervisor"],
    "fetch": ["-S", "-s", "-c", "import s3runner.worker.main, s3runner.worker.fetch"],
    "stager": [
        *("-S", "-s", "-c"),
        "import s3runner.worker.main, s3runner.worker.stager, s3runner.worker.stage_out",
    ],
}
"""What a job starts, and what each imports before it has done its first work."""

JOB = """\
name: overhead
command: "true"
inputs: {small: ./inputs/small, big.bin: ./inputs/big.bin}
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    if shutil.which("aws") is None:
        print("overhead: the peer is missing: pip install awscli")
        return 1
    with tempfile.TemporaryDirectory(prefix="s3runner-bench-") as name:
        directory = Path(name)
        with bench_bucket(directory) as bucket:
            return _compare(directory, bucket, rounds)


def _compare(directory: Path, bucket: Bucket, rounds: int) -> int:
    (directory / "s3runner.yml").write_text(bucket.settings)
    (directory / "job.yml").write_text(JOB)
    compileall.compile_dir(package_dir("s3runner"), quiet=1)
    environ = {
        # without bytecode all that was measured would be Python's compiler
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        **bucket.credentials.environment,
        "HOME": str(directory),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": str(bucket.config.endpoint),
    }
    os.environ["HOME"] = str(directory)
    settings = load_settings(directory / "s3runner.yml")
    runner = build(settings, None, environ)
    ends: list[JobEnd] = []
    ways: dict[str, Callable[[], None]] = {
        "aws script": lambda: _run_script(directory, environ),
        "s3runner run": lambda: _run_command(directory, environ),
        "in process": lambda: ends.append(_run_in_process(runner, directory)),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            _write_inputs(directory)
            began = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - began)
    # the first round warms caches on every side
    medians = {way: statistics.median(taken[1:]) for way, taken in seconds.items()}
    return _report(medians, ends[-1], bucket.server, rounds)


def _report(medians: dict[str, float], end: JobEnd, server: str, rounds: int) -> int:
    peer = medians["aws script"]
    command, process = peer / medians["s3runner run"], peer / medians["in process"]
    print(f"{rounds} rounds against a {server}, medians:")
    for way, median in medians.items():
        print(f"  {way:<14} {median:6.3f} s   {peer / median:5.2f}x")
    print(f"targets: s3runner run {COMMAND_TARGET}x, in process {PROCESS_TARGET}x")
    print("where the time of the last job in process went:")
    for name in PHASES:
        phase = end.phases.get(name)
        if phase is not None:
            print(f"  {name:<10} {phase.seconds:6.3f} s  {phase.requests:3} requests")
    print("starting a process, its imports included, the quickest of each:")
    for name, taken in _starts(rounds).items():
        print(f"  {name:<12} {taken:6.3f} s")
    return 0 if command >= COMMAND_TARGET and process >= PROCESS_TARGET else 1


def _starts(rounds: int) -> dict[str, float]:
    """Return the seconds that each Python process of a job takes until it can begin."""
    places = {str(package_dir(name).parent) for name in ("s3runner", "obstore")}
    environ = {"PYTHONPATH": os.pathsep.join(sorted(places)), "PATH": os.environ["PATH"]}
    seconds: dict[str, list[float]] = {name: [] for name in PROCESSES}
    for _ in range(rounds):
        for name, arguments in PROCESSES.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], env=environ, check=True)
            seconds[name].append(time.perf_counter() - began)
    return {name: min(taken) for name, taken in seconds.items()}


def _write_inputs(directory: Path) -> None:
    (directory / "inputs" / "small").mkdir(parents=True, exist_ok=True)
    for number in range(30):
        (directory / "inputs" / "small" / f"f{number}").write_bytes(os.urandom(2000))
    (directory / "inputs" / "big.bin").write_bytes(os.urandom(1024 * 1024))


def _run_script(directory: Path, environ: dict[str, str]) -> None:
    script = """
    set -e
    aws s3 sync --quiet inputs s3://bench/script/in
    true
    aws s3 sync --quiet s3://bench/script/out result
    """
    subprocess.run(["sh", "-c", script], cwd=directory, env=environ, check=True)


def _run_command(directory: Path, environ: dict[str, str]) -> None:
    command = [sys.executable, "-m", "s3runner", "run", "job.yml", "--into", "out"]
    subprocess.run(command, cwd=directory, env=environ, check=True, stderr=subprocess.DEVNULL)


def _run_in_process(runner: Runner, directory: Path) -> JobEnd:
    job = load_job(directory / "job.yml", {})
    job_id = runner.submit(job, Silence())
    end = runner.wait(job_id, Silence())
    runner.sync(job_id, directory / "out", Silence(), overwrite=True)
    return end


if __name__ == "__main__":
    sys.exit(main())

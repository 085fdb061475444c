"""What the command line says to people: words for values, and the listeners that print them."""

from __future__ import annotations

import io
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from s3runner.cli.progress import ProgressBars
from s3runner.cli.rendering import (
    SAY_AGAIN_S,
    SENTENCES,
    TAIL_LINES,
    LogLines,
    PlainLines,
    cluster_lines,
    end_lines,
    error_lines,
    listener_for,
    plan_lines,
    show_size,
    tail_of,
)
from s3runner.errors import (
    ClusterUnavailableError,
    InputError,
    SettingsError,
    SpecError,
    StagingError,
    StoreAccessError,
    StoreUnavailableError,
)
from s3runner.model import Job, Kind, Outcome, Phase, code_of
from s3runner.runner.report import (
    JobEnd,
    JobReport,
    PlannedObject,
    PlanReport,
    SyncedOutput,
    SyncResult,
)

ROOT = Path(__file__).parents[2]
JOB = Job(name="job", command="true")
JOB_ID = "0198-id"


# --- words ---------------------------------------------------------------------------------------


def test_a_cluster_that_was_asked_in_vain_is_told_of_once() -> None:
    found = [ClusterUnavailableError("no\nanswer"), SpecError("damaged"), None]
    assert cluster_lines([*found, *found]) == [
        "s3runner: warning: the cluster did not answer: no\\nanswer [E31]"
    ]


def test_what_the_layers_below_log_looks_like_every_other_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = logging.LogRecord("s3runner.x", logging.WARNING, "", 1, "a\n%s", ("b\x07",), None)
    LogLines().handle(record)
    assert capsys.readouterr().err == "s3runner: a\\nb\\x07\n"


def test_a_line_that_nobody_can_read_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    LogLines().handle(logging.LogRecord("s3runner.x", logging.WARNING, "", 1, "a", (), None))


def test_an_error_tells_operation_route_reason_tries_code_and_hint() -> None:
    error = StoreAccessError(
        "access denied (PutObject)",
        operation="stage-in",
        source="/a/b",
        target="s3://x/y",
        tries=3,
        hint="check the bucket's policy",
    )
    assert error_lines(error) == [
        "s3runner: stage-in /a/b -> s3://x/y: access denied (PutObject) (3 tries) [E23]",
        "hint: check the bucket's policy",
    ]


def test_all_failures_of_a_hop_are_told_and_a_hint_they_share_once() -> None:
    failures = [
        InputError("is missing", source="/a", hint="look"),
        StoreUnavailableError("no answer", target="s3://x/y", hint="look"),
    ]
    assert error_lines(StagingError("stage-in", failures)) == [
        "s3runner: stage-in /a: is missing [E21]",
        "s3runner: stage-in s3://x/y: no answer [E30]",
        "hint: look",
    ]


def test_all_failures_of_a_hop_stand_in_the_reason_that_a_pod_leaves() -> None:
    """Who reads the result has no other word of them."""
    failures = [InputError(f"is {n}", source=f"/{n}") for n in range(13)]
    told = StagingError("stage-out", failures).to_json()
    assert told["source"] == "/0"
    assert str(told["reason"]).startswith("is 0; /1: is 1; /2: is 2; ")
    assert str(told["reason"]).endswith("/10: is 10; and 2 more")


def test_each_mistake_of_a_settings_file_has_its_line() -> None:
    assert error_lines(SettingsError("f:1: a\nf:2: b")) == [
        "s3runner: f:1: a [E20]",
        "s3runner: f:2: b [E20]",
    ]


def test_what_came_from_elsewhere_cannot_forge_a_line() -> None:
    error = InputError("gone\ns3runner: all is well\x1b[2J", source="/a\nb")
    (line,) = error_lines(error)
    assert line == "s3runner: /a\\nb: gone\\ns3runner: all is well\\x1b[2J [E21]"


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (20 * 1024**2, "20 MiB"),
        (3 * 1024**4, "3.0 TiB"),
        (5000 * 1024**4, "5000 TiB"),
    ],
)
def test_sizes_are_for_people(size: int, shown: str) -> None:
    assert show_size(size) == shown


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_words_and_its_code(outcome: Outcome) -> None:
    code = code_of(outcome)
    line = end_lines(JobReport(end=JobEnd(outcome, code)))[0]
    assert line.startswith(f"s3runner: {outcome.value}: {SENTENCES[outcome]}")
    assert line.endswith(f" [E{code}]") == bool(code)


@pytest.mark.parametrize(
    ("code", "words"),
    [(3, "exit code 3 [E10]"), (139, "139 (killed by SIGSEGV) [E10]"), (127, "127 [E10]")],
)
def test_a_failed_tool_tells_its_own_code(code: int, words: str) -> None:
    end = JobEnd(Outcome.TOOL_FAILED, 10, tool_exit_code=code)
    assert end_lines(JobReport(end=end))[0].endswith(words)


def test_a_success_tells_where_the_outputs_are_and_what_it_cost() -> None:
    end = JobEnd(
        Outcome.SUCCEEDED, 0, attempts=2, phases={"run": Phase(61.0), "fetch": Phase(1, 2048, 2, 3)}
    )
    outputs = (SyncedOutput("a", Kind.FILE, 1024), SyncedOutput("b", Kind.FILE, 1024))
    sync = SyncResult(outputs, Phase(0.5, 2048, 2, 4), Path("job"))
    assert end_lines(JobReport(end=end, sync=sync, stage_in=Phase(2, 1, 1, 1))) == [
        "s3runner: succeeded: the tool ended well and all outputs are stored (2 attempts)",
        "  2 outputs, 2.0 KiB, in job",
        "  stage-in  1 file, 1 B, 1 request, 2.0 s",
        "  fetch     2 files, 2.0 KiB, 3 requests, 1.0 s",
        "  run       61.0 s",
        "  sync      2 files, 2.0 KiB, 4 requests, 0.5 s",
    ]


def test_a_failure_shows_the_streams_and_the_end_of_stderr(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_text("out")
    (tmp_path / "stderr").write_text("first\nsecond\x1b[31m\n")
    sync = SyncResult((), Phase(), tmp_path, tmp_path)
    end = JobEnd(Outcome.TOOL_FAILED, 10, tool_exit_code=1)
    assert end_lines(JobReport(end=end, sync=sync))[1:-1] == [
        f"  stdout: {tmp_path}/stdout",
        f"  stderr: {tmp_path}/stderr",
        "  the last lines of stderr:",
        "  | first",
        "  | second\\x1b[31m",
    ]


def test_an_end_that_has_an_error_tells_it() -> None:
    error = InputError("has changed", source="s3://x/y", operation="fetch", hint="stage it anew")
    end = JobEnd(Outcome.INPUT_FAILED, 21, error=error.to_json())
    assert end_lines(JobReport(end=end))[1:] == [
        "  fetch s3://x/y: has changed",
        "hint: stage it anew",
    ]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"a\r\nb", ["a", "b"]),
        (b"10%\r50%\r100%\n", ["100%"]),
        (b"a\tb\xff\n", ["a       b\\xff"]),
        (b"x" * 9000 + b"\nlast\n", ["last"]),
        (b"".join(b"%d\n" % n for n in range(100)), [str(n) for n in range(100 - TAIL_LINES, 100)]),
    ],
    ids=["empty", "blank", "crlf", "bar", "bytes", "long", "many"],
)
def test_the_tail_of_a_stream_is_short_and_harmless(
    tmp_path: Path, content: bytes, lines: list[str]
) -> None:
    (tmp_path / "stderr").write_bytes(content)
    assert tail_of(tmp_path / "stderr") == lines


def test_a_stream_that_is_not_there_has_no_tail(tmp_path: Path) -> None:
    assert tail_of(tmp_path / "stderr") == []


PLAN = PlanReport(
    uploads=(PlannedObject("s3://b/new", 2048, "/a/in.bam", "not there"),),
    present=(PlannedObject("s3://b/old", 10, "/a/b", "stored yesterday"),),
    requests=3,
    disk_bytes=None,
    job_object={"kind": "Job"},
    warnings=("a setuid bit\n",),
)


def test_a_plan_says_what_goes_up_and_why() -> None:
    assert plan_lines(PLAN) == [
        (
            "s3runner: plan: 1 object (2.0 KiB) to upload, 1 there already, 3 requests; "
            "disk: left to the destination"
        ),
        "  upload   /a/in.bam (2.0 KiB): not there",
        "  present  /a/b (10 B): stored yesterday",
        "s3runner: warning: a setuid bit\\n",
    ]


# --- the listeners -------------------------------------------------------------------------------


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_tell_the_job_each_hop_once_and_now_and_then_while_it_lasts() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = PlainLines(stream, clock)
    lines.phase("stage_in", Phase(0, 0, 0, 1), 2048, 2)
    clock.now += SAY_AGAIN_S
    lines.phase("stage_in", Phase(15, 1024, 1, 2), 2048, 2)
    lines.phase("stage_in", Phase(16, 2048, 2, 3), 2048, 2)
    lines.job_id(JOB_ID)
    lines.state("running")
    lines.state("running")
    lines.warning("odd\x07")
    lines.note("waiting: 2\n")
    lines.note("waiting: 2\n")
    lines.note("waiting: 1")
    lines.phase("sync", Phase(1, 5, 1, 1), None, None)
    lines.close()
    lines.close()
    assert stream.getvalue().splitlines() == [
        "s3runner: stage-in: 1.0 KiB of 2.0 KiB, 1 of 2 files so far",
        "s3runner: stage-in: 2 files, 2.0 KiB, 3 requests, 16.0 s",
        f"job {JOB_ID}",
        "s3runner: running",
        "s3runner: warning: odd\\x07",
        "s3runner: waiting: 2\\n",
        "s3runner: waiting: 1",
        "s3runner: sync: 1 file, 5 B, 1 request, 1.0 s",
    ]


def test_news_that_arrives_late_does_not_turn_a_phase_back() -> None:
    lines = PlainLines(io.StringIO(), Clock())
    lines.phase("sync", Phase(2, 20, 2, 2), None, None)
    lines.phase("sync", Phase(1, 10, 1, 1), None, None)
    assert lines.phases["sync"].bytes == 20


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_bars_and_the_job_line_still_stands_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    bars = listener_for(stream)
    assert isinstance(bars, ProgressBars)
    bars.phase("stage_in", Phase(0, 512, 0, 1), 1024, 1)
    bars.job_id("[bold]id[/bold] :smile: " + "x" * 200)
    bars.phase("sync", Phase(0, 1, 0, 1), None, None)
    bars.close()
    bars.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).replace("\r", "\n")
    assert "job [bold]id[/bold] :smile: " + "x" * 200 in plain.splitlines()
    assert "stage-in: 0 files, 512 B" in plain


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "dumb"])
def test_anything_else_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert type(listener_for(stream)) is PlainLines

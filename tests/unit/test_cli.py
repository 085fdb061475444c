"""The command line: its way through a job, its one JSON object, its exit codes, its imports."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from s3runner.cli.follow import Landing, run_to_end
from s3runner.cli.main import _VERBS, run_command_line, verbs
from s3runner.cli.rendering import (
    PlainLines,
    error_lines,
)
from s3runner.cli.report import InterruptedByUserError, Invocation
from s3runner.errors import (
    InputError,
    OutputConflictError,
    S3RunnerError,
    SettingsError,
    StagingError,
    StoreAccessError,
    StoreUnavailableError,
)
from s3runner.model import Job, Kind, Outcome, Phase, code_of
from s3runner.runner.report import (
    PHASES,
    JobEnd,
    JobReport,
    Listener,
    PlanReport,
    SyncedOutput,
    SyncResult,
)

ROOT = Path(__file__).parents[2]
JOB = Job(name="job", command="true")
JOB_ID = "0198-id"


@dataclass
class FakeRunner:
    """A runner whose steps end as they are told to."""

    end: JobEnd = field(default_factory=lambda: JobEnd(Outcome.SUCCEEDED, 0, attempts=1))
    fail: dict[str, BaseException] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def _step(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fail:
            raise self.fail[name]

    def check_places(self, job: Job, into: Path | None, *, overwrite: bool) -> None:
        del job, into
        self._step("check_places --overwrite" if overwrite else "check_places")

    def check_landing(self, job_id: str, into: Path | None) -> None:
        raise AssertionError(f"looked for the place of {job_id} {into}")

    def submit(self, job: Job, listener: Listener) -> str:
        del job
        self._step("submit")
        listener.phase("stage_in", Phase(1, 2, 3, 4), 2, 3)
        listener.job_id(JOB_ID)
        self._step("create")
        return JOB_ID

    def wait(self, job_id: str, listener: Listener) -> JobEnd:
        del job_id, listener
        self._step("wait")
        return self.end

    def sync(
        self, job_id: str, into: Path | None, listener: Listener, *, overwrite: bool
    ) -> SyncResult:
        del job_id, listener, overwrite
        self._step("sync")
        output = SyncedOutput("out", Kind.FILE, 1, "sha256:00", "s3://b/out")
        return SyncResult((output,), Phase(5, 1, 1, 1), into or Path("job"))


def followed(runner: FakeRunner, landing: Landing | None = None) -> tuple[int, Invocation, str]:
    invocation, stream = Invocation(wants_json=True, settings=Path("my s.yml")), io.StringIO()
    code = run_to_end(runner, JOB, invocation, PlainLines(stream), landing or Landing())
    return code, invocation, stream.getvalue()


def test_a_job_that_succeeded_exits_0_and_reports_everything() -> None:
    code, invocation, words = followed(FakeRunner())
    out = io.StringIO()
    invocation.write(out)
    assert code == 0
    assert f"\njob {JOB_ID}\n" in words
    assert json.loads(out.getvalue()) == {
        "job_id": JOB_ID,
        "outcome": "succeeded",
        "code": 0,
        "tool_exit_code": None,
        "attempts": 1,
        "generation": 0,
        "outputs": [
            {
                "path": "out",
                "kind": "file",
                "size": 1,
                "digest": "sha256:00",
                "uri": "s3://b/out",
            }
        ],
        "phases": {
            "stage_in": {"seconds": 1, "bytes": 2, "files": 3, "requests": 4},
            "fetch": None,
            "run": None,
            "stage_out": None,
            "sync": {"seconds": 5, "bytes": 1, "files": 1, "requests": 1},
        },
        "error": None,
    }


def test_a_job_with_another_outcome_exits_1() -> None:
    runner = FakeRunner(end=JobEnd(Outcome.CANCELLED, None))
    code, invocation, _ = followed(runner)
    assert (code, invocation.report.to_json()["outcome"]) == (1, "cancelled")
    assert runner.calls == ["check_places", "submit", "create", "wait", "sync"]


def test_a_place_that_is_taken_is_found_before_anything_goes_up() -> None:
    runner = FakeRunner(fail={"check_places": OutputConflictError("there already")})
    with pytest.raises(OutputConflictError):
        followed(runner)
    assert runner.calls == ["check_places"]


def test_overwrite_reaches_the_look_at_what_is_there() -> None:
    runner = FakeRunner()
    followed(runner, Landing(overwrite=True))
    assert runner.calls[0] == "check_places --overwrite"


@pytest.mark.parametrize("step", ["create", "wait", "sync"])
def test_ctrl_c_after_the_job_is_stored_leaves_it_and_says_how_to_go_on(step: str) -> None:
    with pytest.raises(InterruptedByUserError) as caught:
        followed(FakeRunner(fail={step: KeyboardInterrupt()}))
    assert error_lines(caught.value) == [
        f"s3runner: interrupted; job {JOB_ID} goes on [E75]",
        f"hint: to wait for it: s3runner wait {JOB_ID} --settings 'my s.yml'",
        f"      to stop it:     s3runner cancel {JOB_ID} --settings 'my s.yml'",
    ]


def test_ctrl_c_before_the_job_is_stored_started_nothing() -> None:
    with pytest.raises(InterruptedByUserError, match="nothing was started"):
        followed(FakeRunner(fail={"submit": KeyboardInterrupt()}))


def test_a_sync_that_fails_leaves_the_outcome_and_says_how_to_try_again() -> None:
    invocation, stream = Invocation(), io.StringIO()
    runner = FakeRunner(fail={"sync": OutputConflictError("differs")})
    with pytest.raises(OutputConflictError) as caught:
        run_to_end(runner, JOB, invocation, PlainLines(stream), Landing())
    invocation.fail(caught.value)
    document, words = invocation.report.to_json(), stream.getvalue()
    assert (document["job_id"], document["outcome"], document["code"]) == (JOB_ID, "succeeded", 28)
    assert f"the job has ended (succeeded); to sync again: s3runner sync {JOB_ID}\n" in words


def test_a_failure_after_the_job_is_stored_keeps_its_id() -> None:
    invocation, stream = Invocation(), io.StringIO()
    runner = FakeRunner(fail={"create": StoreUnavailableError("no answer")})
    with pytest.raises(StoreUnavailableError) as caught:
        run_to_end(runner, JOB, invocation, PlainLines(stream), Landing())
    invocation.fail(caught.value)
    document, words = invocation.report.to_json(), stream.getvalue()
    assert (document["job_id"], document["outcome"], document["code"]) == (JOB_ID, None, 30)
    assert f"the job is stored; to go on with it: s3runner wait {JOB_ID}\n" in words


# --- the process ---------------------------------------------------------------------------------


def verb_that_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Add a verb `fail` for the test's time."""

    @click.command("fail")
    @click.option("--json", is_flag=True, expose_value=False)
    def command() -> None:
        raise error

    module: Any = ModuleType("s3runner.cli.fail")
    module.command = command
    monkeypatch.setitem(sys.modules, "s3runner.cli.fail", module)
    monkeypatch.setitem(_VERBS, "fail", "Fail.")


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (SettingsError("wrong"), 2, 20),
        (InputError("missing"), 3, 21),
        (StagingError("stage-in", [StoreAccessError("denied")]), 3, 23),
        (ValueError("bug"), 3, 70),
        (KeyboardInterrupt(), 130, 75),
        (click.UsageError("what"), 2, 20),
    ],
    ids=["settings", "input", "staging", "bug", "ctrl-c", "usage"],
)
def test_every_end_has_an_exit_code_and_one_object(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    exit_code: int,
    code: int,
) -> None:
    verb_that_raises(monkeypatch, error)
    assert run_command_line(["fail", "--json"]) == exit_code
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["code"] == code
    assert set(document) == set(JobReport().to_json())
    assert f"[E{code}]" in err
    assert "Traceback" not in err


def test_debug_shows_where_a_fault_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb_that_raises(monkeypatch, ValueError("bug"))
    assert run_command_line(["--debug", "fail"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" in err
    assert "s3runner: internal error: ValueError: bug [E70]" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "a verb is missing"),
        (["rnu"], "there is no verb 'rnu' (did you mean 'run'?)"),
        (["run"], "Missing argument 'JOB.YML'"),
        (["run", "a", "--itno", "x"], "No such option"),
        (["schema", "jbo"], "'jbo' is not one of"),
    ],
)
def test_a_command_line_that_makes_no_sense_exits_2_with_an_object(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run_command_line([*arguments, "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["code"] == 20
    if arguments:
        assert words in err


def test_without_a_verb_the_error_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line([]) == 2
    assert "a verb is missing [E20]\nhint: see s3runner --help" in capsys.readouterr().err


def test_help_is_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["run", "--json", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: s3runner run")
    assert "job_id" not in out


def run_s3runner(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(cwd), **variables}
    return subprocess.run(
        [sys.executable, "-m", "s3runner", *arguments],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_run_without_settings_says_how_to_write_them(tmp_path: Path) -> None:
    done = run_s3runner("run", "job.yml", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert "s3runner: no settings found" in done.stderr
    assert json.loads(done.stdout)["error"]["reason"].startswith("no settings found")


def test_a_mistake_in_a_job_file_names_file_line_and_key(tmp_path: Path) -> None:
    (tmp_path / "s3runner.yml").write_text("store: {url: s3://bucket/runs}")
    (tmp_path / "job.yml").write_text("command: x\nresources:\n  memroy: 8Gi\n")
    done = run_s3runner("run", "job.yml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "s3runner: job.yml:3: resources.memroy: unknown key (did you mean 'memory'?) [E20]\n"
    )


@pytest.mark.parametrize("document", ["job", "settings"])
def test_a_schema_goes_to_stdout(tmp_path: Path, document: str) -> None:
    done = run_s3runner("schema", document, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["additionalProperties"] is False


def test_a_reader_that_leaves_is_no_fault(tmp_path: Path) -> None:
    command = f"{sys.executable} -m s3runner schema job | true"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["rnu"], ["schema", "job"], ["schema", "settings"]]
)
def test_what_needs_no_store_imports_none_of_the_slow_libraries(
    tmp_path: Path, arguments: list[str]
) -> None:
    program = (
        "import sys, s3runner.cli.main as m\n"
        f"m.run_command_line({arguments!r})\n"
        "slow = {'obstore', 'boto3', 'botocore', 'kubernetes', 'rich'}\n"
        "slow |= set() if 'schema' in sys.argv else {'pydantic', 'yaml'}\n"
        "sys.stderr.write('imported:' + ','.join(sorted(slow & set(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr.endswith("imported:")


# --- the documentation ---------------------------------------------------------------------------


def test_the_documentation_lists_every_outcome_with_its_code() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d*) ?\| ", text, re.MULTILINE)
    codes = {outcome.value: code_of(outcome) for outcome in Outcome}
    assert rows == [(name, "" if code is None else str(code)) for name, code in codes.items()]


def test_the_documentation_lists_every_key_of_the_json() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", text.partition("## `--json`")[2], re.MULTILINE)
    assert rows == list(JobReport().to_json())
    assert f"`{{{', '.join(PHASES)}}}`" in text
    assert f"`{{{', '.join(S3RunnerError('x').to_json())}}}`" in text
    assert f"`{{{', '.join(PlanReport((), (), 0, None, {}).to_json())}}}`" in text.replace(
        "\n", " "
    )


@pytest.mark.parametrize("verb", _VERBS)
def test_the_documentation_lists_every_flag(verb: str) -> None:
    text = (ROOT / "docs/cli.md").read_text()
    section = text.partition(f"### `s3runner {verb}")[2].partition("\n#")[0]
    shared = text.partition("## Which store")[2].partition("## Verbs")[0]
    shared_flags = set(re.findall(r"^\| `(--[\w-]+)", shared, re.MULTILINE))
    command = verbs.get_command(click.Context(verbs), verb)
    assert command is not None
    flags = {flag for option in command.params for flag in option.opts if flag.startswith("--")}
    assert flags >= shared_flags or flags.isdisjoint(shared_flags)
    assert {flag for flag in flags - shared_flags if flag not in section} == set()


def test_every_verb_is_documented() -> None:
    documented = re.findall(
        r"^### `s3runner ([\w-]+)", (ROOT / "docs/cli.md").read_text(), re.MULTILINE
    )
    assert sorted(documented) == sorted(_VERBS)

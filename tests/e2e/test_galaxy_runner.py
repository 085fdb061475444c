"""The runner's own rules, with Galaxy's classes and without a server."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from galaxy_server import require_galaxy

from s3runner.errors import StoreUnavailableError
from s3runner.model import Outcome
from s3runner.runner.report import JobEnd

pytestmark = pytest.mark.filterwarnings("ignore")  # of what Galaxy imports
require_galaxy_first = pytest.fixture(autouse=True)(require_galaxy)


def runner(**more: Any) -> Any:
    """Return a runner that was not started, with these attributes."""
    from s3runner.galaxy.runner import S3JobRunner  # noqa: PLC0415 # where there is a Galaxy

    made = object.__new__(S3JobRunner)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_a_job_that_cannot_be_looked_at_keeps_no_other_from_its_end() -> None:
    """One error must neither stop the monitor nor let it finish a job twice."""
    before, broken, after = (SimpleNamespace(job_id=name) for name in ("a", "b", "c"))
    seen: list[str] = []

    def look(state: Any) -> Any:
        seen.append(state.job_id)
        if state is broken:
            raise KeyError("containerStatuses")
        return None if state is before else state

    made = runner(
        watched=[before, broken, after],
        check_watched_item=look,
        _ask_galaxy_for_states=lambda: None,
    )

    made.check_watched_items()
    made.check_watched_items()

    assert made.watched == [broken, after]
    assert seen == ["a", "b", "c", "b", "c"]


OWN = {"limits_memory": "1Gi"}
LEAKED = {**OWN, "k8s_node_selector": "pool: spot"}
BY_A_RULE = {"limits_memory": "9Gi", "limits_cpu": "2"}


@pytest.mark.parametrize(
    ("runner_of_the_known", "states", "params", "expected"),
    [
        ("s3", ("new", "resubmitted"), LEAKED, OWN),
        ("dynamic", ("new", "resubmitted"), LEAKED, LEAKED),
        ("s3", ("new",), LEAKED, LEAKED),
        ("s3", ("new", "resubmitted"), BY_A_RULE, BY_A_RULE),
    ],
    ids=["resubmitted", "another runner's", "added by a rule", "changed by a rule"],
)
def test_a_resubmitted_jobs_destination_keeps_nothing_of_the_one_before(
    runner_of_the_known: str,
    states: tuple[str, ...],
    params: dict[str, str],
    expected: dict[str, str],
) -> None:
    """Galaxy lays the new destination's params over the old one's; a rule's are as it made them.

    A rule may take a destination of the job configuration and change it for a job.
    """
    own = SimpleNamespace(id="large", runner=runner_of_the_known, params=OWN)
    config = SimpleNamespace(destinations={"large": [own]}, get_destination=lambda _id: own)
    made = runner(app=SimpleNamespace(job_config=config))
    history = [SimpleNamespace(state=state) for state in states]
    job = SimpleNamespace(
        job_destination=SimpleNamespace(id="large", runner="s3", params=params),
        get_job=lambda: SimpleNamespace(state_history=history),
    )

    assert made._own_params(job) == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"tool.produces_entry_points": True}, "interactive tools"),
        ({"tool.requires_galaxy_python_environment": True}, "Galaxy's own Python"),
        ({"tool.tool_type": "manage_data"}, "Galaxy's own Python"),
        ({"is_cwl_job": True}, "CWL"),
        ({"get_job": lambda: SimpleNamespace(tasks=["one"])}, "split into tasks"),
        ({"remote_command_line": True}, "tool_evaluation_strategy"),
        ({"outputs_to_working_directory": False}, "outputs_to_working_directory"),
    ],
)
def test_what_cannot_run_away_from_galaxy_is_refused_with_a_reason(
    changes: dict[str, object], reason: str | None
) -> None:
    """Before anything is staged."""
    from s3runner.galaxy.refusing import refusal_of  # noqa: PLC0415 # where there is a Galaxy

    tool = SimpleNamespace(
        produces_entry_points=False,
        requires_galaxy_python_environment=False,
        tool_type="default",
    )
    job = SimpleNamespace(
        tool=tool,
        is_cwl_job=False,
        remote_command_line=False,
        outputs_to_working_directory=True,
        get_job=lambda: SimpleNamespace(tasks=[]),
    )
    for name, value in changes.items():
        setattr(tool if name.startswith("tool.") else job, name.removeprefix("tool."), value)

    found = refusal_of(job)

    assert (found is None) is (reason is None)
    assert reason is None or reason in str(found)


def test_the_refused_kind_of_tool_is_galaxys_own_word_for_data_managers() -> None:
    """A word that no tool has would refuse none."""
    from galaxy.tools import DataManagerTool  # noqa: PLC0415 # where there is a Galaxy

    from s3runner.galaxy.refusing import DATA_MANAGER  # noqa: PLC0415 # where there is a Galaxy

    assert DataManagerTool.tool_type == DATA_MANAGER


class Errand(SimpleNamespace):
    """A job's errand as the monitor sees it."""

    def __init__(self, **more: Any) -> None:
        usual = {"end": None, "synced": None, "failure": None, "never_stored": False}
        super().__init__(**{"job_id": "j", "state": "", "is_cancelled": False, **usual, **more})

    def cancel(self) -> None:
        self.is_cancelled = True

    def advance(self) -> bool:
        return bool(self.end or self.never_stored or self.failure)


def job_of_galaxy(directory: Path, **more: Any) -> SimpleNamespace:
    """Return what stands for a job in Galaxy."""
    usual = {
        "job_id": 7,
        "app": SimpleNamespace(config=SimpleNamespace(redact_email_in_job_name=True)),
        "tool": SimpleNamespace(old_id="t"),
        "user": None,
        "cleanup_job": "never",
        "working_directory": str(directory),
        "get_id_tag": lambda: "7",
        "has_limits": lambda: False,
        "job_destination": SimpleNamespace(id="d", params={}),
    }
    return SimpleNamespace(**{**usual, **more})


def state_of(job: Any, errand: Errand, galaxy_state: str = "running") -> Any:
    """Return a watched job's state."""
    from s3runner.galaxy.runner import S3JobState  # noqa: PLC0415 # where there is a Galaxy

    made = S3JobState(job, job.job_destination, files_dir=job.working_directory, job_id="j")
    made.errand, made.galaxy_state = errand, galaxy_state  # type: ignore[assignment]
    return made


def telling(**more: Any) -> tuple[Any, list[str]]:
    """Return a runner that notes what it tells Galaxy of a job."""
    told: list[str] = []
    made = runner(
        _errands={},
        mark_as_failed=lambda state: told.append(f"failed: {state.runner_state}"),
        mark_as_finished=lambda _state: told.append("finished"),
        mark_as_queued=lambda _job: told.append("queued"),
        monitor_job=lambda _state: told.append("watched"),
        **more,
    )
    return made, told


@pytest.mark.parametrize(
    ("galaxy_state", "expected"), [("queued", "queued"), ("running", "failed: unknown_error")]
)
def test_a_job_that_the_bucket_does_not_know_begins_anew_only_while_it_is_queued(
    tmp_path: Path, galaxy_state: str, expected: str
) -> None:
    """Galaxy begins no job that it takes for a running one: it would be so for ever."""
    made, told = telling()
    state = state_of(job_of_galaxy(tmp_path), Errand(never_stored=True), galaxy_state)

    assert made.check_watched_item(state) is None

    assert told == [expected]


@pytest.mark.parametrize(
    "errand",
    [Errand(never_stored=True), Errand(end=JobEnd(Outcome.CANCELLED, None))],
    ids=["staging", "running"],
)
def test_a_job_that_was_stopped_is_not_resubmitted(tmp_path: Path, errand: Errand) -> None:
    """A condition that asks for `unknown_error` would begin it again."""
    from galaxy.jobs.runners.state_handlers.resubmit import failure  # noqa: PLC0415

    made, told = telling()
    errand.cancel()
    state = state_of(job_of_galaxy(tmp_path), errand, "stopped")
    state.job_destination.resubmit = [{"condition": "no condition is asked for"}]

    assert made.check_watched_item(state) is None

    failure(None, made, state)
    assert len(told) == 1
    assert not state.runner_state_handled


def test_a_job_that_was_stopped_after_its_tool_had_ended_is_finished(tmp_path: Path) -> None:
    """Nothing is left to be stopped, and all of its results are there."""
    errand = Errand(end=JobEnd(Outcome.SUCCEEDED, 0))
    known = SimpleNamespace(get_job_runner_external_id=lambda: "j")
    state = state_of(job_of_galaxy(tmp_path, get_job=lambda: known), errand, "stopped")
    made, _ = telling(_conclude=lambda _state: None)
    made._errands["j"] = errand

    made.stop_job(state.job_wrapper)
    made.check_watched_item(state)

    assert not errand.is_cancelled


def test_a_job_that_an_administrator_ended_stays_as_it_was_left(tmp_path: Path) -> None:
    """With a message of theirs its state is an error, which nothing of ours replaces."""
    made, told = telling()
    cleaned: list[str] = []
    job = job_of_galaxy(tmp_path, cleanup_job="always", cleanup=lambda: cleaned.append("cleaned"))

    over = made.check_watched_item(
        state_of(job, Errand(end=JobEnd(Outcome.CANCELLED, None)), "error")
    )

    assert (over, told, cleaned) == (None, [], ["cleaned"])


def test_bringing_results_here_does_not_count_for_galaxys_walltime(tmp_path: Path) -> None:
    """The tool has ended in time; what is too large is still found."""
    asked: list[dt.timedelta] = []

    def check_limits(runtime: dt.timedelta) -> None:
        asked.append(runtime)

    job = job_of_galaxy(tmp_path, has_limits=lambda: True, check_limits=check_limits)
    syncing = Errand(end=JobEnd(Outcome.SUCCEEDED, 0), advance=lambda: False)
    state = state_of(job, syncing)
    state.running, state.check_count = True, 19
    state.start_time = dt.datetime.now() - dt.timedelta(hours=9)  # noqa: DTZ005 # Galaxy's

    telling()[0].check_watched_item(state)

    assert asked == [dt.timedelta(0)]


def test_a_job_becomes_running_in_galaxy_though_its_database_refused_once(tmp_path: Path) -> None:
    """A locked database is tried again at the next look."""
    refusals = [RuntimeError("database is locked")]
    states: list[str] = []

    def change_state(state: str) -> None:
        if refusals:
            raise refusals.pop()
        states.append(state)

    made, _ = telling()
    job = job_of_galaxy(tmp_path, change_state=change_state)
    state = state_of(job, Errand(state="running"), "queued")
    with pytest.raises(RuntimeError):
        made.check_watched_item(state)

    made.check_watched_item(state)

    assert states == ["running"]


@pytest.mark.parametrize(("galaxy_state", "began"), [("queued", False), ("running", True)])
def test_the_time_of_a_job_that_waits_does_not_begin_with_galaxys_start(
    tmp_path: Path, galaxy_state: str, *, began: bool
) -> None:
    """Limits count from the tool's start on; of a tool that runs already it is not known."""
    job = job_of_galaxy(tmp_path)
    state = state_of(job, Errand())
    made, told = telling(_taken_up=lambda _job, _id: state)

    made.recover(
        SimpleNamespace(get_state=lambda: galaxy_state, get_job_runner_external_id=lambda: "job-1"),
        job,
    )

    assert told == ["watched"]
    assert (state.running, state.start_time is not None) == (began, began)


def test_a_job_that_cannot_be_stopped_does_not_keep_galaxy_from_stopping_others(
    tmp_path: Path,
) -> None:
    """What its stop queue has noted of all jobs is undone by an exception, and tried for ever."""

    def gone(_job: Any, _id: str) -> None:
        raise FileNotFoundError(tmp_path / "gone")

    made, told = telling(_taken_up=gone)
    job = SimpleNamespace(get_job_runner_external_id=lambda: "job-1")

    made.stop_job(job_of_galaxy(tmp_path, get_job=lambda: job))

    assert told == []


def failing(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Any]]:
    """Return a runner, and what Galaxy's own `fail_job` is called with."""
    from galaxy.jobs.runners import AsynchronousJobRunner  # noqa: PLC0415

    told: list[Any] = []
    monkeypatch.setattr(
        AsynchronousJobRunner, "fail_job", lambda _self, _state, **more: told.append(more)
    )
    return runner(), told


def test_a_failed_job_tells_the_beginning_and_the_end_of_what_its_tool_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it may be more than Galaxy has memory for."""
    made, told = failing(monkeypatch)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "tool_stdout").write_text("begin\n" + "x" * 5_000_000 + "\nend")
    (tmp_path / "outputs" / "tool_stderr").touch()
    (tmp_path / ".s3runner").mkdir()
    (tmp_path / ".s3runner" / "stderr").write_text("no tool_script.sh")

    made.fail_job(state_of(job_of_galaxy(tmp_path), Errand()))

    streams = told[0]["full_status"]
    assert len(streams["stdout"]) < 100_000
    assert streams["stdout"].startswith("begin\n")
    assert streams["stdout"].endswith("\nend")
    assert streams["stderr"] == "no tool_script.sh"


def test_a_job_fails_though_nothing_can_be_read_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Galaxy would not try again to fail it."""
    made, told = failing(monkeypatch)
    (tmp_path / "outputs" / "tool_stdout" / "no file").mkdir(parents=True)

    made.fail_job(state_of(job_of_galaxy(tmp_path), Errand()))

    assert told[0]["full_status"] == {"stdout": "", "stderr": ""}


def preparing(*, needs_image: bool = False, **more: Any) -> tuple[Any, list[str]]:
    """Return a runner that a job can be queued at, and what it tells Galaxy."""
    linking = SimpleNamespace(require_mount=lambda: None)
    place = SimpleNamespace(linking=linking, needs_image=needs_image)
    return telling(
        _places=SimpleNamespace(at=lambda _name, _params: place),
        _own_params=lambda _job: {},
        _write_script=lambda _job, _state: None,
        prepare_job=lambda _job, **_more: True,
        **more,
    )


def new_job(directory: Path, **more: Any) -> SimpleNamespace:
    """Return what stands for a job that nothing speaks against."""
    tool = SimpleNamespace(
        old_id="t",
        produces_entry_points=False,
        requires_galaxy_python_environment=False,
        tool_type="default",
    )
    usual = {
        "tool": tool,
        "is_cwl_job": False,
        "remote_command_line": False,
        "outputs_to_working_directory": True,
        "get_job": lambda: SimpleNamespace(tasks=[]),
        "job_io": None,
        "set_job_destination": lambda _destination, _id: None,
    }
    return job_of_galaxy(directory, **{**usual, **more})


def test_a_failure_of_ours_is_told_with_its_hint_and_may_be_resubmitted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Galaxy is told the reason, and a state that it has a word for."""
    failure = StoreUnavailableError("no answer", hint="look at the store")
    made, told = telling()

    made.check_watched_item(state_of(job_of_galaxy(tmp_path), Errand(failure=failure), "queued"))

    assert told == ["failed: unknown_error"]
    assert "(7) s3runner: no answer" in caplog.text
    assert "look at the store" in caplog.text


def test_a_job_without_a_container_is_refused_where_only_containers_run(tmp_path: Path) -> None:
    """Before the cluster is asked, which would blame the destination."""
    refused: list[str] = []
    made, told = preparing(needs_image=True)

    made.queue_job(new_job(tmp_path, fail=refused.append, s3runner_image=None))

    assert told == []
    assert len(refused) == 1
    assert refused[0].startswith("s3runner: destination d: Galaxy found no container")


def test_galaxys_log_tells_which_job_a_job_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An administrator has Galaxy's number, and the store and the cluster have ours.

    Inputs are looked for later, by a thread of ours: a store that is away keeps no worker busy.
    """
    caplog.set_level("INFO")
    ids: list[str] = []

    def is_away() -> None:
        pytest.fail("Galaxy's own thread looked for the inputs")

    made, told = preparing(_job_of=lambda *_args: is_away, _send=lambda _state, _job: Errand())

    made.queue_job(new_job(tmp_path, set_job_destination=lambda _where, own: ids.append(own)))

    assert told == ["watched"]
    assert f"(7) is job {ids[0]} at destination d" in caplog.text


@pytest.mark.parametrize("galaxy_state", ["stopped", "stop", "deleting", "running"])
def test_only_a_job_that_waits_becomes_running(tmp_path: Path, galaxy_state: str) -> None:
    """What somebody has stopped or deleted meanwhile stays so."""
    states: list[str] = []
    job = job_of_galaxy(tmp_path, change_state=states.append)

    telling()[0].check_watched_item(state_of(job, Errand(state="running"), galaxy_state))

    assert states == []


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("hg", ["hg.fa", "hg.fa.bwt", "hg.fa.fai"]),
        ("hg.fa", ["hg.fa", "hg.fa.bwt", "hg.fa.fai"]),
        ("mm", ["mm"]),
        ("absent", []),
    ],
    ids=["prefix", "file and prefix", "directory", "nothing"],
)
def test_a_data_tables_path_stands_for_all_files_that_begin_with_it(
    tmp_path: Path, path: str, found: list[str]
) -> None:
    """An aligner is given the sequence's file, and opens what lies beside it."""
    from s3runner.galaxy.recording import files_of_index  # noqa: PLC0415 # where there is a Galaxy

    for name in ("hg.fa", "hg.fa.bwt", "hg.fa.fai", "mm2.fa"):
        (tmp_path / name).touch()
    (tmp_path / "mm").mkdir()
    (tmp_path / "hg.fa.gone").symlink_to("nowhere")

    assert list(files_of_index(f"{tmp_path}/{path}")) == [f"{tmp_path}/{name}" for name in found]

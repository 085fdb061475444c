"""The tool shim under each shell, against a stager that is this test."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_rule import missing_service, require_program
from waiting import DEADLINE_S, wait_until

REPOSITORY = Path(__file__).parents[2]
SHIM = REPOSITORY / "job_scripts" / "tool_shim.sh"
SUBREAPER = REPOSITORY / "s3runner" / "cluster" / "local" / "subreaper.py"
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash"]}


def living(marker: str) -> list[int]:
    """Return the processes whose command line holds a marker."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended while we looked
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


class Shim:
    """A shim that runs, its control directory, and the stager's ends of its FIFOs."""

    def __init__(self, folder: Path, shell: list[str]) -> None:
        self.control = folder / "control"
        self.work = folder / "work"
        for directory in (self.control, self.work):
            directory.mkdir()
        for fifo in ("up", "down"):
            os.mkfifo(self.control / fifo)
        self.shell = shell
        self.namespace = [
            "unshare",
            *([] if os.geteuid() == 0 else ["--user", "--map-current-user"]),
            "--pid",
            "--fork",
            "--kill-child",
        ]
        self.up: int | None = None
        self.down: int | None = None
        self.received = b""
        self.hung_up = False
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, text: str) -> None:
        """Write the job's command."""
        (self.control / "command").write_text(text)

    def attach(self) -> None:
        """Open both FIFOs as the stager does."""
        self.up = os.open(self.control / "up", os.O_RDONLY | os.O_NONBLOCK)
        self.down = os.open(self.control / "down", os.O_RDWR)

    def start(self, **environ: str) -> None:
        """Start the shim; names are given without their S3RUNNER_ prefix."""
        self.process = subprocess.Popen(
            [*self.namespace, *self.shell, str(SHIM)],
            env={
                "PATH": os.environ["PATH"],
                "S3RUNNER_CONTROL": str(self.control),
                "S3RUNNER_WORK": str(self.work),
                "S3RUNNER_KILL_AFTER": "1",
                "S3RUNNER_START_TIMEOUT": str(DEADLINE_S),
                **{f"S3RUNNER_{name}": value for name, value in environ.items()},
            },
            stderr=subprocess.PIPE,
        )

    def pid(self) -> int:
        """Return the PID of the shim itself, as this namespace sees it."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def listen(self) -> bytes:
        """Read `up` for a moment and return all that came so far."""
        assert self.up is not None
        poller = select.poll()
        poller.register(self.up, select.POLLIN)
        for _, event in poller.poll(50):
            chunk = os.read(self.up, 4096) if event & select.POLLIN else b""
            self.received += chunk
            self.hung_up = self.hung_up or not chunk
        return self.received

    def wait_started(self) -> None:
        """Wait for the line that says that the tool runs."""
        wait_until(lambda: b"started\n" in self.listen())

    def wait_file(self, name: str) -> None:
        """Wait for a file of the work directory."""
        wait_until((self.work / name).exists)

    def release(self) -> None:
        """Close `down`, as a stager does that is gone or wants the tool to end."""
        assert self.down is not None
        os.close(self.down)
        self.down = None

    def finish(self) -> int:
        """Wait for hang-up and the end; return the shim's own exit code."""
        assert self.process is not None
        if self.up is not None:
            wait_until(lambda: (self.listen(), self.hung_up)[1])
        return self.process.wait(DEADLINE_S)

    def exit_code(self) -> str:
        """Return the tool's exit code as the file has it, the same as the line has it."""
        text = (self.control / "exit_code").read_text()
        assert self.received == b"started\nexit " + text.encode()
        code, before, after, *_ = text.split()
        assert before == after
        return code

    def close(self) -> None:
        """End what still runs."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(
                    signal.SIGQUIT if str(SUBREAPER) in self.namespace else signal.SIGKILL
                )
                self.process.wait(DEADLINE_S)
            assert self.process.stderr is not None
            self.process.stderr.close()
        for descriptor in (self.up, self.down):
            if descriptor is not None:
                os.close(descriptor)


@pytest.fixture(params=SHELLS)
def shim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shim]:
    """Return a shim for each shell, PID 1 of a namespace; not started."""
    require_program(request.param)
    require_program("unshare")
    made = Shim(tmp_path, SHELLS[request.param])
    yield made
    made.close()


@pytest.fixture
def shim_below_subreaper(shim: Shim) -> Shim:
    """Return the same without a namespace, below our subreaper."""
    shim.namespace = [sys.executable, "-I", "-S", str(SUBREAPER)]
    return shim


@pytest.fixture(params=["namespace", "subreaper"])
def any_shim(request: pytest.FixtureRequest, shim: Shim) -> Shim:
    """Return the shim in both ways to kill; not started, SHIM says which."""
    if request.param == "subreaper":
        shim.namespace = [sys.executable, "-I", "-S", str(SUBREAPER)]
    return shim


def mode(shim: Shim) -> dict[str, str]:
    """Return the variable that tells the shim how it runs."""
    return {"SHIM": "no-pidns"} if str(SUBREAPER) in shim.namespace else {}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param("exit 0", "0", id="success"),
        pytest.param("exit 3", "3", id="failure"),
        pytest.param("no-such-program-here", "127", id="missing program"),
        pytest.param("kill -9 $$", "137", id="killed"),
        pytest.param("kill -TERM $$", "143", id="terminated"),
        pytest.param("kill -SEGV $$", "139", id="crashed"),
    ],
)
def test_the_exit_code_is_the_tools_own(any_shim: Shim, command: str, code: str) -> None:
    any_shim.command(command)
    any_shim.attach()
    any_shim.start(**mode(any_shim))
    assert any_shim.finish() == 0
    assert any_shim.exit_code() == code


def test_a_missing_command_file_is_code_127(shim: Shim) -> None:
    shim.attach()
    shim.start()
    assert shim.finish() == 0
    assert shim.exit_code() == "127"
    assert "command: not found" in (shim.control / "stderr").read_text()


def test_streams_are_appended_and_stdin_is_empty(shim: Shim) -> None:
    (shim.control / "stdout").write_text("before\n")
    shim.command("cat; pwd; echo wrong >&2")
    shim.attach()
    shim.start()
    shim.finish()
    assert (shim.control / "stdout").read_text() == f"before\n{shim.work}\n"
    assert (shim.control / "stderr").read_text() == "wrong\n"


def test_the_tool_gets_the_environment_and_no_descriptor_of_ours(shim: Shim) -> None:
    shim.command("env | grep -c shim_; echo $S3RUNNER_JOB_ID; ls -l /proc/self/fd")
    shim.attach()
    shim.start(JOB_ID="a job")
    shim.finish()
    printed = (shim.control / "stdout").read_text()
    assert printed.startswith("0\na job\n")
    assert "control/up" not in printed
    assert "control/down" not in printed


def test_the_tools_children_can_be_interrupted_where_env_can_undo_what_the_shell_did(
    shim: Shim,
) -> None:
    if subprocess.run(["env", "--default-signal=INT", "true"], check=False).returncode != 0:
        missing_service("GNU env", "env --default-signal is not there")
    shim.command('sh -c "kill -INT \\$\\$; exit 9"')
    shim.attach()
    shim.start()
    shim.finish()
    assert shim.exit_code() == "130"


def test_a_superseded_attempt_exits_0_at_once_without_a_code(shim: Shim) -> None:
    (shim.control / "superseded").touch()
    shim.namespace = []
    shim.start()
    assert shim.finish() == 0
    assert not (shim.control / "exit_code").exists()


def test_it_refuses_to_run_without_a_pid_namespace(shim: Shim) -> None:
    shim.command("touch ran")
    shim.attach()
    shim.namespace = []
    shim.start()
    assert shim.process is not None
    assert shim.process.wait(DEADLINE_S) == 64
    assert shim.process.stderr is not None
    assert b"not PID 1" in shim.process.stderr.read()
    assert not (shim.work / "ran").exists()
    assert not (shim.control / "exit_code").exists()


def test_without_a_reader_on_up_it_ends_after_the_timeout_without_a_code(any_shim: Shim) -> None:
    any_shim.command("touch ran")
    any_shim.start(START_TIMEOUT="1", **mode(any_shim))
    assert any_shim.finish() == 0
    assert not (any_shim.work / "ran").exists()
    assert not (any_shim.control / "exit_code").exists()


def test_without_a_writer_on_down_it_ends_after_the_timeout_without_a_code(any_shim: Shim) -> None:
    any_shim.command("touch ran")
    any_shim.up = os.open(any_shim.control / "up", os.O_RDONLY | os.O_NONBLOCK)
    any_shim.start(START_TIMEOUT="1", **mode(any_shim))
    assert any_shim.finish() == 0
    assert any_shim.received == b""
    assert not (any_shim.work / "ran").exists()


def test_term_while_it_waits_for_the_stager_ends_it_without_a_code(shim: Shim) -> None:
    shim.command("touch ran")
    shim.start()
    assert shim.process is not None
    launcher = Path(f"/proc/{shim.process.pid}/task/{shim.process.pid}/children")
    wait_until(launcher.read_text)
    own = Path(f"/proc/{shim.pid()}/task/{shim.pid()}/children")
    wait_until(own.read_text)  # what it starts first is the timer, after its traps are set
    os.kill(shim.pid(), signal.SIGTERM)
    assert shim.finish() == 0
    assert not (shim.control / "exit_code").exists()
    assert not (shim.work / "ran").exists()


def test_missing_fifos_end_it_without_a_code(shim: Shim) -> None:
    (shim.control / "up").unlink()
    shim.command("touch ran")
    shim.start()
    assert shim.finish() == 0
    assert not (shim.work / "ran").exists()


def test_term_reaches_every_process_of_the_tool(any_shim: Shim) -> None:
    require_program("setsid")
    catcher = "trap 'touch {0}.ended; exit 0' TERM; touch {0}; while :; do sleep 0.05; done"
    (any_shim.work / "own").write_text(catcher.format("own-session"))
    (any_shim.work / "same").write_text(catcher.format("same-session"))
    # the whole paths tell these processes from those of the same test beside this one
    own, same = any_shim.work / "own", any_shim.work / "same"
    any_shim.command(f"setsid sh '{own}' & sh '{same}' & wait; wait; wait; exit 5")
    any_shim.attach()
    any_shim.start(**mode(any_shim))
    any_shim.wait_file("own-session")
    any_shim.wait_file("same-session")
    target = any_shim.pid()
    os.kill(target, signal.SIGTERM)
    any_shim.finish()
    assert any_shim.exit_code() == "143"
    assert (any_shim.work / "own-session.ended").exists() or not living(str(own))
    assert (any_shim.work / "same-session.ended").exists() or not living(str(same))


def test_a_tool_that_catches_term_has_its_own_code_after_it_cleaned_up(any_shim: Shim) -> None:
    any_shim.command("trap 'sleep 0.2; exit 42' TERM; touch ready; while :; do sleep 0.05; done")
    any_shim.attach()
    any_shim.start(**mode(any_shim))
    any_shim.wait_file("ready")
    os.kill(any_shim.pid(), signal.SIGTERM)
    os.kill(any_shim.pid(), signal.SIGTERM)
    any_shim.finish()
    assert any_shim.exit_code() == "42"
    assert (any_shim.control / "exit_code").read_text().split()[3:] == ["term"]


def test_leftovers_are_dead_before_the_exit_code_is_there(any_shim: Shim) -> None:
    require_program("setsid")
    writer = "trap '' TERM HUP; : >late; touch ready; while :; do echo x >>late; done"
    (any_shim.work / "writer").write_text(writer)
    any_shim.command("setsid sh ./writer & while [ ! -e ready ]; do sleep 0.05; done; exit 4")
    any_shim.attach()
    any_shim.start(**mode(any_shim))
    wait_until((any_shim.control / "exit_code").exists)
    size = (any_shim.work / "late").stat().st_size
    any_shim.finish()
    assert any_shim.exit_code() == "4"
    assert (any_shim.work / "late").stat().st_size == size


def test_many_orphans_are_reaped_and_do_not_hold_up_the_end(shim: Shim) -> None:
    shim.command("for n in 1 2 3 4 5 6 7 8 9; do (sleep 60 & sleep 60 & sleep 60 &) ; done")
    shim.attach()
    shim.start()
    shim.finish()
    assert shim.exit_code() == "0"


def test_a_killed_shim_is_a_hang_up_without_an_exit_line(shim: Shim) -> None:
    shim.command(f"touch ready; sleep {60 + os.getpid()}")
    shim.attach()
    shim.start()
    shim.wait_started()
    shim.wait_file("ready")
    os.kill(shim.pid(), signal.SIGKILL)
    shim.finish()
    assert shim.received == b"started\n"
    assert not (shim.control / "exit_code").exists()
    wait_until(lambda: not living(f"sleep\0{60 + os.getpid()}"))


def test_a_gone_stager_ends_a_tool_that_ignores_term(any_shim: Shim) -> None:
    any_shim.command("trap 'touch asked' TERM; touch ready; while :; do sleep 0.05; done")
    any_shim.attach()
    any_shim.start(**mode(any_shim))
    any_shim.wait_started()
    any_shim.wait_file("ready")
    any_shim.release()
    any_shim.finish()
    assert (any_shim.work / "asked").exists()
    assert any_shim.exit_code() == "137"


def test_after_term_was_passed_on_a_gone_stager_sends_only_kill(any_shim: Shim) -> None:
    command = "trap 'echo asked >>asked' TERM; touch ready; while :; do sleep 0.05; done"
    any_shim.command(command)
    any_shim.attach()
    any_shim.start(**mode(any_shim))
    any_shim.wait_started()
    any_shim.wait_file("ready")
    os.kill(any_shim.pid(), signal.SIGTERM)
    any_shim.wait_file("asked")
    any_shim.release()
    any_shim.finish()
    assert (any_shim.work / "asked").read_text() == "asked\n"
    assert any_shim.exit_code() == "137"


def test_a_gone_stager_lets_a_tool_end_by_itself(shim: Shim) -> None:
    shim.command("trap 'exit 6' TERM; touch ready; while :; do sleep 0.05; done")
    shim.attach()
    shim.start(KILL_AFTER="60")
    shim.wait_file("ready")
    shim.release()
    shim.finish()
    assert shim.exit_code() == "6"


def test_a_stager_that_is_killed_as_a_whole_does_not_stop_the_shim_from_its_work(
    any_shim: Shim,
) -> None:
    shim = any_shim
    shim.command("touch ready; sleep 60")
    shim.attach()
    shim.start(**mode(shim))
    shim.wait_started()
    shim.wait_file("ready")
    assert shim.up is not None
    os.close(shim.up)
    shim.up = None
    shim.release()
    assert shim.finish() == 0
    assert (shim.control / "exit_code").read_text().split()[0] == "143"


def test_a_full_disk_still_gives_the_exit_line(tmp_path: Path, shim: Shim) -> None:
    require_program("bwrap")
    small = shutil.which("bwrap")
    assert small is not None
    shim.namespace = [
        *(small, "--bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
        *("--size", str(64 * 1024), "--tmpfs", str(shim.work)),
        *("--bind", str(shim.control / "up"), str(shim.work / "up")),
        *("--bind", str(shim.control / "down"), str(shim.work / "down")),
        *("--unshare-pid", "--as-pid-1", "--die-with-parent"),
        *("--setenv", "S3RUNNER_CONTROL", str(shim.work)),
        *(("--unshare-user",) if os.geteuid() != 0 else ()),
    ]
    command = tmp_path / "command"
    command.write_text("cat /dev/zero >fill; exit 3")
    shim.namespace += ["--ro-bind", str(command), str(shim.work / "command")]
    shim.attach()
    shim.start()
    assert shim.finish() == 0
    assert shim.received == b"started\nexit 3 - -\n" or shim.received.startswith(b"started\nexit 3")


def test_killing_the_subreaper_by_quit_leaves_nothing(shim_below_subreaper: Shim) -> None:
    require_program("setsid")
    seconds = 100_000 + os.getpid()
    shim = shim_below_subreaper
    shim.command(f"setsid sleep {seconds} & touch ready; sleep {seconds}")
    shim.attach()
    shim.start(SHIM="no-pidns")
    shim.wait_file("ready")
    wait_until(lambda: len(living(f"sleep\0{seconds}")) == 2)
    assert shim.process is not None
    shim.process.send_signal(signal.SIGQUIT)
    assert shim.finish() == 137
    assert not living(f"sleep\0{seconds}")
    assert shim.received == b"started\n"

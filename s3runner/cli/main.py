"""The command `s3runner`: finds the verb, and turns whatever happens into words and an exit code.

Verbs are imported when they are called, so that `--help` loads none of the slow libraries.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence

import click

from s3runner import __version__
from s3runner.cli.rendering import LogLines, error_lines
from s3runner.cli.report import InterruptedByUserError, Invocation
from s3runner.errors import S3RunnerError, SettingsError
from s3runner.nearest import did_you_mean

EXIT_USAGE, EXIT_FAILED, EXIT_INTERRUPTED = 2, 3, 130

_ALLOCATIONS_A_COLLECTION = 50_000

_VERBS = {
    "cancel": "End a job that was submitted.",
    "cat": "Write a stored output to stdout.",
    "demo": "Run a job against a store of its own, on this machine.",
    "gc": "Remove expired jobs and unused inputs from the store.",
    "job-conf": "Check Galaxy's job configuration, and show what it means.",
    "list": "List the jobs of this store, the newest first.",
    "logs": "Print what a job's tool wrote to stdout and stderr.",
    "ls": "List a job's outputs, or what lies at a URI.",
    "plan": "Show what running a job would upload, and the Job it would make.",
    "run": "Run a job: submit it, wait for it, and bring its outputs back.",
    "schema": "Print the JSON Schema of a job file or of the settings.",
    "status": "Show what is known of jobs now.",
    "submit": "Submit jobs, and leave them to themselves.",
    "sync": "Wait for a job that was submitted, and bring its outputs back.",
    "wait": "Wait for a job that was submitted.",
}
"""Each is a module of this package with a `command`; the sentence is for `s3runner --help`."""


class Verbs(click.Group):
    """A click group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs' names."""
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Import a verb. An unknown one is a usage error that names the nearest."""
        if cmd_name not in _VERBS:
            ctx.fail(f"there is no verb {cmd_name!r}{did_you_mean(cmd_name, _VERBS)}")
        module = importlib.import_module(f"s3runner.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="VERB ...",
)
@click.version_option(__version__, prog_name="s3runner", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks of failures.")
@click.pass_context
def verbs(ctx: click.Context) -> None:
    """Run containerised jobs whose files travel through S3."""
    if ctx.invoked_subcommand is None:
        ctx.fail("a verb is missing")


def main() -> None:
    """Run the command line and exit: 0, 1 (the job's outcome), 2 (usage), 3 (our failure)."""
    # What a start imports stays: the collector need not search it on the way, nor at the exit.
    gc.set_threshold(_ALLOCATIONS_A_COLLECTION)
    logging.getLogger("s3runner").addHandler(LogLines())
    _take_term_for_ctrl_c()
    code = run_command_line(sys.argv[1:])
    gc.freeze()
    sys.exit(code)


def _take_term_for_ctrl_c() -> None:
    """Let TERM say what goes on without us, and clear up; the default action just ends us.

    One that comes before this ends a process that has done nothing yet. Who ignores it, as `nohup`
    ignores HUP, is left alone: so does Python with INT.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command line on the process's own streams; return its exit code."""
    invocation = Invocation.of(arguments)
    code = _call(arguments, invocation)
    try:
        invocation.write(sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader left; without this the interpreter complains about it once more at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _call(arguments: Sequence[str], invocation: Invocation) -> int:
    try:
        result = verbs.main(
            list(arguments), prog_name="s3runner", standalone_mode=False, obj=invocation
        )
    except S3RunnerError as error:
        return _report(error, invocation)
    except click.ClickException as error:
        return _report(_usage_error(error), invocation)
    except click.Abort:
        return _report(InterruptedByUserError("interrupted"), invocation)
    except BrokenPipeError:
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001  whatever it is, it ends in words and a code
        return _report(_fault(error), invocation)
    return result if isinstance(result, int) else 0


def _report(error: S3RunnerError, invocation: Invocation) -> int:
    invocation.fail(error)
    if invocation.debug:
        traceback.print_exc(file=sys.stderr)
    sys.stderr.write("".join(f"{line}\n" for line in error_lines(error)))
    return _exit_code(error)


def _exit_code(error: S3RunnerError) -> int:
    if isinstance(error, SettingsError):
        return EXIT_USAGE
    return EXIT_INTERRUPTED if isinstance(error, InterruptedByUserError) else EXIT_FAILED


def _usage_error(error: click.ClickException) -> SettingsError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "s3runner"
    return SettingsError(error.format_message().rstrip("."), hint=f"see {path} --help")


def _fault(error: Exception) -> S3RunnerError:
    return S3RunnerError(
        f"internal error: {type(error).__name__}: {error}",
        hint="this is a fault of s3runner; `s3runner --debug VERB ...` shows where",
    )

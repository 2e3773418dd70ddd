"""The program `kvstore` with all its commands.

Exit codes: 0 done; 1 no (nothing there, or `check` found problems); 2 wrong usage; 3 the store
refused; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]

import kvstore.errors as errors
from kvstore.cli import items, listings, live, sequences, upkeep
from kvstore.cli.app import URL_VARIABLE, app, command, fail
from kvstore.cli.console import make_streams_safe

__all__ = ["run"]

COMPLETION = "_KVSTORE_COMPLETE"
STOPPED = 130  # the exit code that shells use for Ctrl-C
TOPICS = (items, listings, sequences, upkeep, live)  # whose import has made their commands


def run() -> int:
    """Run the command line; return the exit code."""
    if COMPLETION in os.environ:
        completion_init()
    make_streams_safe()
    try:
        return _call()
    except (errors.StoreError, OSError, SystemExit) as exc:
        if not _is_cut_off(exc):
            raise
        # Whoever read our output has seen enough; nor is there anyone to flush the rest to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _is_cut_off(exc: BaseException) -> bool:
    """Whether it is, or comes of, writing to a pipe that nobody reads any more."""
    return any(isinstance(e, BrokenPipeError) for e in (exc, exc.__cause__, exc.__context__))


def _call() -> int:
    program = typer.main.get_command(app)
    try:
        if len(sys.argv) == 1:
            program.main(["--help"], prog_name="kvstore", standalone_mode=False)
            return 2
        code = program.main(prog_name="kvstore", standalone_mode=False)
        sys.stdout.flush()
    except (errors.StoreError, OSError) as exc:
        if _is_cut_off(exc):
            raise
        return fail(*_told(exc))
    except (KeyboardInterrupt, typer.Abort):
        return fail("stopped", STOPPED)
    except Exception as exc:
        if hasattr(exc, "exit_code") and hasattr(exc, "format_message"):  # wrong usage
            return fail(f"{exc.format_message()} ({_cure(exc)})", int(exc.exit_code))
        raise
    if code == STOPPED:
        return fail("stopped", code)
    return code if isinstance(code, int) else 0


def _cure(exc: Any) -> str:
    """Return what to do about wrong usage."""
    if type(exc).__name__ == "MissingParameter" and URL_VARIABLE not in os.environ:
        return f"STORE comes first, or {URL_VARIABLE} names it; see kvstore --help"
    return "see kvstore --help"


def _told(exc: Exception) -> tuple[str, int]:
    """Return what to say of an error, and the exit code."""
    if isinstance(exc, errors.StoreError):
        is_usage = isinstance(exc, ValueError) and not isinstance(exc, errors.ValueTooLargeError)
        return str(exc), 2 if is_usage else 3
    assert isinstance(exc, OSError)
    return f"{exc.filename or ''}: {exc.strerror or exc}".removeprefix(": "), 3


@command("shell-completion")
def shell_completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh, fish or powershell.")],
) -> None:
    """Print what makes a shell complete commands: eval "$(kvstore shell-completion bash)"."""
    if shell not in ("bash", "zsh", "fish", "powershell", "pwsh"):
        raise errors.InvalidArgumentError("there is bash, zsh, fish and powershell")
    completion_init()
    os.environ[COMPLETION] = f"source_{shell}"
    typer.main.get_command(app).main(args=[], prog_name="kvstore", complete_var=COMPLETION)

"""The command line, of the extra `cli`."""

from __future__ import annotations

import sys

from kvstore.distribution import VERSION, how_to_install

__all__ = ["main"]

_OURS = {"rich", "typer", "textual"}


def main() -> None:
    """Run the command that the arguments of the process name, and end the process."""
    try:
        from kvstore.cli.commands import run
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in _OURS:
            raise
        if sys.argv[1:] == ["--version"]:  # which a report of an error is to say
            sys.stdout.write(f"kvstore {VERSION}\n")
            sys.exit(0)
        sys.stderr.write(
            f"kvstore: the command line needs {exc.name}: {how_to_install('cli', *sorted(_OURS))}\n"
        )
        sys.exit(3)
    sys.exit(run())

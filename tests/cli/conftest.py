"""Runs the command line as a person would: in a pipe, or in a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "kvstore"]
_ESCAPES = re.compile(r"\x1b(\[[0-9;?<=>]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|.)")

Run = Callable[..., subprocess.CompletedProcess[bytes]]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "KVSTORE_URL"}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **more}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs `kvstore` in a pipe."""

    def run(
        *arguments: object, code: int = 0, input: bytes = b"", **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            input=input,
            capture_output=True,
            cwd=tmp_path,
            env=environment(**env),
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        assert b"Traceback" not in done.stderr
        assert b"\x1b[" not in done.stdout, "colour in a pipe"
        return done

    return run


class Terminal:
    """`kvstore` in a terminal of its own."""

    def __init__(self, cwd: Path, *arguments: object, stdin: Any = None) -> None:
        self._ours, theirs = pty.openpty()
        import fcntl
        import struct
        import termios

        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self._process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdin=theirs if stdin is None else stdin,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=environment(),
            start_new_session=True,
            # A shell starts what is in its background with Ctrl-C ignored, and that is inherited.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        os.close(theirs)
        self.seen = ""
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def expect(self, text: str, seconds: float = 30) -> None:
        """Wait until this is written, after what was expected before."""
        until = time.monotonic() + seconds
        while True:
            plain = _ESCAPES.sub("", self.seen)
            at = plain.find(text, self._read)
            if at >= 0:
                self._read = at + len(text)
                return
            if not self._more(until - time.monotonic()):
                raise AssertionError(f"{text!r} is not in {plain[self._read :]!r}")

    def _more(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0, seconds))
        if not ready:
            return False
        try:
            data = os.read(self._ours, 1 << 16)
        except OSError:  # Linux, when the other end is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def text(self) -> str:
        """Return what has been written, without colours."""
        return _ESCAPES.sub("", self.seen)

    def end(self) -> int:
        """Read the rest, and return the exit code."""
        until = time.monotonic() + 30
        while self._more(until - time.monotonic()):
            pass
        return self._process.wait(timeout=30)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Return a function that starts `kvstore` in a terminal."""
    opened: list[Terminal] = []

    def start(*arguments: object, **options: Any) -> Terminal:
        opened.append(Terminal(tmp_path, *arguments, **options))
        return opened[-1]

    yield start
    for each in opened:
        each.__exit__(None, None, None)

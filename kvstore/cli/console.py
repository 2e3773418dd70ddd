"""Where the commands write: plain lines or JSON for pipes, tables and colours for people."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from kvstore.cli.words import Progress as Callback
from kvstore.cli.words import item_line, pretty, show_namespace, visible
from kvstore.types import Item

__all__ = ["Out", "StdinLines"]

_CHUNK = 1 << 20
_VALUE_WIDTH = 60


class Out:
    """Writes results to standard output, and what goes on to standard error.

    Args:
        json: one JSON object a line and nothing else, without colour.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.errors = Console(stderr=True, highlight=False, markup=False, emoji=False)

    def line(self, data: bytes) -> None:
        """Write a line as it is."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def text(self, text: str) -> None:
        """Write a line of text; it is never wrapped, nor cut."""
        self.line(text.encode("utf-8", "backslashreplace") + b"\n")

    def say(self, text: str) -> None:
        """Tell people what happened, on standard error; pipes hear nothing of it."""
        if not self.json:
            self.errors.print(Text(text), soft_wrap=True)

    def value(self, value: Any) -> None:
        """Write a value, laid out."""
        text = Text(pretty(value))
        if self.console.is_terminal:
            JSONHighlighter().highlight(text)
            self.console.print(text, soft_wrap=True)
        else:
            self.text(text.plain)

    def items(self, items: list[Item]) -> None:
        """Write items: a table, or lines of JSON."""
        if self.json:
            for item in items:
                self.line(item_line(item))
            return
        if not items:
            self.say("nothing found")
            return
        has_scores = any(item.score is not None for item in items)
        table = self.table("namespace", "key", "value", "updated", *(["score"] * has_scores))
        for item in items:
            score = [] if item.score is None else [f"{item.score:.3f}"]
            table.add_row(*map(Text, [*self.cells(item), *score]))
        self.print(table)

    def cells(self, item: Item) -> list[str]:
        """Return the cells of an item's row."""
        value = " ".join(pretty(item.value).split())
        if len(value) > _VALUE_WIDTH and self.console.is_terminal:
            value = value[: _VALUE_WIDTH - 1] + "…"
        updated = f"{item.updated_at.astimezone():%Y-%m-%d %H:%M:%S}"
        return [show_namespace(item.namespace), visible(item.key), value, updated]

    def table(self, *names: str) -> Table:
        """Return an empty table."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in names:
            is_number = name in {"items", "namespaces", "bytes", "size", "score", "version"}
            table.add_column(name, justify="right" if is_number else "left", overflow="fold")
        return table

    def print(self, table: Any) -> None:
        """Write a table or a tree; in a pipe it is as wide as it needs to be."""
        if self.console.is_terminal:
            self.console.print(table)
        else:
            Console(
                file=sys.stdout, width=10_000, highlight=False, markup=False, emoji=False
            ).print(table)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callback | None]:
        """Give a callback that draws a bar with rate and time left; `None` where nobody looks."""
        if self.json or not self.errors.is_terminal:
            yield None
            return
        columns: tuple[ProgressColumn, ...] = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        with Progress(*columns, console=self.errors, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


class StdinLines:
    """Standard input as a file of lines whose reading can be given up.

    A thread that waits for a terminal or a pipe cannot be stopped, and would hold Ctrl-C up. This
    one is a daemon, and whoever waits for it is let go by `stop`.
    """

    def __init__(self) -> None:
        self._chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._rest = b""
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        while chunk := os.read(0, _CHUNK):
            self._chunks.put(chunk)
        self._chunks.put(b"")

    def readlines(self, hint: int = -1) -> list[bytes]:
        """Return some lines, none at the end."""
        while True:
            chunk = self._chunks.get()
            if not chunk:
                rest, self._rest = self._rest, b""
                self._chunks.put(b"")  # the end stays the end
                return [rest] if rest else []
            whole, newline, rest = chunk.rpartition(b"\n")
            if newline:
                lines = (self._rest + whole + newline).splitlines(keepends=True)
                self._rest = rest
                return _joined(lines)
            self._rest += chunk

    def stop(self) -> None:
        """Let whoever waits see an end."""
        self._chunks.put(b"")


def _joined(lines: list[bytes]) -> list[bytes]:
    """Undo splits at a lone CR, which `bytes.splitlines` takes for a line's end."""
    joined: list[bytes] = []
    for line in lines:
        if joined and not joined[-1].endswith(b"\n"):
            joined[-1] += line
        else:
            joined.append(line)
    return joined

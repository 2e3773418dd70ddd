"""Where the commands write: plain lines or JSON for pipes, tables and colours for people."""

from __future__ import annotations

import io
import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.cells import cell_len
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
from kvstore.cli.words import item_line, pretty, pretty_line, show_namespace, visible
from kvstore.types import Item

__all__ = ["Out", "Stdin", "make_streams_safe"]

_CHUNK = 1 << 20
_CHUNKS = 4  # of standard input, read ahead
_GAP = 1  # between two columns
_NARROWEST_VALUE = 10
_BAR = 20


def make_streams_safe() -> None:
    """Have what a terminal's encoding cannot show written as escapes, not end in an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
        """Write a line of text; it is never wrapped, nor cut. In a pipe it is UTF-8."""
        if self.console.is_terminal:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        else:
            self.line(text.encode("utf-8", "backslashreplace") + b"\n")

    def fitted(self, text: str) -> str:
        """Cut a line to the width of the terminal; in a pipe it stays whole."""
        if not self.console.is_terminal:
            return text
        line = Text(text.expandtabs())
        line.truncate(self.console.width, overflow="ellipsis")
        return line.plain

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

    def items(self, items: list[Item], *, has_namespaces: bool = True) -> None:
        """Write items: a table with one line for each, or lines of JSON."""
        if self.json:
            for item in items:
                self.line(item_line(item))
            return
        first = 0 if has_namespaces else 1
        has_scores = any(item.score is not None for item in items)
        names = ["namespace", "key", "value", "updated"][first:] + ["score"] * has_scores
        rows = [self.cells(item)[first:] for item in items]
        if has_scores:
            for row, item in zip(rows, items, strict=True):
                row.append("" if item.score is None else f"{item.score:.3f}")
        table = self.table(*names)
        room = self._room_for_values(names, rows)
        for row in rows:
            cells = [Text(cell) for cell in row]
            if room is not None:
                cells[names.index("value")].truncate(room, overflow="ellipsis")
            table.add_row(*cells)
        self.print(table)

    def _room_for_values(self, names: list[str], rows: list[list[str]]) -> int | None:
        """Return how many columns of the terminal the others leave to the values."""
        if not self.console.is_terminal:
            return None
        others = sum(
            max(map(cell_len, (name, *cells)), default=0) + _GAP
            for name, *cells in zip(names, *rows, strict=True)
            if name != "value"
        )
        return max(_NARROWEST_VALUE, self.console.width - others)

    def cells(self, item: Item) -> list[str]:
        """Return the cells of an item's row."""
        updated = f"{item.updated_at.astimezone():%Y-%m-%d %H:%M:%S}"
        return [show_namespace(item.namespace), visible(item.key), pretty_line(item.value), updated]

    def table(self, *names: str) -> Table:
        """Return an empty table."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in names:
            is_number = name in {"items", "namespaces", "bytes", "size", "score", "version"}
            table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
        return table

    def bar(self, part: int, whole: int) -> Text:
        """Draw a part of a whole, for people; pipes get nothing."""
        if not self.console.is_terminal:
            return Text("")
        sign = "#" if self.console.options.ascii_only else "█"
        return Text(sign * max(1, round(_BAR * part / whole)) if part else "", style="cyan")

    def print(self, table: Any) -> None:
        """Write a table or a tree; in a pipe it is as wide as it needs to be."""
        if self.console.is_terminal:
            self.console.print(table)
        else:
            whole = io.StringIO()
            Console(file=whole, width=10_000, highlight=False, markup=False, emoji=False).print(
                table
            )
            self.line(whole.getvalue().encode("utf-8", "backslashreplace"))

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


class Stdin:
    """Standard input as a file whose reading can be given up.

    A thread that waits for a terminal or a pipe cannot be stopped, and would hold Ctrl-C up. This
    one is a daemon, and whoever waits for it is let go by `stop`.
    """

    def __init__(self) -> None:
        self._chunks: queue.Queue[bytes] = queue.Queue(_CHUNKS)
        self._next = b""
        self._is_over = False
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        while chunk := os.read(0, _CHUNK):
            self._chunks.put(chunk)
        self._chunks.put(b"")

    def begin(self) -> bool:
        """Wait for the first of it; whether there is any."""
        self._next = self.read()
        return bool(self._next)

    def read(self, size: int = -1) -> bytes:
        """Return what there is next, nothing at the end; how much is not asked for."""
        if self._is_over:
            return b""
        chunk, self._next = self._next or self._chunks.get(), b""
        self._is_over |= not chunk
        return chunk

    def stop(self) -> None:
        """Let whoever waits see an end."""
        self._is_over = True
        with suppress(queue.Full):  # then nobody waits
            self._chunks.put_nowait(b"")

"""How items and sizes look in a notebook: plain tables, every text escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

__all__ = ["item_table", "items_table", "table", "value_text"]

_ROWS = 50  # of a list
_CHARS = 200  # of a value
_LONG = 4_000  # of a value that is shown by itself


def value_text(value: Any, encode: Callable[[Any], bytes], most: int = _CHARS) -> str:
    """Return the beginning of a value, as JSON has it."""
    data = encode(value)
    text = data[: 4 * most].decode("utf-8", "ignore")
    return text if len(text) <= most and len(data) <= 4 * most else text[: most - 1] + "…"


def item_table(item: Any, encode: Callable[[Any], bytes]) -> str:
    """Return a table of the fields of an item."""
    rows = [
        ("namespace", " / ".join(item.namespace) or "(root)"),
        ("key", item.key),
        ("value", value_text(item.value, encode, _LONG)),
        ("version", item.version),
        ("created_at", item.created_at),
        ("updated_at", item.updated_at),
    ]
    more = ("expires_at", item.expires_at), ("score", item.score)
    return table((), [*rows, *(row for row in more if row[1] is not None)])


def items_table(items: Sequence[Any], encode: Callable[[Any], bytes]) -> str:
    """Return a table with a row for each item, the first ones of many."""
    has_scores = any(item.score is not None for item in items)
    names = ["namespace", "key", "value", "version", "updated_at", *(["score"] * has_scores)]
    rows = []
    for item in items[:_ROWS]:
        where = " / ".join(item.namespace) or "(root)"
        row = [where, item.key, value_text(item.value, encode), item.version, item.updated_at]
        rows.append([*row, *([item.score] * has_scores)])
    more = len(items) - len(rows)
    return table(names, rows) + (f"<p>… and {more:,} more</p>" if more else "")


def table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; without names the first cell of a row is its heading."""
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = []
    for row in rows:
        cells = [escape("" if cell is None else str(cell)) for cell in row]
        if names:
            body.append("".join(f"<td>{cell}</td>" for cell in cells))
        else:
            first, *others = cells
            body.append(f"<th>{first}</th>" + "".join(f"<td>{cell}</td>" for cell in others))
    head = f"<thead><tr>{heads}</tr></thead>" if names else ""
    return f"<table>{head}<tbody>{''.join(f'<tr>{row}</tr>' for row in body)}</tbody></table>"

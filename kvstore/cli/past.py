"""The commands on the past: `history`, `rewind`, and the moment of `get --at`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.text import Text

import kvstore.errors as errors
from kvstore.cli.app import (
    Json,
    Key,
    StoreCommand,
    StoreUrl,
    Where,
    ask,
    command,
    counted,
    open_for,
)
from kvstore.cli.console import Out
from kvstore.cli.words import change_line, parse_namespace, pretty_line

__all__ = ["Moment", "history", "parse_moment", "rewind"]

Moment = Annotated[
    str | None,
    typer.Option("--at", help="As it was: a version, or a time such as 2026-11-28T07:00:00Z."),
]


def parse_moment(text: str) -> int | datetime:
    """Return the moment that a user writes: a version, or a time with its zone.

    Raises:
        InvalidArgumentError: it is neither.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise errors.InvalidArgumentError(
            f"{text!r} is no moment: write a version such as 17, or a time with its zone, such as "
            "2026-11-28T07:00:00Z"
        ) from None


@command(cls=StoreCommand)
def history(
    store: StoreUrl,
    namespace: Where,
    key: Key,
    limit: Annotated[int | None, typer.Option(help="So many at most.")] = None,
    json: Json = False,
) -> None:
    """Print the kept changes of an item, the newest first."""
    out, where = Out(json=json), parse_namespace(namespace)
    for change in ask(open_for(store), lambda s: s.history(where, key, limit=limit)):
        if json:
            out.line(change_line(change))
            continue
        value = "" if change.item is None else pretty_line(change.item.value)
        at = change.at.isoformat(sep=" ", timespec="seconds")
        line = Text(f"{change.version:>8} {at}  {change.kind:<7}{value}")
        out.console.print(line, soft_wrap=True)


@command(cls=StoreCommand)
def rewind(
    store: StoreUrl,
    to: Annotated[str, typer.Option("--to", help="A version, or a time with its zone.")],
    namespace: Where = "/",
) -> None:
    """Bring a namespace and all below it back to a moment, as one change of now."""
    moment, where = parse_moment(to), parse_namespace(namespace)
    number = ask(open_for(store, writes=True), lambda s: s.rewind(moment, namespace=where))
    Out().say(f"{counted(number, 'item')} as before")

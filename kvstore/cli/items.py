"""The commands on one item and its past: `get`, `put`, `rm`, `history`, `rewind`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.text import Text

import kvstore.errors as errors
from kvstore.cli.app import (
    Below,
    Json,
    Key,
    Pattern,
    StoreCommand,
    StoreUrl,
    Where,
    ask,
    command,
    counted,
    end_with_no,
    open_for,
    tell_reading,
    where_of,
)
from kvstore.cli.console import Out
from kvstore.cli.words import (
    change_line,
    item_line,
    parse_namespace,
    parse_value,
    pretty_line,
    visible,
)
from kvstore.patterns import compile_pattern
from kvstore.store import Store
from kvstore.types import Item, Namespace

__all__ = ["get", "history", "put", "rewind", "rm"]

Moment = Annotated[
    str | None,
    typer.Option("--at", help="As it was: a version, or a time such as 2026-11-28T07:00:00Z."),
]

LISTED = 20  # keys that `rm` shows before it asks


@command(cls=StoreCommand)
def get(
    store: StoreUrl,
    namespace: Where,
    key: Key,
    json: Json = False,
    raw: Annotated[bool, typer.Option("--raw", help="Text or bytes as they are.")] = False,
    at: Moment = None,
) -> None:
    """Print the value under a key; with --json, the whole item."""

    def read(opened: Store) -> Awaitable[Item | None]:
        where = opened if at is None else opened.at(parse_moment(at))
        return where.get(parse_namespace(namespace), key)

    item = ask(open_for(store), read)
    out = Out(json=json)
    if item is None:
        end_with_no(f"{namespace} has no {visible(key)}")
    elif json:
        out.line(item_line(item))
    elif raw:
        if not isinstance(item.value, (str, bytes)):
            raise errors.InvalidArgumentError("--raw is for text and bytes, and this is neither")
        data = item.value if isinstance(item.value, bytes) else item.value.encode()
        if out.console.is_terminal:
            lines = data.decode(errors="backslashreplace").split("\n")
            data = "\n".join(map(visible, lines)).encode()
        out.line(data)
    else:
        out.value(item.value)


@command(cls=StoreCommand)
def put(
    store: StoreUrl,
    namespace: Where,
    key: Key,
    value: Annotated[str, typer.Argument(metavar="[VALUE]", help="JSON; - reads input.")] = "-",
    ttl: Annotated[float | None, typer.Option(help="Lifetime in seconds.")] = None,
    if_version: Annotated[int | None, typer.Option(help="Only over this version.")] = None,
    text: Annotated[bool, typer.Option("--text", help="The value is text, not JSON.")] = False,
    data: Annotated[bool, typer.Option("--bytes", help="The value is bytes.")] = False,
    json: Json = False,
) -> None:
    """Store a value under a key."""
    if text and data:
        raise errors.InvalidArgumentError("--text and --bytes exclude each other")
    unopened = open_for(store, create=True)  # what is wrong with STORE is said before it reads
    if value == "-":
        tell_reading()
    written = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    decoded: Any = written
    if not (written or text or data):
        raise errors.InvalidArgumentError(
            "there is no value: write it after the key, or send it to standard input"
        )
    if text:
        try:
            decoded = written.decode()
        except UnicodeDecodeError:
            raise errors.InvalidArgumentError("the value is no UTF-8; try --bytes") from None
    elif not data:
        decoded = parse_value(written, is_typed=value != "-")
    where = parse_namespace(namespace)
    item = ask(unopened, lambda s: s.put(where, key, decoded, ttl=ttl, if_version=if_version))
    out = Out(json=json)
    if json:
        out.line(item_line(item))
    else:
        kind = " as text" if not text and isinstance(item.value, str) else ""
        out.say(f"stored {where_of(item)}{kind}, version {item.version}")


@command(cls=StoreCommand)
def rm(
    store: StoreUrl,
    namespace: Where,
    pattern: Pattern,
    subtree: Below = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove the items whose keys match a pattern; shows them and asks if it is no plain key."""
    out = Out(json=json)
    where = parse_namespace(namespace)

    async def remove(opened: Store) -> int | None:
        needs_answer = subtree or compile_pattern(pattern).literal is None
        if needs_answer and not yes:
            number = await opened.count(where, pattern, subtree=subtree)
            if number and not await _agreed(opened, out, where, pattern, subtree, number):
                return None
        return await opened.remove(where, pattern, subtree=subtree)

    removed = ask(open_for(store, writes=True), remove)
    if removed is None:
        end_with_no("nothing removed")
    elif json:
        out.text(f'{{"removed":{removed}}}')
    elif removed:
        out.say(f"removed {counted(removed, 'item')}")
    if not removed:
        end_with_no(f"nothing in {namespace} matches {visible(pattern)}")


async def _agreed(
    opened: Store, out: Out, where: Namespace, pattern: str, subtree: bool, number: int
) -> bool:
    """Show what a removal would take, and ask."""
    shown = 0
    async for item in opened.scan(where, pattern=pattern, subtree=subtree, batch_size=LISTED):
        if shown == LISTED:
            out.say(f"  ... and {number - shown:,} more")
            break
        out.say(f"  {where_of(item)}")
        shown += 1
    question = f"Remove {'these' if number > 1 else 'this'} {number:,}?"
    return await asyncio.to_thread(typer.confirm, question, err=True)


# The past


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

"""The commands that go on: `watch`, `browse`, `studio`, `mcp`."""

from __future__ import annotations

import asyncio
import sys
from itertools import repeat
from typing import Annotated, Any

import typer
from rich.text import Text

import kvstore.errors as errors
from kvstore.cli.app import (
    Json,
    StoreCommand,
    StoreUrl,
    Where,
    ask,
    command,
    index_of,
    open_for,
)
from kvstore.cli.console import Out
from kvstore.cli.words import (
    change_line,
    parse_namespace,
    pretty_line,
    show_namespace,
    visible,
)
from kvstore.store import Store
from kvstore.types import IndexConfig

__all__ = [
    "browse",
    "mcp",
    "studio",
    "watch",
]


@command(cls=StoreCommand)
def watch(
    store: StoreUrl,
    namespace: Where = "/",
    pattern: Annotated[str, typer.Option(help="Of keys.")] = "*",
    since: Annotated[int | None, typer.Option(help="Resume after this version.")] = None,
    number: Annotated[int | None, typer.Option("--number", "-n", help="End after so many.")] = None,
    json: Json = False,
) -> None:
    """Print every change by any process, until Ctrl-C."""
    out = Out(json=json)
    styles = {"put": "green", "delete": "red", "expire": "yellow"}

    async def follow(opened: Store) -> None:
        where = parse_namespace(namespace)
        async with opened.watch(where, pattern=pattern, since=since) as changes:
            out.say("watching; Ctrl-C ends it")
            for _ in repeat(None) if number is None else range(number):
                change = await anext(changes)
                if json:
                    out.line(change_line(change))
                    continue
                address = f"{show_namespace(change.namespace)} {visible(change.key)}"
                value = "" if change.item is None else pretty_line(change.item.value)
                line = Text(f"{change.version:>8} ")
                line.append(f"{change.kind:<7}", style=styles[change.kind])
                line.append(f"{address}  {value}")
                out.console.print(line, soft_wrap=True)

    ask(open_for(store, writes=True), follow)


@command(cls=StoreCommand)
def browse(store: StoreUrl) -> None:
    """Look around in a store, in the terminal."""
    from kvstore.cli.browse import Browser

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise errors.InvalidArgumentError(
            "browse needs a terminal; kvstore ls, tree, search and scan write to pipes"
        )
    browser = Browser(open_for(store, writes=True), title=store)  # it watches
    browser.run()
    raise typer.Exit(browser.return_code or 0)


@command(cls=StoreCommand)
def studio(
    store: StoreUrl,
    edit: Annotated[bool, typer.Option("--edit", help="Items can be written and deleted.")] = False,
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 0,
) -> None:
    """Look at a store in the browser: a page for you alone, on this machine's own address."""
    from kvstore.studio import serve

    opened = open_for(store, writes=True, index=index_of(store))  # it watches
    ask(opened, lambda s: serve(s, port=port, is_editable=edit, started=_show_link))


def _show_link(link: str) -> None:
    sys.stdout.write(f"{link}\n")
    sys.stdout.flush()
    Out().say("open this link, which works once; Ctrl-C ends the studio")


@command(cls=StoreCommand)
def mcp(
    store: StoreUrl,
    namespace: Annotated[str, typer.Option(help="Where the memories are.")] = "memory",
    read_only: Annotated[bool, typer.Option(help="Without the tools that write.")] = False,
) -> None:
    """Serve a memory to a client of the Model Context Protocol, over stdin and stdout."""
    from kvstore.integrations.mcp import end, serve

    options: dict[str, Any] = {} if read_only else {"index": IndexConfig(fields=("text",))}
    opened = open_for(store, create=not read_only, **options)
    asyncio.run(serve(opened, parse_namespace(namespace), read_only=read_only))
    end()

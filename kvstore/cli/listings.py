"""The commands that list: `keys`, `ls`, `tree`, `search`, `scan`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from kvstore.cli.app import (
    Below,
    Filter,
    Json,
    Pattern,
    StoreCommand,
    StoreUrl,
    Where,
    ask,
    command,
    end_with_no,
    index_of,
    open_for,
    parsed_filter,
)
from kvstore.cli.console import Out
from kvstore.cli.words import (
    item_line,
    object_line,
    parse_namespace,
    show_namespace,
    visible,
)
from kvstore.store import Store
from kvstore.types import IndexConfig, Item, Namespace

__all__ = ["keys", "ls", "scan", "search", "tree"]

BATCH = 500


@command(cls=StoreCommand)
def keys(
    store: StoreUrl,
    namespace: Where = "/",
    pattern: Pattern = "*",
    subtree: Below = False,
    limit: Annotated[int | None, typer.Option(help="How many at most.")] = None,
    json: Json = False,
) -> None:
    """List the keys that match a pattern, sorted."""
    out = Out(json=json)

    def show(where: Namespace, key: str) -> None:
        if json:
            out.line(object_line({"namespace": where, "key": key}))
        else:
            out.text(f"{show_namespace(where)}\t{visible(key)}" if subtree else visible(key))

    async def show_all(opened: Store) -> int:
        where, number = parse_namespace(namespace), 0
        if not subtree:
            found = await opened.keys(where, pattern, limit=limit)
            for key in found:
                show(where, key)
            return len(found)
        async for item in opened.scan(where, pattern=pattern):
            if number == limit:
                break
            number += 1
            show(item.namespace, item.key)
        return number

    if not ask(open_for(store), show_all) and limit != 0:
        end_with_no(f"nothing in {visible(namespace)} matches {visible(pattern)}")


@command(cls=StoreCommand)
def ls(
    store: StoreUrl,
    namespace: Where = "/",
    limit: Annotated[int, typer.Option(help="How many items at most.")] = 1_000,
    json: Json = False,
) -> None:
    """List what is in a namespace: the namespaces right below it, then its items."""
    out = Out(json=json)

    async def read(opened: Store) -> tuple[dict[Namespace, int], list[Item], bool]:
        where = parse_namespace(namespace)
        below = await opened.list_namespaces(where, max_depth=len(where) + 1)
        counts = {
            child: await opened.count(child, subtree=True) for child in below if child != where
        }
        items: list[Item] = []
        async for item in opened.scan(where, subtree=False):
            if len(items) == limit:
                return counts, items, True
            items.append(item)
        return counts, items, False

    counts, items, is_more = ask(open_for(store), read)
    if not counts and not items and limit > 0:
        end_with_no(f"nothing in {visible(namespace)}")
    if json:
        for child, count in counts.items():
            out.line(object_line({"namespace": child, "items": count}))
        out.items(items)
        return
    if counts:
        table = out.table("namespace", "items")
        for child, count in counts.items():
            table.add_row(Text(show_namespace(child) + "/"), f"{count:,}")
        out.print(table)
    if items:
        out.items(items, has_namespaces=False)
    if is_more:
        out.say(f"... only the first {limit:,} items; --limit shows more")


@command(cls=StoreCommand)
def tree(
    store: StoreUrl,
    namespace: Where = "/",
    depth: Annotated[int | None, typer.Option(help="How deep to look.")] = None,
    json: Json = False,
) -> None:
    """Draw the namespaces as a tree, with the number of items in each."""
    out = Out(json=json)

    root = parse_namespace(namespace)

    async def counts(opened: Store) -> list[tuple[Namespace, int]]:
        deepest = None if depth is None else len(root) + max(1, depth)
        found = await opened.list_namespaces(root, max_depth=deepest)
        return [(each, await opened.count(each, subtree=len(each) == deepest)) for each in found]

    found = ask(open_for(store), counts)
    if not found:
        end_with_no(f"nothing in {visible(namespace)}")
    if json:
        for each, count in found:
            out.line(object_line({"namespace": each, "items": count}))
        return
    drawn = {root: Tree(Text(show_namespace(root), style="bold"))}
    for each, count in found:
        for length in range(len(root) + 1, len(each) + 1):
            part = each[:length]
            if part not in drawn:
                drawn[part] = drawn[part[:-1]].add(Text(show_namespace(part[-1:])))
        label = drawn[each].label
        assert isinstance(label, Text)
        label.append(f"  {count:,}", style="dim")
    out.print(drawn[root])


@command(cls=StoreCommand)
def search(
    store: StoreUrl,
    namespace: Where,
    query: Annotated[str | None, typer.Argument(metavar="[QUERY]", help="Words.")] = None,
    filter: Filter = None,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 10,
    offset: Annotated[int, typer.Option(help="How many to skip.")] = 0,
    mode: Annotated[str, typer.Option(help="auto, text, semantic or hybrid.")] = "auto",
    subtree: Annotated[bool, typer.Option(help="In the namespaces below, too.")] = True,
    json: Json = False,
) -> None:
    """Find items by words and by a filter; the latest first where there are no words.

    The mode auto takes those whose key or value contains the words as they are written.
    The mode semantic or hybrid takes the model that the store was indexed by, if it is one of
    kvstore's own that need no server.
    """
    out = Out(json=json)

    index = None if mode == "auto" else index_of(store) or IndexConfig()
    found = ask(
        open_for(store, index=index),
        lambda opened: opened.search(
            parse_namespace(namespace),
            query,
            filter=parsed_filter(filter),
            limit=limit,
            offset=offset,
            mode=mode,
            subtree=subtree,
        ),
    )
    if not found and limit != 0:
        end_with_no("nothing found")
    out.items(found)


@command(cls=StoreCommand)
def scan(
    store: StoreUrl,
    namespace: Where = "/",
    pattern: Annotated[str, typer.Option(help="Of keys.")] = "*",
    filter: Filter = None,
    subtree: Annotated[bool, typer.Option(help="In the namespaces below, too.")] = True,
    json: Json = False,
) -> None:
    """Print every item, in the order of namespaces and keys."""
    out = Out(json=json)

    async def show_all(opened: Store) -> int:
        number = 0
        async for item in opened.scan(
            parse_namespace(namespace),
            pattern=pattern,
            filter=parsed_filter(filter),
            subtree=subtree,
            batch_size=BATCH,
        ):
            number += 1
            out.line(item_line(item)) if json else out.text(
                out.fitted("\t".join(out.cells(item)[:3]))
            )
        return number

    if not ask(open_for(store), show_all):
        end_with_no(f"nothing in {visible(namespace)} matches")

"""The commands on logs and queues: `log tail` and `follow`, `queue ls`, `dead` and `revive`."""

from __future__ import annotations

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
    app,
    ask,
    counted,
    end_with_no,
    open_for,
)
from kvstore.cli.console import Out
from kvstore.cli.words import (
    object_line,
    parse_namespace,
    pretty_line,
    show_namespace,
    value_line,
    visible,
)
from kvstore.jobs import QueueSize
from kvstore.log import Entry
from kvstore.namespace import decode_namespace, encode_namespace
from kvstore.store import Store
from kvstore.types import Namespace

__all__ = ["dead", "follow", "ls", "revive", "tail"]

_MOST = 10_000  # dead jobs that are looked at together

log = typer.Typer(help="Read a log.", no_args_is_help=True)
queue = typer.Typer(help="Look after queues.", no_args_is_help=True)
app.add_typer(log, name="log")
app.add_typer(queue, name="queue")


@log.command(cls=StoreCommand)
def tail(
    store: StoreUrl,
    namespace: Where,
    number: Annotated[int, typer.Option("--number", "-n", help="How many.")] = 10,
    json: Json = False,
) -> None:
    """Print the last entries, the oldest of them first."""
    where = parse_namespace(namespace)
    out, entries = Out(json=json), ask(open_for(store), lambda s: s.log(where).tail(number))
    for entry in entries:
        _print_entry(out, entry)
    if not entries:
        end_with_no(f"{namespace} has no entries")


@log.command(cls=StoreCommand)
def follow(
    store: StoreUrl,
    namespace: Where,
    after: Annotated[int | None, typer.Option(help="Begin after this position; 0: all.")] = None,
    number: Annotated[int | None, typer.Option("--number", "-n", help="End after so many.")] = None,
    json: Json = False,
) -> None:
    """Print entries as they come, from any process, until Ctrl-C."""
    out = Out(json=json)

    async def follow_on(opened: Store) -> None:
        entries = opened.log(parse_namespace(namespace))
        begin = after
        if begin is None:
            last = await entries.tail(1)
            begin = last[0].position if last else 0
        out.say("following; Ctrl-C ends it")
        coming = entries.follow(begin)
        for _ in repeat(None) if number is None else range(number):
            _print_entry(out, await anext(coming))

    ask(open_for(store), follow_on)


def _print_entry(out: Out, entry: Entry) -> None:
    if out.json:
        head = {"position": entry.position, "created_at": entry.created_at}
        out.line(value_line(head, entry.value))
        return
    at = entry.created_at.isoformat(sep=" ", timespec="seconds")
    line = f"{entry.position:>8} {at}  {pretty_line(entry.value)}"
    out.console.print(Text(line), soft_wrap=True)


@queue.command(cls=StoreCommand)
def ls(store: StoreUrl, namespace: Where = "/", json: Json = False) -> None:
    """List queues, and how many of their jobs are ready, delayed, leased and dead."""

    async def sizes(opened: Store) -> list[tuple[Namespace, QueueSize]]:
        below = encode_namespace(parse_namespace(namespace))
        kept = await opened.backend.sequences(below, with_jobs=False)
        places = [decode_namespace(each.path) for each in kept if each.kind == "queue"]
        return [(place, await opened.queue(place).size()) for place in places]

    out, found = Out(json=json), ask(open_for(store), sizes)
    if json:
        for place, size in found:
            numbers = {name: getattr(size, name) for name in QueueSize.__dataclass_fields__}
            out.line(object_line({"namespace": place, **numbers}))
    elif found:
        table = out.table("queue", "ready", "delayed", "leased", "dead")
        for place, size in found:
            style = "red" if size.dead else ""
            counts = (f"{size.ready:,}", f"{size.delayed:,}", f"{size.leased:,}")
            table.add_row(Text(show_namespace(place)), *counts, Text(f"{size.dead:,}", style=style))
        out.print(table)
    if not found:
        end_with_no(f"there are no queues in {namespace}")


@queue.command(cls=StoreCommand)
def dead(
    store: StoreUrl,
    namespace: Where,
    limit: Annotated[int, typer.Option(help="So many at most.")] = 100,
    json: Json = False,
) -> None:
    """Print jobs that were given up, each with the error of its last attempt."""
    where = parse_namespace(namespace)
    out, jobs = Out(json=json), ask(open_for(store), lambda s: s.queue(where).dead(limit))
    for job in jobs:
        if json:
            head = {"id": job.id, "attempt": job.attempt, "error": job.error}
            out.line(value_line(head, job.value))
            continue
        line = Text(f"{job.id}  attempt {job.attempt}  ")
        line.append(visible(job.error or "no error was given"), style="red")
        line.append(f"  {pretty_line(job.value)}")
        out.console.print(line, soft_wrap=True)
    if not jobs:
        end_with_no(f"{namespace} has no dead jobs")


@queue.command(cls=StoreCommand)
def revive(
    store: StoreUrl,
    namespace: Where,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which jobs.")] = None,
    all: Annotated[bool, typer.Option("--all", help="All that are dead.")] = False,
    json: Json = False,
) -> None:
    """Make dead jobs ready, with all their attempts before them."""
    if bool(ids) == all:
        raise errors.InvalidArgumentError("name the ids of jobs, or say --all")

    async def revived(opened: Store) -> int:
        jobs = opened.queue(parse_namespace(namespace))
        if ids:
            return await jobs.revive(*ids)
        number = 0
        while found := await jobs.dead(_MOST):
            again = await jobs.revive(*(job.id for job in found))
            number += again
            if not again:  # their names are taken
                break
        return number

    number = ask(open_for(store, writes=True), revived)
    out: Any = Out(json=json)
    if json:
        out.line(object_line({"revived": number}))
    elif number:
        out.say(f"revived {counted(number, 'job')}")
    if not number:
        end_with_no(f"nothing in {namespace} was revived")

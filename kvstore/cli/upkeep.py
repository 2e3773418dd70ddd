"""The commands of upkeep: `stats`, `check`, `backup`, `export`, `reindex` and their like."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import kvstore.errors as errors
from kvstore.cli.app import (
    Json,
    StoreCommand,
    StoreUrl,
    ask,
    command,
    counted,
    end_with_no,
    fail,
    open_for,
    tell_reading,
)
from kvstore.cli.console import Out, Stdin
from kvstore.cli.words import (
    object_line,
    parse_namespace,
    show_namespace,
    size,
    visible,
)
from kvstore.report import Stats
from kvstore.store import Store
from kvstore.transfer import copy as copy_items
from kvstore.transfer import restore_backup
from kvstore.types import IndexConfig

__all__ = [
    "backup",
    "check",
    "copy_",
    "export_",
    "import_",
    "reindex",
    "restore",
    "stats",
    "vacuum",
]


@command(cls=StoreCommand)
def stats(store: StoreUrl, json: Json = False) -> None:
    """Print how much there is, and where."""
    out = Out(json=json)
    found = ask(open_for(store), lambda opened: opened.stats())
    rows = [
        ("items", f"{found.items:,}"),
        ("namespaces", f"{found.namespaces:,}"),
        ("values", size(found.bytes)),
        ("file", "none" if found.file_bytes is None else size(found.file_bytes)),
        ("write-ahead log", "none" if found.wal_bytes is None else size(found.wal_bytes)),
        ("version", f"{found.version:,}"),
        ("expired, not yet swept", f"{found.expired:,}"),
        ("changes kept for watchers", f"{found.changes:,}"),
    ]
    if found.past:
        rows.append(("past items", f"{found.past:,}, {size(found.past_bytes)}"))
    if found.logs or found.queues:
        rows.append(("logs and queues", f"{found.logs:,} and {found.queues:,}"))
    if found.dead_jobs:
        rows.append(("dead jobs", f"{found.dead_jobs:,}"))
    if found.index_coverage is not None:
        rows.append(("indexed", f"{found.index_coverage:.1%}"))
    if json:
        content = {name: getattr(found, name) for name in Stats.__dataclass_fields__}
        content["roots"] = [
            {"root": root, "items": r.items, "namespaces": r.namespaces, "bytes": r.bytes}
            for root, r in found.roots.items()
        ]
        out.line(object_line(content))
        return
    table = out.table("", "")
    table.show_header = False
    for name, number in rows:
        table.add_row(Text(name), Text(number, style="bold"))
    out.print(table)
    if found.roots:
        table = out.table("root", "namespaces", "items", "bytes", "")
        most = max(sums.bytes for sums in found.roots.values())
        for root, sums in sorted(found.roots.items(), key=lambda entry: -entry[1].bytes):
            numbers = (f"{sums.namespaces:,}", f"{sums.items:,}", size(sums.bytes))
            table.add_row(Text(show_namespace(root)), *numbers, out.bar(sums.bytes, most))
        out.print(table)


@command(cls=StoreCommand)
def check(store: StoreUrl, json: Json = False) -> None:
    """Look for damage in the file, the items and the indexes; exit code 1 if there is some."""
    out = Out(json=json)
    with out.progress("checking") as progress:
        report = ask(open_for(store), lambda opened: opened.check(progress=progress))
    if json:
        found = {"ok": report.ok, "items": report.items, "problems": report.problems}
        out.line(object_line(found))
    else:
        for problem in report.problems:
            out.text(visible(problem))
        if report.ok:
            out.say(f"no problems in {report.items:,} items")
    if not report.ok:
        end_with_no(f"{counted(len(report.problems), 'problem')} found")


@command(cls=StoreCommand)
def vacuum(store: StoreUrl) -> None:
    """Give the space of removed items back to the system; writers wait meanwhile."""
    freed = ask(open_for(store, writes=True), lambda opened: opened.vacuum())
    Out().say(f"{size(freed)} given back")


@command(cls=StoreCommand)
def backup(store: StoreUrl, file: Annotated[Path, typer.Argument(help="What to write.")]) -> None:
    """Write a consistent copy of the whole store, while others write."""
    out = Out()
    with out.progress("backing up") as progress:
        ask(open_for(store), lambda opened: opened.backup(file, progress=progress))
    out.say(f"{file}: {size(file.stat().st_size)}")


@command()
def restore(
    backup: Annotated[Path, typer.Argument(help="What backup has written.")],
    store: Annotated[str, typer.Argument(metavar="STORE", help="A path or a URL.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the store that is there.")
    ] = False,
) -> None:
    """Put a backup in the place of a store that nobody has open."""
    out = Out()
    with out.progress("restoring") as progress:
        asyncio.run(restore_backup(backup, store, overwrite=overwrite, progress=progress))
    out.say(f"{store}: restored from {backup}")


@command("export", cls=StoreCommand)
def export_(
    store: StoreUrl,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="- is standard output.")] = "-",
    namespace: Annotated[str, typer.Option(help="This and what is below.")] = "/",
) -> None:
    """Write items as JSON lines."""
    out, where = Out(), parse_namespace(namespace)
    target = sys.stdout.buffer if file == "-" else file
    with out.progress("exporting") as progress:
        number = ask(
            open_for(store), lambda s: s.export_items(target, namespace=where, progress=progress)
        )
    out.say(f"{counted(number, 'item')} exported")


@command("import", cls=StoreCommand)
def import_(
    store: StoreUrl,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="- is standard input.")] = "-",
    on_conflict: Annotated[str, typer.Option(help="replace, skip or error.")] = "replace",
    from_langgraph: Annotated[
        Path | None,
        typer.Option(metavar="OLD", help="A file of LangGraph's own SQLite store or saver."),
    ] = None,
) -> None:
    """Read what export has written, or lines of namespace, key and value; all or nothing."""
    out = Out()
    if from_langgraph is not None:
        _import_from_langgraph(from_langgraph, store, out)
        return
    if file == "-":
        tell_reading()
    else:
        with Path(file).open("rb"):  # before a store is made for it
            pass

    async def main() -> int:
        stdin = Stdin() if file == "-" else None
        try:
            if stdin is not None and not await asyncio.to_thread(stdin.begin):
                end_with_no("there is nothing to import")
            async with open_for(store, create=True) as opened:
                with out.progress("importing") as progress:
                    return await opened.import_items(
                        stdin or file,  # type: ignore[arg-type]
                        on_conflict=on_conflict,  # type: ignore[arg-type]
                        progress=progress,
                    )
        except errors.InvalidArgumentError as exc:  # of what is read, not of how it is asked for
            raise typer.Exit(fail(str(exc), 3)) from exc
        finally:
            if stdin is not None:
                stdin.stop()

    number = asyncio.run(main())
    out.say(f"{counted(number, 'item')} imported")


def _import_from_langgraph(old: Path, store: str, out: Out) -> None:
    """Bring over all that a file of LangGraph's own has."""
    from kvstore.integrations.langgraph_import import (
        import_sqlite_saver,
        import_sqlite_store,
        tables_of,
    )

    tables = tables_of(old)
    has_checkpoints = "checkpoints" in tables

    async def bring(opened: Store) -> tuple[int, int]:
        items = 0
        if "store" in tables or not has_checkpoints:
            items = await import_sqlite_store(old, opened)
        return items, await import_sqlite_saver(old, opened) if has_checkpoints else 0

    items, checkpoints = ask(open_for(store, create=True), bring)
    out.say(f"{counted(items, 'item')} imported")
    if checkpoints:
        out.say(f"{counted(checkpoints, 'checkpoint')} imported")


@command("copy")
def copy_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A path or a URL.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A path or a URL.")],
    namespace: Annotated[str, typer.Option(help="This and what is below.")] = "/",
) -> None:
    """Copy items from any store into any other; all or nothing."""
    out = Out()

    async def main() -> int:
        async with open_for(source) as one, open_for(target, create=True) as other:
            with out.progress("copying") as progress:
                where = parse_namespace(namespace)
                return await copy_items(one, other, namespace=where, progress=progress)

    number = asyncio.run(main())
    out.say(f"{counted(number, 'item')} copied")


@command(cls=StoreCommand)
def reindex(store: StoreUrl) -> None:
    """Bring the full-text index up to date; embeddings are made by the program that has them."""
    out = Out()
    opened = open_for(store, writes=True, index=IndexConfig())
    with out.progress("indexing") as progress:
        number = ask(opened, lambda opened: opened.reindex(progress=progress))
    out.say(f"{counted(number, 'item')} indexed")

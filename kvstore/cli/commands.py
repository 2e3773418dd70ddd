"""The commands of `kvstore`.

Exit codes: 0 done; 1 no (nothing there, or `check` found problems); 2 wrong usage; 3 the store
refused; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import orjson
import typer
from rich.text import Text
from rich.tree import Tree
from typer.completion import completion_init  # type: ignore[attr-defined]
from typer.core import TyperCommand

import kvstore.errors as errors
from kvstore import distribution
from kvstore.cli.console import Out, Stdin, make_streams_safe
from kvstore.cli.words import (
    change_line,
    item_line,
    json_line,
    parse_json,
    parse_namespace,
    parse_value,
    pretty,
    show_namespace,
    size,
    visible,
)
from kvstore.opening import open_store
from kvstore.patterns import compile_pattern
from kvstore.report import Stats
from kvstore.restoring import restore_backup
from kvstore.sqlite import SQLiteStore
from kvstore.store import Store
from kvstore.transfer import copy as copy_items
from kvstore.types import IndexConfig, Item, Namespace

__all__ = ["run"]

T = TypeVar("T")

URL_VARIABLE = "KVSTORE_URL"
_COMPLETION = "_KVSTORE_COMPLETE"
_STORE_ENDINGS = (".db", ".sqlite", ".sqlite3", ".kv")
_LISTED = 20  # keys that `rm` shows before it asks
_BATCH = 500
_STOPPED = 130  # the exit code that shells use for Ctrl-C


class StoreCommand(TyperCommand):
    """A command whose first argument is a store, and may be left out if KVSTORE_URL names it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put KVSTORE_URL in front, unless the first argument is a store.

        Where the number of arguments does not tell, the first one's looks do. If those could be
        wrong, that is said.
        """
        url = os.environ.get(URL_VARIABLE)
        if url and not {"--help", "-h"} & set(args):
            arguments = [each for each in self.params if each.param_type_name == "argument"]
            names = [each.name for each in arguments]
            needed = sum(each.required for each in arguments)
            given, rest, _ = self.make_parser(ctx).parse_args(list(args))
            texts = [given[name] for name in names if isinstance(given.get(name), str)]
            number = len(texts) + len(rest)
            fits_with = needed <= number <= len(names)  # a store among the arguments
            fits_without = needed - 1 <= number <= len(names) - 1
            is_store = bool(texts) and _is_store(texts[0])
            if fits_with and fits_without and texts:
                _tell_guess(texts[0], is_store, url)
            if not (is_store if fits_with == fits_without else fits_with):
                args = [url, *args]
        return super().parse_args(ctx, args)


def _is_store(text: str) -> bool:
    return _is_path(text) or text.lower().endswith(_STORE_ENDINGS)


def _is_path(text: str) -> bool:
    """Whether a text is no namespace for sure."""
    return "://" in text or text == ":memory:" or text.startswith(("./", "../", "~", ".\\", "..\\"))


def _tell_guess(first: str, is_store: bool, url: str) -> None:
    if is_store and not _is_path(first):
        _note(f"{first} is taken for the store; {first}/ is the namespace in {URL_VARIABLE}")
    elif not is_store and Path(first).is_file():
        _note(f"{first} is taken for a namespace in {URL_VARIABLE}; ./{first} is the file")


def _note(message: str) -> None:
    sys.stderr.write(f"kvstore: {visible(message)}\n")


app = typer.Typer(
    name="kvstore",
    help="Look into a key-value store, change it, move it and watch it.",
    epilog="STORE is a path (agent.db) or a URL (sqlite:///agent.db). Where KVSTORE_URL names one, "
    "it may be left out; a first argument that has :// or ends in .db is always the store.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
command = app.command


def _show_version(is_asked: bool) -> None:
    if is_asked:
        sys.stdout.write(f"kvstore {distribution.VERSION}\n")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """Take what stands before a command."""


StoreUrl = Annotated[str, typer.Argument(metavar="STORE", help="A path or a URL.")]
Where = Annotated[
    str, typer.Argument(metavar="NAMESPACE", help='Such as users/alice; "/" is the root.')
]
Key = Annotated[str, typer.Argument(metavar="KEY")]
Pattern = Annotated[
    str,
    typer.Argument(metavar="PATTERN", help="Of keys: * any run, ? one character, [a-z] one of."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, no colour.")]
Below = Annotated[bool, typer.Option("--subtree", "-r", help="In the namespaces below, too.")]
Filter = Annotated[
    str | None, typer.Option("--filter", metavar="JSON", help='Such as {"n": {"$gte": 3}}.')
]


def run() -> int:
    """Run the command line; return the exit code."""
    if _COMPLETION in os.environ:
        completion_init()
    make_streams_safe()
    try:
        return _call()
    except (errors.StoreError, OSError, SystemExit) as exc:
        if not _is_cut_off(exc):
            raise
        # Whoever read our output has seen enough; nor is there anyone to flush the rest to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _is_cut_off(exc: BaseException) -> bool:
    """Whether it is, or comes of, writing to a pipe that nobody reads any more."""
    return any(isinstance(e, BrokenPipeError) for e in (exc, exc.__cause__, exc.__context__))


def _call() -> int:
    program = typer.main.get_command(app)
    try:
        if len(sys.argv) == 1:
            program.main(["--help"], prog_name="kvstore", standalone_mode=False)
            return 2
        code = program.main(prog_name="kvstore", standalone_mode=False)
        sys.stdout.flush()
    except (errors.StoreError, OSError) as exc:
        if _is_cut_off(exc):
            raise
        return _fail(*_told(exc))
    except (KeyboardInterrupt, typer.Abort):
        return _fail("stopped", _STOPPED)
    except Exception as exc:
        if hasattr(exc, "exit_code") and hasattr(exc, "format_message"):  # wrong usage
            return _fail(f"{exc.format_message()} (see kvstore --help)", int(exc.exit_code))
        raise
    if code == _STOPPED:
        return _fail("stopped", code)
    return code if isinstance(code, int) else 0


def _told(exc: Exception) -> tuple[str, int]:
    """Return what to say of an error, and the exit code."""
    if isinstance(exc, errors.StoreError):
        is_usage = isinstance(exc, ValueError) and not isinstance(exc, errors.ValueTooLargeError)
        return str(exc), 2 if is_usage else 3
    assert isinstance(exc, OSError)
    return f"{exc.filename or ''}: {exc.strerror or exc}".removeprefix(": "), 3


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"kvstore: {visible(' '.join(message.split()))}\n")
    return code


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def _no(message: str) -> NoReturn:
    """End with exit code 1."""
    raise typer.Exit(_fail(message, 1))


def _open(url: str, *, writes: bool = False, create: bool = False, **options: Any) -> Store:
    """Return the store for a command; one that only reads writes nothing, not even a log."""
    if not (writes or create or url == ":memory:"):
        options["read_only"] = True
    store = open_store(url, **options)
    is_file = isinstance(store, SQLiteStore) and str(store.path) != ":memory:"
    if is_file and not store.path.exists():  # type: ignore[attr-defined]
        if not create:
            raise errors.StoreAccessError(
                f"{url} does not exist; kvstore put makes a store{_forgotten(url)}"
            )
        if _forgotten(url):
            raise errors.InvalidArgumentError(
                f"{url} does not exist, and has none of a store's endings "
                f"({' '.join(_STORE_ENDINGS)}): write ./{url} to make it{_forgotten(url)}"
            )
    return store


def _forgotten(url: str) -> str:
    """Return a hint where what should be a store may be a namespace, and the store forgotten."""
    if _is_store(url) or Path(url).is_absolute() or os.environ.get(URL_VARIABLE) == url:
        return ""
    return f"; a namespace comes after the store, which {URL_VARIABLE} names where it is left out"


def _filter(text: str | None) -> Any:
    return None if text is None else parse_json(text, "the filter")


def _where(item: Item) -> str:
    return f"{show_namespace(item.namespace)} {visible(item.key)}"


# One item


@command(cls=StoreCommand)
def get(
    store: StoreUrl,
    namespace: Where,
    key: Key,
    json: Json = False,
    raw: Annotated[bool, typer.Option("--raw", help="Text or bytes as they are.")] = False,
) -> None:
    """Print the value under a key; with --json, the whole item."""

    async def main() -> Item | None:
        async with _open(store) as opened:
            return await opened.get(parse_namespace(namespace), key)

    item = _run(main())
    out = Out(json=json)
    if item is None:
        _no(f"{namespace} has no {visible(key)}")
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
    if value == "-":
        _tell_reading()
    written = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    decoded: Any = written
    if text:
        try:
            decoded = written.decode()
        except UnicodeDecodeError:
            raise errors.InvalidArgumentError("the value is no UTF-8; try --bytes") from None
    elif not data:
        decoded = parse_value(written, is_typed=value != "-")

    async def main() -> Item:
        async with _open(store, create=True) as opened:
            where = parse_namespace(namespace)
            return await opened.put(where, key, decoded, ttl=ttl, if_version=if_version)

    item = _run(main())
    out = Out(json=json)
    if json:
        out.line(item_line(item))
    else:
        kind = " as text" if not text and isinstance(item.value, str) else ""
        out.say(f"stored {_where(item)}{kind}, version {item.version}")


def _tell_reading() -> None:
    if sys.stdin.isatty():
        _note("reads the terminal; Ctrl-D ends it")


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

    async def main() -> int | None:
        async with _open(store, writes=True) as opened:
            needs_answer = subtree or compile_pattern(pattern).literal is None
            if needs_answer and not yes:
                number = await opened.count(where, pattern, subtree=subtree)
                if number and not await _agreed(opened, out, where, pattern, subtree, number):
                    return None
            return await opened.remove(where, pattern, subtree=subtree)

    removed = _run(main())
    if removed is None:
        _no("nothing removed")
    elif json:
        out.text(f'{{"removed":{removed}}}')
    elif removed:
        out.say(f"removed {removed:,} item{'s' * (removed != 1)}")
    if not removed:
        _no(f"nothing in {namespace} matches {visible(pattern)}")


async def _agreed(
    opened: Store, out: Out, where: Namespace, pattern: str, subtree: bool, number: int
) -> bool:
    """Show what a removal would take, and ask."""
    shown = 0
    async for item in opened.scan(where, pattern=pattern, subtree=subtree, batch_size=_LISTED):
        if shown == _LISTED:
            out.say(f"  ... and {number - shown:,} more")
            break
        out.say(f"  {_where(item)}")
        shown += 1
    question = f"Remove {'these' if number > 1 else 'this'} {number:,}?"
    return await asyncio.to_thread(typer.confirm, question, err=True)


# Listings


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

    async def main() -> None:
        async with _open(store) as opened:
            where = parse_namespace(namespace)
            number = 0
            if not subtree:
                found = await opened.keys(where, pattern, limit=limit)
                number = len(found)
                for key in found:
                    out.line(_address_line(where, key)) if json else out.text(visible(key))
            else:
                async for item in opened.scan(where, pattern=pattern):
                    if number == limit:
                        break
                    number += 1
                    if json:
                        out.line(_address_line(item.namespace, item.key))
                    else:
                        out.text(f"{show_namespace(item.namespace)}\t{visible(item.key)}")
        if not number and limit != 0:
            _no(f"nothing in {visible(namespace)} matches {visible(pattern)}")

    _run(main())


def _address_line(namespace: Namespace, key: str) -> bytes:
    return json_line(orjson.dumps({"namespace": namespace, "key": key}))


@command(cls=StoreCommand)
def ls(
    store: StoreUrl,
    namespace: Where = "/",
    limit: Annotated[int, typer.Option(help="How many items at most.")] = 1_000,
    json: Json = False,
) -> None:
    """List what is in a namespace: the namespaces right below it, then its items."""
    out = Out(json=json)

    async def main() -> None:
        async with _open(store) as opened:
            where = parse_namespace(namespace)
            below = await opened.list_namespaces(where, max_depth=len(where) + 1)
            counts = {
                child: await opened.count(child, subtree=True) for child in below if child != where
            }
            items: list[Item] = []
            async for item in opened.scan(where, subtree=False):
                if len(items) == limit:
                    break
                items.append(item)
        if not counts and not items and limit > 0:
            _no(f"nothing in {visible(namespace)}")
        if json:
            for child, count in counts.items():
                out.line(_json_line({"namespace": child, "items": count}))
            out.items(items)
            return
        if counts:
            table = out.table("namespace", "items")
            for child, count in counts.items():
                table.add_row(Text(show_namespace(child) + "/"), f"{count:,}")
            out.print(table)
        if items:
            out.items(items, has_namespaces=False)
        if len(items) == limit:
            out.say(f"... only the first {limit:,} items; --limit shows more")

    _run(main())


def _json_line(content: Any) -> bytes:
    return json_line(orjson.dumps(content))


@command(cls=StoreCommand)
def tree(
    store: StoreUrl,
    namespace: Where = "/",
    depth: Annotated[int | None, typer.Option(help="How deep to look.")] = None,
    json: Json = False,
) -> None:
    """Draw the namespaces as a tree, with the number of items in each."""
    out = Out(json=json)

    async def main() -> list[tuple[Namespace, int]]:
        async with _open(store) as opened:
            where = parse_namespace(namespace)
            deepest = None if depth is None else len(where) + max(1, depth)
            found = await opened.list_namespaces(where, max_depth=deepest)
            return [
                (each, await opened.count(each, subtree=len(each) == deepest)) for each in found
            ]

    found = _run(main())
    if not found:
        _no(f"nothing in {visible(namespace)}")
    if json:
        for each, count in found:
            out.line(_json_line({"namespace": each, "items": count}))
        return
    root = parse_namespace(namespace)
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
    """Find items by words and by a filter; the latest first where there are no words."""
    out = Out(json=json)

    async def main() -> list[Item]:
        index = None if mode == "auto" else IndexConfig()
        async with _open(store, index=index) as opened:
            return await opened.search(
                parse_namespace(namespace),
                query,
                filter=_filter(filter),
                limit=limit,
                offset=offset,
                mode=mode,
                subtree=subtree,
            )

    found = _run(main())
    if not found and limit != 0:
        _no("nothing found")
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

    async def main() -> None:
        async with _open(store) as opened:
            items = opened.scan(
                parse_namespace(namespace),
                pattern=pattern,
                filter=_filter(filter),
                subtree=subtree,
                batch_size=_BATCH,
            )
            number = 0
            async for item in items:
                number += 1
                out.line(item_line(item)) if json else out.text(
                    out.fitted("\t".join(out.cells(item)[:3]))
                )
        if not number:
            _no(f"nothing in {visible(namespace)} matches")

    _run(main())


# Upkeep


@command(cls=StoreCommand)
def stats(store: StoreUrl, json: Json = False) -> None:
    """Print how much there is, and where."""
    out = Out(json=json)

    async def main() -> Stats:
        async with _open(store) as opened:
            return await opened.stats()

    found = _run(main())
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
    if found.index_coverage is not None:
        rows.append(("indexed", f"{found.index_coverage:.1%}"))
    if json:
        content = {name: getattr(found, name) for name in Stats.__dataclass_fields__}
        content["roots"] = [
            {"root": root, "items": r.items, "namespaces": r.namespaces, "bytes": r.bytes}
            for root, r in found.roots.items()
        ]
        out.line(_json_line(content))
        return
    table = out.table("", "")
    table.show_header = False
    for name, number in rows:
        table.add_row(Text(name), Text(number, style="bold"))
    out.print(table)
    if found.roots:
        table = out.table("root", "namespaces", "items", "bytes")
        for root, sums in sorted(found.roots.items(), key=lambda entry: -entry[1].bytes):
            numbers = (f"{sums.namespaces:,}", f"{sums.items:,}", size(sums.bytes))
            table.add_row(Text(show_namespace(root)), *numbers)
        out.print(table)


@command(cls=StoreCommand)
def check(store: StoreUrl, json: Json = False) -> None:
    """Look for damage in the file, the items and the indexes; exit code 1 if there is some."""
    out = Out(json=json)

    async def main() -> Any:
        async with _open(store) as opened:
            with out.progress("checking") as progress:
                return await opened.check(progress=progress)

    report = _run(main())
    if json:
        found = {"ok": report.ok, "items": report.items, "problems": report.problems}
        out.line(_json_line(found))
    else:
        for problem in report.problems:
            out.text(visible(problem))
        if report.ok:
            out.say(f"no problems in {report.items:,} items")
    if not report.ok:
        _no(f"{len(report.problems)} problem{'s' * (len(report.problems) != 1)} found")


@command(cls=StoreCommand)
def vacuum(store: StoreUrl) -> None:
    """Give the space of removed items back to the system; writers wait meanwhile."""

    async def main() -> int:
        async with _open(store, writes=True) as opened:
            return await opened.vacuum()

    Out().say(f"{size(_run(main()))} given back")


@command(cls=StoreCommand)
def backup(store: StoreUrl, file: Annotated[Path, typer.Argument(help="What to write.")]) -> None:
    """Write a consistent copy of the whole store, while others write."""
    out = Out()

    async def main() -> None:
        async with _open(store) as opened:
            with out.progress("backing up") as progress:
                await opened.backup(file, progress=progress)

    _run(main())
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

    async def main() -> None:
        with out.progress("restoring") as progress:
            await restore_backup(backup, store, overwrite=overwrite, progress=progress)

    _run(main())
    out.say(f"{store}: restored from {backup}")


@command("export", cls=StoreCommand)
def export_(
    store: StoreUrl,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="- is standard output.")] = "-",
    namespace: Annotated[str, typer.Option(help="This and what is below.")] = "/",
) -> None:
    """Write items as JSON lines."""
    out = Out()

    async def main() -> int:
        async with _open(store) as opened:
            with out.progress("exporting") as progress:
                return await opened.export_items(
                    sys.stdout.buffer if file == "-" else file,
                    namespace=parse_namespace(namespace),
                    progress=progress,
                )

    number = _run(main())
    out.say(f"{number:,} item{'s' * (number != 1)} exported")


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
        _tell_reading()
    else:
        with Path(file).open("rb"):  # before a store is made for it
            pass

    async def main() -> int:
        stdin = Stdin() if file == "-" else None
        try:
            if stdin is not None and not await asyncio.to_thread(stdin.begin):
                _no("there is nothing to import")
            async with _open(store, create=True) as opened:
                with out.progress("importing") as progress:
                    return await opened.import_items(
                        stdin or file,  # type: ignore[arg-type]
                        on_conflict=on_conflict,  # type: ignore[arg-type]
                        progress=progress,
                    )
        except errors.InvalidArgumentError as exc:  # of what is read, not of how it is asked for
            raise typer.Exit(_fail(str(exc), 3)) from exc
        finally:
            if stdin is not None:
                stdin.stop()

    number = _run(main())
    out.say(f"{number:,} item{'s' * (number != 1)} imported")


def _import_from_langgraph(old: Path, store: str, out: Out) -> None:
    """Bring over all that a file of LangGraph's own has."""
    from kvstore.integrations.langgraph_import import (
        import_sqlite_saver,
        import_sqlite_store,
        tables_of,
    )

    async def main() -> tuple[int, int]:
        tables = await asyncio.to_thread(tables_of, old)
        async with _open(store, create=True) as opened:
            has_checkpoints = "checkpoints" in tables
            items = 0
            if "store" in tables or not has_checkpoints:
                items = await import_sqlite_store(old, opened)
            return items, await import_sqlite_saver(old, opened) if has_checkpoints else 0

    items, checkpoints = _run(main())
    out.say(f"{items:,} item{'s' * (items != 1)} imported")
    if checkpoints:
        out.say(f"{checkpoints:,} checkpoint{'s' * (checkpoints != 1)} imported")


@command("copy")
def copy_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A path or a URL.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A path or a URL.")],
    namespace: Annotated[str, typer.Option(help="This and what is below.")] = "/",
) -> None:
    """Copy items from any store into any other; all or nothing."""
    out = Out()

    async def main() -> int:
        async with _open(source) as one, _open(target, create=True) as other:
            with out.progress("copying") as progress:
                where = parse_namespace(namespace)
                return await copy_items(one, other, namespace=where, progress=progress)

    number = _run(main())
    out.say(f"{number:,} item{'s' * (number != 1)} copied")


@command(cls=StoreCommand)
def reindex(store: StoreUrl) -> None:
    """Bring the full-text index up to date; embeddings are made by the program that has them."""
    out = Out()

    async def main() -> int:
        async with _open(store, writes=True, index=IndexConfig()) as opened:
            again = getattr(opened, "reindex", None)
            if again is None:
                raise errors.InvalidArgumentError("this version of kvstore makes no index")
            with out.progress("indexing") as progress:
                return int(await again(progress=progress))

    number = _run(main())
    out.say(f"{number:,} item{'s' * (number != 1)} indexed")


# Live


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

    async def main() -> None:
        left = number
        async with _open(store, writes=True) as opened:
            where = parse_namespace(namespace)
            async with opened.watch(where, pattern=pattern, since=since) as changes:
                out.say("watching; Ctrl-C ends it")
                while left is None or left > 0:
                    change = await anext(changes)
                    left = None if left is None else left - 1
                    if json:
                        out.line(change_line(change))
                        continue
                    address = f"{show_namespace(change.namespace)} {visible(change.key)}"
                    value = (
                        "" if change.item is None else " ".join(pretty(change.item.value).split())
                    )
                    line = Text(f"{change.version:>8} ")
                    line.append(f"{change.kind:<7}", style=styles[change.kind])
                    line.append(f"{address}  {value}")
                    out.console.print(line, soft_wrap=True)

    _run(main())


@command(cls=StoreCommand)
def browse(store: StoreUrl) -> None:
    """Look around in a store, in the terminal."""
    from kvstore.cli.browse import Browser

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise errors.InvalidArgumentError(
            "browse needs a terminal; kvstore ls, tree, search and scan write to pipes"
        )
    browser = Browser(_open(store, writes=True), title=store)  # it watches
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

    async def run() -> None:
        async with _open(store, writes=True) as opened:  # it watches
            await serve(opened, port=port, is_editable=edit, started=_show_link)

    _run(run())


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
    opened = _open(store, create=not read_only, **options)
    _run(serve(opened, parse_namespace(namespace), read_only=read_only))
    end()


@command("shell-completion")
def shell_completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh, fish or powershell.")],
) -> None:
    """Print what makes a shell complete commands: eval "$(kvstore shell-completion bash)"."""
    if shell not in ("bash", "zsh", "fish", "powershell", "pwsh"):
        raise errors.InvalidArgumentError("there is bash, zsh, fish and powershell")
    completion_init()
    os.environ[_COMPLETION] = f"source_{shell}"
    typer.main.get_command(app).main(args=[], prog_name="kvstore", complete_var=_COMPLETION)

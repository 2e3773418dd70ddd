"""What the commands of `kvstore` share: the program, its arguments, how a store is opened."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand

import kvstore.errors as errors
from kvstore import codec, distribution
from kvstore.cli.words import show_namespace, visible
from kvstore.model_id import model_id_of
from kvstore.opening import open_store
from kvstore.sqlite import SQLiteStore
from kvstore.store import Store
from kvstore.text import WORDS_REVISION
from kvstore.types import IndexConfig, Item

__all__ = [
    "URL_VARIABLE",
    "Below",
    "Filter",
    "Json",
    "Key",
    "Pattern",
    "StoreCommand",
    "StoreUrl",
    "Where",
    "app",
    "ask",
    "command",
    "counted",
    "end_with_no",
    "fail",
    "index_of",
    "note",
    "open_for",
    "parsed_filter",
    "tell_reading",
    "where_of",
]

T = TypeVar("T")

URL_VARIABLE = "KVSTORE_URL"
_STORE_ENDINGS = (".db", ".sqlite", ".sqlite3", ".kv")


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
        note(f"{first} is taken for the store; {first}/ is the namespace in {URL_VARIABLE}")
    elif not is_store and Path(first).is_file():
        note(f"{first} is taken for a namespace in {URL_VARIABLE}; ./{first} is the file")


def note(message: str) -> None:
    """Say something beside the output."""
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


def fail(message: str, code: int) -> int:
    """Say what is wrong, and return the exit code."""
    sys.stderr.write(f"kvstore: {visible(' '.join(message.split()))}\n")
    return code


def ask(store: Store, work: Callable[[Store], Awaitable[T]]) -> T:
    """Return what a store answers, which is opened for it."""

    async def main() -> T:
        async with store:
            return await work(store)

    return asyncio.run(main())


def counted(number: int, what: str) -> str:
    """Write how many there are."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def end_with_no(message: str) -> NoReturn:
    """End with exit code 1."""
    raise typer.Exit(fail(message, 1))


def open_for(url: str, *, writes: bool = False, create: bool = False, **options: Any) -> Store:
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


def index_of(url: str) -> IndexConfig | None:
    """Return the index that a store says it has, with its model if that is at hand here.

    So it is searched as the programs do that made it. `None`: there is none, or one that an older
    version has made and that opening would change.
    """
    found = ask(open_for(url), lambda store: store.backend.description())
    if found is None or found.words != WORDS_REVISION or not found.fields:
        return None
    from kvstore.embeddings import HashingEmbeddings, LocalEmbeddings  # takes a moment

    for made_by in (LocalEmbeddings, HashingEmbeddings):  # they need no key and no other server
        try:
            model = made_by()
        except errors.MissingDependencyError:
            continue
        if model_id_of(model) == found.model:
            return IndexConfig(model, fields=found.fields)
    return IndexConfig(fields=found.fields)


def parsed_filter(text: str | None) -> Any:
    """Return the filter that an option gives."""
    return None if text is None else codec.read_json(text, "the filter")


def where_of(item: Item) -> str:
    """Return the address of an item as it is shown."""
    return f"{show_namespace(item.namespace)} {visible(item.key)}"


def tell_reading() -> None:
    """Say that a terminal is waited for."""
    if sys.stdin.isatty():
        note("reads the terminal; Ctrl-D ends it")

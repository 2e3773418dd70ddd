"""What a hostile text or a curious neighbour can do: nothing."""

from __future__ import annotations

import ast
import asyncio
import io
import os
import re
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import InvalidArgumentError, SQLiteStore, Store, StoreError
from kvstore.sqlite import driver

SOURCES = sorted((Path(kvstore.__file__).parent / "sqlite").glob("*.py"))
RUNS_SQL = {"execute", "executemany", "executescript", "_execute", "execute_fetchall"}

# Statements that are put together outside `statements.py`, with all that may be put into them.
PRAGMAS = {"APPLICATION_ID", "number", "int", "_CACHE_KIB", "self.options.durability.upper"}
# What a constant template, `_CREATE_X.format(...)`, may be filled with: words and counts of ours.
FILLINGS = {"content", "name", "dimensions", "chunk"}

# Names of what a template of SQL is filled with: our own tables, operators and placeholders.
OURS = {"sign", "types", "table", "range_", "places", "slot_at", "replacing", "of_meta"}
# Lists of our own columns, and of as many placeholders.
COLUMN_LISTS = re.compile(
    r"', '\.join\((COLUMNS|_COUNTED|_JUDGED|'\?' \* len\(COLUMNS\)|[A-Z_]+ \+ [A-Z_]+)\)"
)


def calls_that_run_sql(tree: ast.AST) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and node.args
        and (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        in RUNS_SQL
    ]


def is_harmless(node: ast.expr) -> bool:
    """Whether a statement is a constant, a name for one, or a template that is judged below."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, ast.JoinedStr):
        first = node.values[0]
        if not isinstance(first, ast.Constant) or not str(first.value).startswith("PRAGMA "):
            return is_filled_with_our_own(node)
        return all(
            ast.unparse(part.value).partition("(")[0] in PRAGMAS
            for part in node.values
            if isinstance(part, ast.FormattedValue)
        )
    if isinstance(node, ast.Call):  # a function of statements.py, or a constant template
        template = re.fullmatch(r"(sql\.)?_?[A-Z_]+\.format", ast.unparse(node.func))
        filled = {ast.unparse(word.value) for word in node.keywords}
        if template:
            return not node.args and filled <= FILLINGS
        return ast.unparse(node.func).startswith(("statements.", "sql."))
    return isinstance(node, (ast.Name, ast.Attribute))


@pytest.mark.parametrize("path", SOURCES, ids=[path.name for path in SOURCES])
def test_no_statement_is_put_together_where_it_is_run(path: Path) -> None:
    for call in calls_that_run_sql(ast.parse(path.read_text("utf-8"))):
        assert is_harmless(call.args[0]), f"{path.name}:{call.lineno}: {ast.unparse(call)}"


def test_the_test_above_can_fail() -> None:
    bad = [
        'c.execute(f"SELECT {key}")',
        'c.execute("SELECT " + key)',
        'c.execute("SELECT %s" % key)',
        'c.execute("SELECT {}".format(key))',
        'c.execute(f"PRAGMA journal_mode = {mode}")',
    ]
    for text in bad:
        (call,) = [each for each in calls_that_run_sql(ast.parse(text)) if each.args]
        assert not is_harmless(call.args[0]), text


def is_filled_with_our_own(node: ast.JoinedStr) -> bool:
    """Whether only constants, texts of `Sql`, table names and placeholders stand in it."""
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            text = ast.unparse(part.value)
            name = text.partition("(")[0].partition(".")[0]
            is_list = COLUMN_LISTS.fullmatch(text) is not None
            is_ours = name.strip("_").isupper() or name in OURS
            if not (is_ours or is_list or text.endswith(".text")):
                return False
    return True


@pytest.mark.parametrize("path", SOURCES, ids=[path.name for path in SOURCES])
def test_what_is_built_of_sql_holds_no_text_of_a_user(path: Path) -> None:
    """An f-string of SQL is filled with constants, `Sql.text`s and counts alone."""
    keywords = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH ", "FROM ", "WHERE ", "AND ")
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.JoinedStr):
            continue
        fixed = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        if not fixed.lstrip().startswith(keywords):
            continue
        assert is_filled_with_our_own(node), f"{path.name}:{node.lineno}: {ast.unparse(node)}"


HOSTILE = [
    "'; DROP TABLE items; --",
    '"; DROP TABLE items; --',
    "') OR 1=1 --",
    "' UNION SELECT value, 1, 1, 1, 1, 1 FROM items --",
    "`items`; VACUUM; --",
    "\\'; DELETE FROM items; /*",
    "%' OR '1'='1",
    "?",
    "?1 :a @a $a",
    "NULL",
    "1; ATTACH DATABASE '/tmp/evil.db' AS evil",
    "load_extension('evil')",
    "/* */ OR TRUE",
    "a' AND randomblob(1000000000) IS NOT NULL --",
    'text" MATCH "*',
    'NEAR(a b) OR ^* AND - ( ) " { }',
]


async def watch_for(store: Store, evil: str) -> None:
    async with store.watch((evil,), pattern=kvstore.escape(evil)) as watch:
        await store.put((evil,), evil, evil)
        change = await anext(watch)
        assert change.namespace == (evil,)
        assert change.key == evil


Entry = Callable[[Store, str], Awaitable[Any]]
ENTRIES: dict[str, Entry] = {
    "namespace": lambda store, evil: store.get((evil,), "k"),
    "key": lambda store, evil: store.get(("n",), evil),
    "put": lambda store, evil: store.put((evil,), evil, {evil: evil}),
    "put_many": lambda store, evil: store.put_many((evil, evil), {evil: evil}),
    "index": lambda store, evil: store.put((evil,), evil, 1, index=[evil]),
    "get_many": lambda store, evil: store.get_many(("n",), [evil, "k"]),
    "delete": lambda store, evil: store.delete((evil,), evil),
    "delete_many": lambda store, evil: store.delete_many(("n",), [evil]),
    "remove": lambda store, evil: store.remove((evil,), evil, subtree=True),
    "remove below": lambda store, evil: store.remove((), f"{kvstore.escape(evil)}*", subtree=True),
    "keys": lambda store, evil: store.keys(("n",), f"*{evil}?"),
    "count": lambda store, evil: store.count((), evil, subtree=True),
    "search": lambda store, evil: store.search((), evil, subtree=True),
    "search in": lambda store, evil: store.search((evil,), evil),
    "filter value": lambda store, evil: store.search(("n",), filter={"a": evil}),
    "filter path": lambda store, evil: store.search(("n",), filter={evil: {"$gt": evil}}),
    "filter in": lambda store, evil: store.search(("n",), filter={"a": {"$in": [evil]}}),
    "filter contains": lambda store, evil: store.search(("n",), filter={"a": {"$contains": evil}}),
    "filter operator": lambda store, evil: store.search(("n",), filter={"a": {evil: 1}}),
    "mode": lambda store, evil: store.search(("n",), "x", mode=evil),
    "namespaces": lambda store, evil: store.list_namespaces((evil, ...), suffix=(evil,)),
    "increment": lambda store, evil: store.increment(("c",), evil, field=evil),
    "append": lambda store, evil: store.append((evil,), evil + "list", evil),
    "update": lambda store, evil: store.update((evil,), evil, lambda value: evil),
    "import": lambda store, evil: store.import_items(io.StringIO(evil)),
    "watch": watch_for,
    "export": lambda store, evil: store.export_items(io.BytesIO(), namespace=(evil,)),
}


@pytest.mark.parametrize("entry", ENTRIES)
async def test_no_text_reaches_sql_as_sql(sqlite: SQLiteStore, entry: str) -> None:
    secret = {"a": "secret"}
    await sqlite.put(("n",), "k", secret)
    schema = await sqlite.backend._points.submit(_schema)
    for evil in HOSTILE:
        (result,) = await asyncio.gather(ENTRIES[entry](sqlite, evil), return_exceptions=True)
        assert not isinstance(result, kvstore.StoreCorruptError)
        assert isinstance(result, StoreError) or not isinstance(result, BaseException)
        assert "syntax" not in repr(result)
        assert "secret" not in repr(result) or entry == "get_many"
        item = await sqlite.get(("n",), "k")
        assert item is not None
        assert item.value == secret
    assert await sqlite.backend._points.submit(_schema) == schema
    assert (await sqlite.check()).ok


def _schema(connection: driver.Connection) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT type, name FROM sqlite_schema ORDER BY name").fetchall()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_a_new_file_has_the_mode_that_was_asked_for(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with SQLiteStore(tmp_path / "s.db", file_mode=0o600) as store:
            await store.put(("n",), "k", 1)
            modes = {
                path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("s.db*")
            }
        assert modes == {"s.db": 0o600, "s.db-wal": 0o600, "s.db-shm": 0o600}
    finally:
        os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
async def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "s.db"):
        pass
    (tmp_path / "s.db").chmod(0o640)
    async with SQLiteStore(tmp_path / "s.db", file_mode=0o600):
        assert stat.S_IMODE((tmp_path / "s.db").stat().st_mode) == 0o640


@pytest.mark.parametrize("mode", [0o400, 0o7600, -1, 0])
def test_a_mode_that_makes_no_sense_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InvalidArgumentError, match="file_mode"):
        SQLiteStore(tmp_path / "s.db", file_mode=mode)


async def test_extensions_cannot_be_loaded_by_sql(sqlite: SQLiteStore) -> None:
    def attempt(connection: driver.Connection) -> None:
        with pytest.raises(driver.Error):
            connection.execute("SELECT load_extension('evil')")

    await sqlite.backend._points.submit(attempt)
    await sqlite.backend._writer.run(attempt)


async def test_functions_of_a_hostile_schema_are_not_trusted(sqlite: SQLiteStore) -> None:
    """A view or trigger in a file from elsewhere cannot call functions with side effects."""
    (trusted,) = await sqlite.backend._points.submit(
        lambda connection: connection.execute("PRAGMA trusted_schema").fetchone()
    )
    assert trusted == 0


async def test_errors_and_logs_hold_no_values(
    sqlite: SQLiteStore, caplog: pytest.LogCaptureFixture
) -> None:
    await sqlite.put(("n",), "k", "s3cret-value")
    failing: list[Awaitable[Any]] = [
        sqlite.put(("n",), "k", ["s3cret-value", float("nan")], if_version=9),
        sqlite.increment(("n",), "k"),
        sqlite.append(("n",), "k", "s3cret-value"),
        sqlite.put(("n",), "k", "s3cret-value", if_version=99),
        sqlite.import_items(io.StringIO('{"key": "s3cret-value"}')),
        sqlite.import_items(io.StringIO('"s3cret-value')),
    ]
    for result in await asyncio.gather(*failing, return_exceptions=True):
        assert isinstance(result, StoreError)
        assert "s3cret-value" not in str(result)
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:/user:s3cret@127.0.0.1/db",
        "postgresql:user:s3cret@127.0.0.1/db",
        "postgresql:///user:s3cret@127.0.0.1/db",
        "postgresql://user:s3cret/x@127.0.0.1/db",
        "postgresql://user:s3c#s3cret@127.0.0.1/db",
        "postgresql://user:s3cret?x@127.0.0.1/db",
        "postgresql://user:s3cret",
        "postgresql://user:s3cret@127.0.0.1:s3cret/db",
        "postgresql://user:s3cret@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?user=user&password=s3cret",
        "pgsql://user:s3cret@127.0.0.1/db",
        "sqlite://user:s3cret@127.0.0.1/db",
    ],
)
async def test_a_mistyped_url_does_not_give_its_password_away(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        async with kvstore.open(url) as store:
            assert "s3cret" not in repr(store)
    assert "s3c" not in str(caught.value)

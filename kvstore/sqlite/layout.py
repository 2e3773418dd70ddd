"""What may be in a file: what the migrations make, what is made later, and tables of others.

Anything of another's that runs by itself could change or stall every call: a trigger, a view in a
table's place, an index or a generated column over an expression. So the schema of a file is
compared with what the migrations make in an empty database, when it is opened and by `check`.
Tables of other programs, and indexes on them, are let be: nothing of ours touches them. A trigger
or a view is refused wherever it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from kvstore.errors import SchemaError
from kvstore.sqlite import driver, statements
from kvstore.sqlite.connection import snapshot

__all__ = ["made_later", "problems_of", "require_layout"]

Entry = tuple[str, str, str, str | None]  # type, name, tbl_name and sql of sqlite_schema
Steps = tuple[tuple[str, ...], ...]  # the statements of each migration

_TOKEN = re.compile(
    r"""(?P<nothing>\s+|--[^\n]*|/\*.*?(?:\*/|\Z)) | '(?:[^']|'')*' | "(?:[^"]|"")*" | \w+ | .""",
    re.VERBOSE | re.DOTALL,
)
_OF_SQLITE = re.compile(r"sqlite_(?:sequence|stat\d)")
# In a table of an extension's own, anything but plain columns is another's work.
_COMPUTES = re.compile(
    r"\b(?:CHECK|GENERATED|AS|DEFAULT|COLLATE|REFERENCES|SELECT)\b", re.IGNORECASE
)
_SHOWN = 60  # characters of a name that a message holds


@dataclass(frozen=True, slots=True)
class _Later:
    """Something that is made after the migrations, and perhaps never."""

    name: re.Pattern[str]
    kind: str
    table: str
    sql: re.Pattern[str]
    shadows: re.Pattern[str] | None  # the names of the tables in which an extension keeps it


_LATER: dict[str, _Later] = {}


def made_later(
    kind: str, name: str, table: str, *statements: str, shadows: str = "", **fillings: str
) -> None:
    """Say what a file may have that no migration makes.

    Args:
        kind: `"table"`, `"index"` or `"trigger"`.
        name: of it, with `{}`-fields.
        table: that it belongs to; of a table, its own name.
        statements: those that may have made it, with `{}`-fields.
        shadows: a regular expression for what follows the name in those of the tables in which
            the extension of a virtual table keeps it.
        fillings: a regular expression for each field.
    """

    def pattern(text: str) -> str:
        text = re.escape(_plain(re.sub(r"\{(\w+)\}", r"__\1__", text)))
        for field, filling in fillings.items():
            text = text.replace(f"__{field}__", filling)
        return text

    patterns = map(pattern, statements)
    names = re.compile(f"{re.escape(name)}_(?:{shadows})") if shadows else None
    named = re.compile(pattern(name))
    _LATER[name] = _Later(named, kind, table, re.compile("|".join(patterns)), names)


def require_layout(connection: driver.Connection, steps: Steps, path: Path) -> None:
    """Refuse a file whose schema is not what this library makes.

    Args:
        connection: to the file.
        steps: all migrations; the file says how many of them it has had.
        path: for the message.

    Raises:
        SchemaError: what is in it that should not be, or is missing.
    """
    for problem in problems_of(connection, steps):
        raise SchemaError(
            f"{path} cannot be used: {problem}. Take that away if you know it, else name another "
            "file, or restore this one from a backup"
        )


def problems_of(connection: driver.Connection, steps: Steps) -> tuple[str, ...]:
    """Return what of a file's schema is not as this library makes it."""
    with snapshot(connection):
        number = connection.execute("PRAGMA user_version").fetchone()[0]
        entries = connection.execute(statements.READ_SCHEMA).fetchall()
    return _problems(steps[:number], steps, tuple(entries))


@lru_cache(maxsize=64)
def _problems(done: Steps, steps: Steps, entries: tuple[Entry, ...]) -> tuple[str, ...]:
    return tuple(_compare(_made(done), _made(steps), entries))


Made = dict[str, tuple[str, str, str]]  # kind, table and plain SQL, by name


def _compare(expected: Made, reserved: Made, entries: tuple[Entry, ...]) -> Iterator[str]:
    found = {name: kind for kind, name, _, _ in entries}
    for name, (kind, _, _) in expected.items():
        if found.get(name) != kind:
            yield f"its {kind} {name!r} is missing"
    ours = reserved.keys() | {name for name, later in _LATER.items() if later.kind == "table"}
    for kind, name, table, sql in entries:
        what = f"its {kind} {name[:_SHOWN]!r}"
        later = next((each for each in _LATER.values() if each.name.fullmatch(name)), None)
        shadowed = _shadowed(name)
        if name in expected:
            if expected[name] != (kind, table, _plain(sql)):
                yield f"{what} is not as kvstore makes it"
        elif name in reserved:
            yield f"{what} has a name of kvstore's, and is not its work"
        elif later is not None:
            if (kind, table) != (later.kind, later.table) or not later.sql.fullmatch(_plain(sql)):
                yield f"{what} is not as kvstore makes it"
        elif shadowed:
            if kind != "table" or _COMPUTES.search(sql or ""):
                yield f"{what} is not as kvstore makes it"
        elif kind in ("trigger", "view"):
            yield f"{what} is another's, and could change or stall any call"
        elif kind == "index" and sql is not None and (table in ours or _shadowed(table)):
            yield f"{what} on {table!r} is another's, and could stall any call"
        elif name.startswith("sqlite_") and sql is not None and not _OF_SQLITE.fullmatch(name):
            yield f"{what} has a name of SQLite's own"


def _shadowed(name: str) -> bool:
    """Whether a table is one in which an extension keeps a virtual table of ours."""
    return any(later.shadows and later.shadows.fullmatch(name) for later in _LATER.values())


@cache
def _made(steps: Steps) -> Made:
    """Return what migrations make in an empty database."""
    connection = driver.connect("file::memory:")
    try:
        for step in steps:
            for statement in step:
                connection.execute(statement)
        rows: list[Entry] = connection.execute(statements.READ_SCHEMA).fetchall()
    finally:
        connection.close()
    return {name: (kind, table, _plain(sql)) for kind, name, table, sql in rows}


def _plain(sql: str | None) -> str:
    """Return a statement's tokens with one space between them, without its comments."""
    tokens = (match for match in _TOKEN.finditer(sql or ""))
    return " ".join(match[0] for match in tokens if match["nothing"] is None)

"""What a file has of a search index: its description, its tables, and what is there of an item."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvstore.caching import cache_short
from kvstore.description import Description, IndexSetup
from kvstore.errors import MissingDependencyError, StoreCorruptError
from kvstore.index_plan import CODE_BYTES, Wanted, codes_in
from kvstore.sqlite import driver, statements
from kvstore.sqlite import index_statements as sql
from kvstore.sqlite.connection import transaction
from kvstore.sqlite.layout import made_later
from kvstore.sqlite.openfile import OpenFile
from kvstore.sqlite.passing import PassingItems
from kvstore.sqlite.vectors import Journal
from kvstore.text import WORDS_REVISION

__all__ = [
    "FREE",
    "Entries",
    "Setup",
    "codes_held",
    "describe",
    "described",
    "entries_of",
    "keep_description",
    "load_vectors",
    "prepare_index",
    "require_words",
]


def describe(connection: driver.Connection) -> Description | None:
    """Return the description of the file's index, or `None` if there is none."""
    row = connection.execute(sql.GET_DESCRIPTION).fetchone()
    return None if row is None else described(row[0])


@cache_short(64, 10_000)
def described(text: str) -> Description:
    """Return a description for those who only read it: it is shared."""
    return Description.parse(text)


def keep_description(connection: driver.Connection, description: Description) -> None:
    """Write the description of the file's index."""
    connection.execute(statements.PUT_META, ("index", description.text))


@dataclass(slots=True)
class Setup(IndexSetup):
    """What one store brings along for the index.

    Attributes:
        journal: of the vectors that it writes.
        passing: what passes the filters of its searches.
    """

    journal: Journal = field(default_factory=Journal)
    passing: PassingItems = field(default_factory=PassingItems)


# Items: each of an item's codes (`kvstore.index_plan`) has a slot, and there its vector

FREE = bytes(CODE_BYTES)  # in the place of a code: nothing is in the slot


@dataclass(slots=True)
class Entries:
    """What the index is to hold of an item, and what it holds.

    Attributes:
        item: its id; `None`: not there yet.
        path: its namespace.
        wanted: what is to be there.
        slots: the codes in the index; `None`: nothing is.
        length: how many words are.
    """

    item: int | None
    path: str
    wanted: Wanted
    slots: list[bytes] | None
    length: int
    is_pending: bool

    @property
    def is_unchanged(self) -> bool:
        """Whether the index holds just that."""
        held = None if self.slots is None else set(self.slots) - {FREE}
        return not self.is_pending and self.wanted.is_held(held)


def entries_of(
    item: int | None,
    path: str,
    wanted: Wanted,
    slots: bytes | None,
    length: int | None,
    is_pending: int,
) -> Entries:
    """Return what is wanted of an item, and what `index_entries` has of it."""
    held = None if slots is None else codes_held(slots)
    return Entries(item, path, wanted, held, length or 0, bool(is_pending))


def codes_held(slots: bytes) -> list[bytes]:
    """Return the codes that `index_entries` has of an item.

    Raises:
        StoreCorruptError: they are not as they were written.
    """
    if type(slots) is not bytes:
        raise StoreCorruptError(
            "an entry of the search index is damaged; restore the file from a backup"
        )
    return codes_in(slots)


# Tables

_FORGETS = driver.VERSION >= (3, 43, 0)  # older ones must keep a text to be able to delete it

_CONTENTS = ("content = '', contentless_delete = 1,", "")  # of an SQLite that forgets, or not
made_later(
    *("table", "words", "words"),
    *(
        words.format(content=content)
        for content in _CONTENTS
        for words in (sql.CREATE_WORDS, sql.OLDER_WORDS)
    ),
    shadows="data|idx|docsize|config|content",
)
made_later("trigger", "items_dropped", "items", sql.CREATE_TRIGGER)
for _name, _chunk in sql.VECTOR_CHUNKS.items():
    made_later(
        *("table", _name, _name, sql.CREATE_VECTORS.replace("{name}", _name)),
        dimensions=r"\d+",
        chunk=str(_chunk),
        shadows=r"info|chunks|rowids|vector_chunks\d+",
    )
    _created = sql.CREATE_VECTORS_INDEX.replace("{name}", _name)
    made_later("index", f"{_name}_by_path", f"{_name}_chunks", _created)


def prepare_index(
    connection: driver.Connection, setup: Setup, timeout: float, file: OpenFile
) -> None:
    """Make the index of a file that has none; what it holds already is marked for `reindex`.

    Args:
        connection: with write access, outside a transaction.
        setup: of the store that has an index.
        timeout: how long to wait for other processes, in seconds.
        file: that of the connection.
    """
    description = describe(connection)
    if description is not None and description.words >= WORDS_REVISION:
        return
    with transaction(connection, timeout, file):
        description = describe(connection)
        if description is not None and description.words >= WORDS_REVISION:
            return  # another process was faster
        is_new = not connection.execute(sql.HAS_ITEMS).fetchone()[0]
        if description is None:
            connection.execute(sql.CREATE_TRIGGER)
            description = Description(setup.fields, setup.model, None, has_all_vectors=is_new)
        else:
            for statement in sql.FORGET_WORDS:
                connection.execute(statement)
        content = _CONTENTS[0 if _FORGETS else 1]
        connection.execute(sql.CREATE_WORDS.format(content=content))
        connection.execute(sql.MARK_ALL)
        description.has_all_words = is_new
        description.words = WORDS_REVISION
        keep_description(connection, description)


def require_words(connection: driver.Connection) -> None:
    """Raise `MissingDependencyError` if this SQLite is too old for the file's `words`."""
    if not _FORGETS:
        words = connection.execute(sql.HOW_WORDS_WERE_MADE).fetchone()
        if words is not None and "contentless_delete" in words[0]:
            raise MissingDependencyError(
                "the search index of this file was made by a newer SQLite, and writing it takes "
                f"3.43 or newer; {driver.NAME} is older: pip install pysqlite3"
            )


def load_vectors(connection: driver.Connection) -> None:
    """Load sqlite-vec into a connection that may lack it.

    Raises:
        MissingDependencyError: this Python's SQLite loads no extensions, or there is no sqlite-vec.
    """
    if connection.execute(sql.HAS_VEC0).fetchone():
        return
    driver.require_extensions()
    try:
        import sqlite_vec
    except ImportError:
        raise MissingDependencyError(
            "semantic search needs sqlite-vec, which is not installed: pip install sqlite-vec"
        ) from None
    connection.enable_load_extension(True)
    try:
        sqlite_vec.load(connection)
    except (driver.Error, OSError) as exc:
        raise MissingDependencyError(
            f"semantic search needs sqlite-vec, whose library cannot be loaded from "
            f"{sqlite_vec.loadable_path()}: pip install --force-reinstall sqlite-vec, and have a "
            "frozen program carry it (PyInstaller: --collect-all sqlite_vec)"
        ) from exc
    finally:
        connection.enable_load_extension(False)

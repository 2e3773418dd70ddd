"""Looking the search index over: does it hold just what the items say it should."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from kvstore import codec
from kvstore.errors import StoreError
from kvstore.index_plan import is_as_wanted, texts_of_row
from kvstore.sqlite import driver
from kvstore.sqlite import index_statements as sql
from kvstore.sqlite.index_file import describe
from kvstore.sqlite.slots import FREE, codes_held

__all__ = ["find_problems"]

_SLICE = 1_000  # items looked at by one statement


def find_problems(connection: driver.Connection) -> Iterator[str]:
    """Hold the index against the items, without any help of sqlite-vec."""
    description = describe(connection)
    if description is None:
        return
    last = -1
    while True:
        rows = connection.execute(sql.GET_CHECKED, (last, _SLICE)).fetchall()
        for item, indexing, value, slots, has_words, is_pending in rows:
            try:
                paths = None if indexing is None else orjson.loads(indexing)
                texts = texts_of_row(codec.decode(value), paths, description)
            except (StoreError, TypeError, ValueError):
                continue  # a damaged row, which is told as such
            held = set(codes_held(slots or b"")) - {FREE}
            if (slots is not None) != bool(has_words):
                yield f"index: item {item} is in one of its tables and not in the other"
            is_right = is_as_wanted(held, texts) and (slots is not None or not texts)
            if not is_pending and not is_right:
                yield f"index: item {item} is not indexed as it is, and not marked for reindex"
        if len(rows) < _SLICE:
            break
        last = rows[-1][0]
    checks = {
        "index_entries": sql.COUNT_ENTRIES_WITHOUT_ITEM,
        "words": sql.COUNT_WORDS_WITHOUT_ITEM,
    }
    if description.dimensions is not None:
        for table in sql.VECTOR_TABLES:
            checks[table] = sql.count_orphans(table)
    strays = {
        what: connection.execute(statement).fetchone()[0] for what, statement in checks.items()
    }
    for what, number in strays.items():
        if number:
            yield f"index: {number} rows of {what} belong to no item"
    if not strays["index_entries"] and connection.execute(sql.FIND_MISCOUNTED).fetchone():
        yield "index: the numbers of its words are not those of its entries"

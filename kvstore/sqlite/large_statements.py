"""The SQL of large namespaces, of what `kvstore.sqlite.large` is about."""

from __future__ import annotations

from kvstore.sql import NOTHING, Sql
from kvstore.sqlite.layout import made_later

__all__ = [
    "COUNT_OTHERS",
    "CREATE",
    "GET_NAMESPACE",
    "GET_NAMESPACES",
    "HAS_MORE",
    "IS_MADE",
    "SET_NAMESPACE",
    "add_slice",
    "end_of_slice",
    "latest",
]

_CREATE_NAMESPACES = """
CREATE TABLE large_namespaces (
    path TEXT PRIMARY KEY,
    items INTEGER NOT NULL,        -- how many rows large_items has of it
    until TEXT                     -- the last key whose item is there; NULL: all of them are
) WITHOUT ROWID
"""
_CREATE_ITEMS = """
CREATE TABLE large_items (
    path TEXT NOT NULL,
    version INTEGER NOT NULL,      -- of the item
    item INTEGER NOT NULL,         -- items.id
    PRIMARY KEY (path, version, item)
) WITHOUT ROWID
"""


def _when(row: str) -> str:
    """Write the condition that an item is one of those that are there."""
    return f"""
WHEN EXISTS (
    SELECT 1 FROM large_namespaces
    WHERE path = {row}.path AND (until IS NULL OR {row}.key <= until)
)
"""


# An upsert has its own way with OR IGNORE in a trigger (https://sqlite.org/lang_createtrigger.html).
_ADD = """
    INSERT INTO large_items (path, version, item) VALUES (new.path, new.version, new.id)
    ON CONFLICT DO NOTHING;
"""
_TAKE = """
    DELETE FROM large_items WHERE path = old.path AND version = old.version AND item = old.id;
"""
_TRIGGERS = {
    "large_put": f"""
CREATE TRIGGER large_put AFTER INSERT ON items {_when("new")} BEGIN {_ADD}
    UPDATE large_namespaces SET items = items + 1 WHERE path = new.path;
END
""",
    "large_change": f"""
CREATE TRIGGER large_change AFTER UPDATE OF version ON items {_when("new")} BEGIN {_TAKE} {_ADD} END
""",
    "large_drop": f"""
CREATE TRIGGER large_drop AFTER DELETE ON items {_when("old")} BEGIN {_TAKE}
    UPDATE large_namespaces SET items = items - 1 WHERE path = old.path;
END
""",
}
_SET_MADE = "INSERT INTO meta (name, value) VALUES ('large', 1)"
CREATE = (_CREATE_NAMESPACES, _CREATE_ITEMS, *_TRIGGERS.values(), _SET_MADE)

made_later("table", "large_namespaces", "large_namespaces", _CREATE_NAMESPACES)
made_later("table", "large_items", "large_items", _CREATE_ITEMS)
for _name, _text in _TRIGGERS.items():
    made_later("trigger", _name, "items", _text)

# The primary keys; the unique index on (path, key)
IS_MADE = "SELECT 1 FROM meta WHERE name = 'large'"

HAS_MORE = "SELECT 1 FROM items WHERE path = ? LIMIT 1 OFFSET +?"
GET_NAMESPACE = "SELECT items, until FROM large_namespaces WHERE path = ?"
GET_NAMESPACES = "SELECT path, items, until FROM large_namespaces"
SET_NAMESPACE = """
INSERT INTO large_namespaces (path, items, until) VALUES (?, ?, ?)
ON CONFLICT (path) DO UPDATE SET items = items + excluded.items, until = excluded.until
"""

COUNT_OTHERS = """
SELECT
    (SELECT count(*) FROM (
        SELECT version, id FROM items WHERE path = ?1 AND (?2 IS NULL OR key <= ?2)
        EXCEPT SELECT version, item FROM large_items WHERE path = ?1
    )),
    (SELECT count(*) FROM (
        SELECT version, item FROM large_items WHERE path = ?1
        EXCEPT SELECT version, id FROM items WHERE path = ?1 AND (?2 IS NULL OR key <= ?2)
    )),
    (SELECT count(*) FROM large_items WHERE path = ?1)
"""


def latest(path: str, most: int) -> Sql:
    """Select the ids of the latest items of a namespace, by the primary key."""
    text = "SELECT item FROM large_items WHERE path = ? ORDER BY version DESC LIMIT +?"
    return Sql(text, (path, most))


def end_of_slice(path: str, after: str | None, size: int) -> Sql:
    """Select the last key of the next slice of a namespace; none: it is the last slice."""
    text = "SELECT key FROM items WHERE path = ? AND ? ORDER BY key LIMIT 1 OFFSET +?"
    return Sql.of(text, path, _above(after), size - 1)


def add_slice(path: str, after: str | None, until: str | None) -> Sql:
    """Take in the items of a namespace between two keys, or to its end."""
    return Sql.of(
        "INSERT INTO large_items (path, version, item) SELECT path, version, id FROM items"
        " WHERE path = ? AND ? ? ORDER BY version",
        *(path, _above(after), NOTHING if until is None else Sql("AND key <= ?", (until,))),
    )


def _above(after: str | None) -> Sql:
    return Sql("key >= ''") if after is None else Sql("key > ?", (after,))

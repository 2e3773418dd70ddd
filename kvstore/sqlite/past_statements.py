"""The SQL statements of the past, with the index that each expects.

An item that was is in the row of the change that ended it. Its value, if that is NULL, is that of
the version after it: of the next row of the item that has one, or else of the item itself. One that
is empty is forgotten.
"""

from __future__ import annotations

from kvstore.backend import Span
from kvstore.patterns import Pattern
from kvstore.sql import Sql
from kvstore.sqlite.statements import (
    LIVE,
    OCTETS,
    REST,
    in_order,
    in_range,
    in_span,
    key_matches,
    of_meta,
)

# The primary key of items; it takes the value along without giving it to Python
KEEP = """
INSERT INTO changes (
    version, kind, at, path, key, was, created_at, updated_at, checksum, value, expires_at, ttl,
    indexing
)
SELECT ?, ?, ?, path, key, version, created_at, updated_at, checksum, nullif(value, ?), expires_at,
    ttl, indexing
FROM items
WHERE id = ?
"""

# As KEEP, of a plain item that is known
ADD_PAST = """
INSERT INTO changes (
    version, kind, at, path, key, was, created_at, updated_at, checksum, value
)
VALUES (?, 'put', ?, ?, ?, ?, ?, ?, ?, ?)
"""

_PAST = """
(
    SELECT version AS ended, at AS ended_at, kind AS ended_by, path, key, was AS version,
        created_at, updated_at, checksum, value, expires_at, ttl, indexing
    FROM changes
    WHERE was IS NOT NULL
) AS past
"""
_OWN = "version, created_at, updated_at, expires_at, checksum, ttl, indexing"
_WHOLE = """
CAST(coalesce(
    past.value,
    (
        SELECT later.value FROM changes AS later
        WHERE later.path = past.path AND later.key = past.key
            AND later.was > past.version AND later.value IS NOT NULL
        ORDER BY later.was LIMIT 1
    ),
    (SELECT items.value FROM items WHERE items.path = past.path AND items.key = past.key)
) AS BLOB)
"""

_SHORT = f"CASE WHEN {OCTETS} <= ?5 THEN CAST(value AS BLOB) END"
_SHORT_WHOLE = f"CASE WHEN coalesce({OCTETS}, 1 << 61) <= ?5 THEN {_WHOLE} END"
_THERE = f"""
FROM items
WHERE path = ?1 AND key = ?2 AND version <= ?3 AND {LIVE.replace("?", "?4")}
"""
_WAS_THERE = f"""
FROM (
    SELECT * FROM {_PAST}
    WHERE path = ?1 AND key = ?2 AND version <= ?3
    ORDER BY version DESC LIMIT 1
) AS past
WHERE ended > ?3 AND {LIVE.replace("?", "?4")} AND value IS NOT ''
"""

# The unique index on (path, key), and changes_was; a value of more bytes than ?5 is left out
GET_AT = f"""
SELECT path, key, {_SHORT}, {_OWN} {_THERE}
UNION ALL
SELECT path, key, {_SHORT_WHOLE}, {_OWN} {_WAS_THERE}
"""
GET_ENTRY_AT = (
    f"SELECT {_SHORT}, {REST} {_THERE} UNION ALL SELECT {_SHORT_WHOLE}, {REST} {_WAS_THERE}"
)

# The same, of which nothing is told but that it is forgotten
IS_FORGOTTEN = f"""
SELECT 1 FROM {_PAST}
WHERE path = ? AND key = ? AND version <= ? AND ended > ? AND value = ''
"""

# The primary keys of meta and changes
GET_KEPT = f"""
SELECT {of_meta("history", "history_begin", "history_begin_at", "version")},
    (SELECT at FROM changes ORDER BY version DESC LIMIT 1),
    (SELECT at FROM changes WHERE version > ? ORDER BY version LIMIT 1)
"""
GET_LAST_INSTANT = f"""
SELECT max(
    {of_meta("history_begin_at")},
    coalesce((SELECT at FROM changes ORDER BY version DESC LIMIT 1), 0)
)
"""
GET_CHANGE_UP_TO = (
    "SELECT version, at FROM changes WHERE version <= ? ORDER BY version DESC LIMIT 1"
)

# changes_was; the primary key of changes
GET_PAST_OF = f"""
SELECT path, key, {_WHOLE}, {_OWN},
    (SELECT changes.at FROM changes WHERE changes.version = past.version),
    ended, ended_at, ended_by
FROM {_PAST}
WHERE path = ? AND key = ? AND value IS NOT ''
ORDER BY version DESC
LIMIT +?
"""

# The unique index on (path, key), and changes_was
GET_PUT = f"""
SELECT path, key, CAST(value AS BLOB), {_OWN}
FROM items
WHERE path = ?1 AND key = ?2 AND version = ?3
UNION ALL
SELECT path, key, {_WHOLE}, {_OWN}
FROM {_PAST}
WHERE path = ?1 AND key = ?2 AND version = ?3 AND value IS NOT ''
"""

# The unique index on (path, key); of an expired row, too
GET_PRESENT = f"""
SELECT path, key, CAST(value AS BLOB), {_OWN},
    (SELECT changes.at FROM changes WHERE changes.version = items.version)
FROM items
WHERE path = ? AND key = ?
"""

# The primary key of changes
GET_OLDEST = f"""
SELECT version, at, CASE WHEN was IS NOT NULL THEN coalesce({OCTETS}, 0) END
FROM changes
WHERE version > ?
ORDER BY version
LIMIT +?
"""
_STRIP = """
UPDATE changes
SET was = NULL, created_at = NULL, updated_at = NULL, checksum = NULL, value = NULL,
    expires_at = NULL, ttl = NULL, indexing = NULL
"""
STRIP_UP_TO = f"{_STRIP} WHERE version > ? AND version <= ? AND was IS NOT NULL"
STRIP_ALL = f"{_STRIP} WHERE was IS NOT NULL"

# The primary key of meta
GET_SPAN = f"SELECT {of_meta('history', 'history_until', 'history_begin')}"
# All changes
MEASURE_PAST = f"SELECT count(*), total({OCTETS}) FROM changes WHERE was IS NOT NULL"

# The primary key; text as bytes, so that a damaged one can be told
CHECK_PAST = f"""
SELECT ended, ended_at, version, past.value IS '', CAST(path AS BLOB), CAST(key AS BLOB),
    {_WHOLE},
    created_at, updated_at, checksum
FROM {_PAST}
WHERE ended > ?
ORDER BY ended
LIMIT +?
"""


def changed_since(version: int, path: str, subtree: bool) -> Sql:
    """List the addresses of what has changed since a version, in order.

    The primary key of changes.
    """
    text = "SELECT DISTINCT path, key FROM changes WHERE version > ? AND ? ORDER BY path, key"
    return Sql.of(text, version, in_range(path, subtree))


def forget(path: str, pattern: Pattern, subtree: bool) -> Sql:
    """Take away the values of the past of some keys, and leave that there was one.

    changes_was.
    """
    return Sql.of(
        "UPDATE changes SET value = '', checksum = 0, indexing = NULL"
        " WHERE was IS NOT NULL AND ? AND ? AND value IS NOT ''",
        *(in_range(path, subtree), key_matches(pattern)),
    )


def select_past_page(span: Span, version: int, instant: int, limit: int) -> Sql:
    """Select the first items of a span that were there at a moment: two indexes are merged.

    The unique index on (path, key), and changes_was.
    """
    parts = in_span(span), key_matches(span.pattern), version, instant
    there = Sql.of(f"? AND ? AND version <= ? AND {LIVE}", *parts)
    return Sql.of(
        f"SELECT path, key, CAST(value AS BLOB), {_OWN} FROM items WHERE ?"
        f" UNION ALL SELECT path, key, {_WHOLE}, {_OWN} FROM {_PAST}"
        " WHERE ? AND ended > ? AND value IS NOT '' ?",
        *(there, there, version, in_order(span, limit)),
    )

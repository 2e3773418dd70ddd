"""Every fixed SQL statement, and the pieces of those that are built, with the index each expects.

Expired rows are hidden by `LIVE` in every read; the sweep only frees their space. The instant
comes in as a parameter, from the store's clock, in microseconds.

A plain `LIMIT ?` has SQLite compile the statement anew at each call, to plan for the number that is
bound; `LIMIT +?` has not.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from kvstore.backend import Span
from kvstore.namespace import subtree_range
from kvstore.patterns import Pattern
from kvstore.sql import NOTHING, Sql, all_of
from kvstore.sqlite import driver

LIVE = "(expires_at IS NULL OR expires_at > ?)"

# What octet_length reads without loading a long value, of SQLite 3.43 and newer
READS_LENGTH_ALONE = driver.VERSION >= (3, 43, 0)
OCTETS = "octet_length(value)" if READS_LENGTH_ALONE else "length(CAST(value AS BLOB))"

OCTETS_OF_KEY = OCTETS.replace("value", "key")
FEW = 128  # rows that are worked on at once on the event loop's thread

COLUMNS = (
    *("path", "key", "version", "created_at", "updated_at", "checksum", "value"),
    *("expires_at", "ttl", "indexing"),
)
"""Of `items`, all but the id, in the order in which a row is written (see `writing`)."""

_ADDRESS, _PLAIN, _ALL = COLUMNS[:2], COLUMNS[2:7], COLUMNS[2:]
_ITEM = ("version", "created_at", "updated_at", "expires_at", "checksum")  # beside its value
REST = ", ".join(_ITEM)
ROW = f"CAST(value AS BLOB), {REST}"


def replacing(columns: Iterable[str]) -> str:
    """Go on from `ON CONFLICT (...) DO UPDATE`: set columns to what was to be inserted."""
    return "SET " + ", ".join(f"{name} = excluded.{name}" for name in columns)


def of_meta(*names: str) -> str:
    """List values of `meta`, of its primary key."""
    return ", ".join(f"(SELECT value FROM meta WHERE name = '{name}')" for name in names)


# The unique index on (path, key)
GET = f"""
SELECT {ROW}
FROM items
WHERE path = ? AND key = ? AND {LIVE}
"""

# As GET, but gives NULL for a long value, without reading it; a cast would take time
GET_SMALL = f"""
SELECT CASE WHEN {OCTETS} <= ? THEN value END,
    {REST}
FROM items
WHERE path = ? AND key = ?
"""


@cache
def get_small_points(points: int) -> str:
    """As GET_SMALL, of many addresses, which are told apart by their place."""
    places = ", ".join(f"({place}, ?, ?)" for place in range(points))
    return f"""
WITH wanted (place, path, key) AS (VALUES {places})
SELECT wanted.place, CASE WHEN {OCTETS.replace("value", "items.value")} <= ? THEN items.value END,
    {REST}
FROM wanted
CROSS JOIN items ON items.path = wanted.path AND items.key = wanted.key
"""


# The unique index on (path, key), once for each key
GET_MANY = f"""
SELECT items.path, items.key, {ROW.replace("value", "items.value")}
FROM json_each(?) AS wanted
CROSS JOIN items ON items.path = ? AND items.key = wanted.value
WHERE {LIVE}
"""

# The unique index on (path, key); of expired rows, too
GET_STATE = f"""
SELECT id, version, created_at, updated_at, expires_at, ttl, indexing, checksum, {OCTETS},
    CASE WHEN {OCTETS} <= ? THEN CAST(value AS BLOB) END
FROM items
WHERE path = ? AND key = ?
"""

# The unique index on (path, key). The row keeps its id, and with it its index entries' address.
UPSERT = f"""
INSERT INTO items ({", ".join(COLUMNS)})
VALUES ({", ".join("?" * len(COLUMNS))})
ON CONFLICT (path, key) DO UPDATE {replacing(_ALL)}
"""

# The unique index on (path, key); what is there, if only as an expired item, stays
INSERT_NEW = f"""
INSERT INTO items ({", ".join(COLUMNS)})
VALUES ({", ".join("?" * len(COLUMNS))})
ON CONFLICT (path, key) DO NOTHING
"""

# The primary key; of a row whose lifetime and indexing stay, so that it touches no index
UPDATE_VALUE = """
UPDATE items
SET version = ?, updated_at = ?, checksum = ?, value = ?
WHERE id = ?
"""


# The unique index on (path, key); of an item without lifetime or indexing, so that it touches no
# other index. Without RETURNING, and no upsert, it takes half the time of `upsert_plain`.
PUT_OVER = """
UPDATE items
SET version = ?, updated_at = ?, checksum = ?, value = ?
WHERE path = ? AND key = ? AND expires_at IS NULL AND indexing IS NULL
"""


@cache
def upsert_plain(rows: int) -> str:
    """Put items without lifetime or indexing of their own over nothing or their like.

    It takes no look at the rows, touches no column that another index holds, and many rows share
    one statement: a small part of the time of GET_STATE and UPSERT. A row that is over an item of
    another kind is left alone and not returned; so is one over a value longer than the second
    parameter, as to free that takes time. Rows are told apart by their version. The unique index
    on (path, key).

    The parameters: the instant, the longest value to replace, and of each row path, key, version,
    checksum and value.
    """
    firsts = range(3, 3 + 5 * rows, 5)
    places = ", ".join(f"(?{n}, ?{n + 1}, ?{n + 2}, ?1, ?1, ?{n + 3}, ?{n + 4})" for n in firsts)
    return f"""
INSERT INTO items ({", ".join(_ADDRESS + _PLAIN)})
VALUES {places}
ON CONFLICT (path, key) DO UPDATE {replacing(name for name in _PLAIN if name != "created_at")}
WHERE items.expires_at IS NULL
    AND items.indexing IS NULL
    AND {OCTETS.replace("value", "items.value")} <= ?2
RETURNING version, created_at, updated_at
"""


# The primary key
DELETE = """
DELETE FROM items
WHERE id = ?
"""

# The primary key
RENEW = """
UPDATE items
SET expires_at = ?, ttl = ?
WHERE id = ?
"""

# The partial index items_expiry; continues a SELECT or a DELETE
EXPIRED = """
FROM items
WHERE id IN (SELECT id FROM items WHERE expires_at <= ? ORDER BY expires_at LIMIT +?)
"""

# The partial index items_expiry
COUNT_EXPIRED = "SELECT count(*) FROM items WHERE expires_at <= ? AND +path = ?"

# The primary key of meta
GET_VERSION = "SELECT value FROM meta WHERE name = 'version'"
GET_STATE_OF_FILE = f"""
SELECT value, {of_meta("watched_until", "index")}, EXISTS (SELECT 1 FROM sequences),
    {of_meta("history")}
FROM meta
WHERE name = 'version'
"""
GET_LINEAGE = "SELECT name, value FROM meta WHERE name IN ('identity', 'log_base', 'version')"
PUT_META = """
INSERT INTO meta (name, value) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
SET_IDENTITY = """
INSERT INTO meta (name, value) VALUES ('identity', hex(randomblob(8)))
ON CONFLICT (name) DO NOTHING
"""
FORGET_LINEAGE = "DELETE FROM meta WHERE name IN ('identity', 'log_base')"
SET_META = "UPDATE meta SET value = ? WHERE name = ?"
SET_VERSION = "UPDATE meta SET value = ? WHERE name = 'version'"

# The change feed, by its primary key
GET_FEED_STATE = f"""
SELECT {of_meta("watched_until", "changes_begin")}, (SELECT max(version) FROM changes)
"""

# As above; the partial index items_expiry
GET_FEED = f"""
SELECT {of_meta("watched_until", "changes_begin", "history")},
    EXISTS (SELECT 1 FROM items WHERE expires_at <= ?)
"""

# The primary key; for the length, the unique index on (path, key)
GET_CHANGES = f"""
SELECT changes.version, changes.kind, changes.path, changes.key, changes.at,
    {OCTETS.replace("value", "items.value")}
FROM changes
LEFT JOIN items ON items.path = changes.path AND items.key = changes.key
WHERE changes.version > ?
ORDER BY changes.version
LIMIT +?
"""

LOG_BYTES = 32 * 2**20  # a log that grew beyond is cut to this when it starts over
LIMIT_LOG = f"PRAGMA journal_size_limit = {LOG_BYTES}"

# Of the file, 64 GiB into the address space of what searches by meaning
MAP_FILE = "PRAGMA mmap_size = 68719476736"

ADD_CHANGE = "INSERT INTO changes (version, kind, path, key, at) VALUES (?, ?, ?, ?, ?)"
GET_OLDEST_CHANGES = "SELECT version, at FROM changes ORDER BY version LIMIT +?"
DELETE_CHANGES = "DELETE FROM changes WHERE version <= ?"


def ids_of(doomed: Sql) -> Sql:
    """Select the addresses and ids of rows that are about to be deleted."""
    return Sql("SELECT path, key, id") + doomed


def delete(doomed: Sql) -> Sql:
    """Delete rows, of which FROM and WHERE are given."""
    return Sql("DELETE") + doomed


def delete_and_tell(doomed: Sql) -> Sql:
    """As `delete`; gives the addresses."""
    return Sql.of("DELETE ? RETURNING path, key", doomed)


# The primary key; text as bytes, so that a damaged one can be told
CHECK_ROWS = """
SELECT id, typeof(path) || typeof(key) || typeof(value),
    CAST(path AS BLOB), CAST(key AS BLOB), CAST(value AS BLOB), version,
    created_at, updated_at, expires_at, ttl, indexing, checksum
FROM items
WHERE id > ?
ORDER BY id
LIMIT +?
"""
COUNT_ROWS = "SELECT count(*) FROM items"

READ_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
READ_SQL_OF_SCHEMA = "SELECT sql FROM sqlite_schema"
TOUCH_SCHEMA = "SELECT 1 FROM sqlite_schema"  # so that a transaction has begun to read

# A range of the unique index on (path, key), and the rows for their times and lengths
MEASURE = f"""
SELECT count(*), count(DISTINCT path), total({OCTETS})
FROM items
WHERE path >= ? AND path < ? AND {LIVE}
"""

# The partial index items_expiry; the primary keys of the others
COUNT_REST = """
SELECT
    (SELECT count(*) FROM items WHERE expires_at <= ?),
    (SELECT count(*) FROM changes),
    EXISTS (SELECT 1 FROM meta WHERE name = 'index'),
    (SELECT count(*) FROM index_pending)
"""


def in_range(path: str, subtree: bool) -> Sql:
    """Lie in a namespace or its subtree: one range of the index on (path, key)."""
    if not subtree:
        return Sql("path = ?", (path,))
    low, high = subtree_range(path)
    return Sql("path >= ?", (low,)) if high is None else Sql("path >= ? AND path < ?", (low, high))


def key_matches(pattern: Pattern) -> Sql:
    """Match a pattern: a range of the index for its literal head, GLOB for the rest."""
    if pattern.matches_all:
        return Sql("1")
    if pattern.literal is not None or pattern.text == pattern.head + "*":
        return _begins(pattern)
    return all_of([_begins(pattern), _globs(pattern)])


def _begins(pattern: Pattern) -> Sql:
    """Match the keys that begin with a pattern's literal head, or are all of it."""
    if pattern.literal is not None:
        return Sql("key = ?", (pattern.literal,))
    parts = []
    if pattern.head:
        parts.append(Sql("key >= ?", (pattern.head,)))
        if pattern.after_head is not None:
            parts.append(Sql("key < ?", (pattern.after_head,)))
    return all_of(parts)


_LONGEST_GLOB = 10_000  # SQLite refuses patterns of more than 50,000 bytes
_MISREAD_BY_GLOB = frozenset("\0\ufffd\ufffe\uffff")  # NUL ends its strings, U+FFFE is U+FFFD to it


def _globs(pattern: Pattern) -> Sql:
    text = pattern.text
    if len(text) > _LONGEST_GLOB or not _MISREAD_BY_GLOB.isdisjoint(text):
        is_long = Sql(f"{OCTETS_OF_KEY} >= ?", (pattern.width,))  # few keys are, if the pattern is
        return all_of([is_long, Sql("kvstore_glob(?, CAST(key AS BLOB))", (text.encode(),))])
    return Sql(
        "CASE WHEN instr(key, char(0)) THEN kvstore_glob(?, CAST(key AS BLOB)) ELSE key GLOB ? END",
        (text.encode(), text),
    )


def live(now: int) -> Sql:
    """Be there at an instant."""
    return Sql(LIVE, (now,))


# A skip scan: each step jumps to the least path above the one before, by the index on (path, key)
_DISTINCT_PATHS = """
WITH RECURSIVE namespaces (path) AS (
    SELECT (SELECT items.path FROM items WHERE ? ORDER BY items.path LIMIT 1)
    UNION ALL
    SELECT (
        SELECT items.path FROM items
        WHERE items.path > namespaces.path AND ?
        ORDER BY items.path LIMIT 1
    )
    FROM namespaces WHERE namespaces.path IS NOT NULL
)
"""


def distinct_paths(path: str, condition: Sql = NOTHING) -> Sql:
    """Begin a statement with `namespaces`, the paths in a subtree; the last row is NULL.

    A condition that begins with AND says which of the items count.
    """
    within = in_range(path, subtree=True)
    among = Sql(within.text.replace("path", "items.path"), within.params) + condition
    return Sql.of(_DISTINCT_PATHS, among, among)


def list_paths(path: str, now: int, limit: int | None = None) -> Sql:
    """List the paths in a subtree that hold live items, sorted: costs by their number."""
    paths = distinct_paths(path, Sql(f" AND {LIVE}", (now,)))
    most = -1 if limit is None else limit
    return Sql.of("? SELECT path FROM namespaces WHERE path IS NOT NULL LIMIT +?", paths, most)


def has_expired(now: int, more_than: int) -> Sql:
    """Give a row if more than some items have expired: in the partial index items_expiry."""
    return Sql("SELECT 1 FROM items WHERE expires_at <= ? LIMIT 1 OFFSET +?", (now, more_than))


def first_live_path(low: str, high: str | None, now: int) -> Sql:
    """Find the least path in `low <= path < high` that holds a live item."""
    upper = NOTHING if high is None else Sql("AND path < ?", (high,))
    text = f"SELECT path FROM items WHERE path >= ? ? AND {LIVE} ORDER BY path LIMIT 1"
    return Sql.of(text, low, upper, now)


def within_each(path: str, subtree: bool) -> Sql:
    """Lie in a namespace or its subtree, of a table that has `path` before what is looked for."""
    if not subtree:
        return in_range(path, subtree)
    paths = distinct_paths(path)
    return Sql.of("path IN (? SELECT path FROM namespaces WHERE path IS NOT NULL)", paths)


def matching(path: str, subtree: bool, pattern: Pattern, now: int) -> Sql:
    """Continue `SELECT ...` or `DELETE`: FROM and WHERE of the live items whose keys match.

    A subtree is searched namespace by namespace if the pattern has a literal head, so that the
    cost is by what matches and not by what the subtree holds.
    """
    within = within_each(path, subtree) if pattern.head else in_range(path, subtree)
    return Sql.of(f"FROM items WHERE ? AND (? AND {LIVE})", within, key_matches(pattern), now)


def select_keys(span: Span, now: int, limit: int | None) -> Sql:
    """List the keys of a span, in its order."""
    if span.bounds == (None, None):
        found = matching(span.path, span.subtree, span.pattern, now)
    else:
        parts = in_span(span), key_matches(span.pattern), now
        found = Sql.of(f"FROM items WHERE (? AND ? AND {LIVE})", *parts)
    return Sql.of("SELECT key ? ?", found, in_order(span, -1 if limit is None else limit))


def in_span(span: Span) -> Sql:
    """Lie in a span: one range of the index on (path, key), and not one more condition a row."""
    after, before = span.bounds
    if not span.subtree:
        above = NOTHING if after is None else Sql("AND key > ?", (after[1],))
        below = NOTHING if before is None else Sql("AND key < ?", (before[1],))
        return Sql.of("path = ? ? ?", span.path, above, below)
    low, high = subtree_range(span.path)
    parts = [Sql("path >= ?", (low,)) if after is None else Sql("(path, key) > (?, ?)", after)]
    if before is not None:
        parts.append(Sql("(path, key) < (?, ?)", before))
    elif high is not None:
        parts.append(Sql("path < ?", (high,)))
    return all_of(parts)


def in_order(span: Span, limit: int) -> Sql:
    """Order rows as a span has them."""
    down = " DESC" if span.reverse else ""
    return Sql(f"ORDER BY path{down}, key{down} LIMIT +?", (limit,))


def count(path: str, subtree: bool, pattern: Pattern, now: int) -> Sql:
    """Count the matching items."""
    if pattern.matches_all:
        return count_all(path, subtree, now)
    return Sql("SELECT count(*)") + matching(path, subtree, pattern, now)


def count_all(path: str, subtree: bool, now: int) -> Sql:
    """Count the items of a namespace or a subtree.

    That is the rows, in the index on (path, key) alone, less those that have expired, in the
    partial index items_expiry: so no row that is live is looked at.
    """
    within = in_range(path, subtree)
    return Sql.of(
        "SELECT (SELECT count(*) FROM items WHERE ?)"
        " - (SELECT count(*) FROM items WHERE expires_at <= ? AND ?)",
        *(within, now, _in_no_order(within)),
    )


def _in_no_order(within: Sql) -> Sql:
    """Return a range such that the index on (path, key) is not used for it."""
    return Sql(within.text.replace("path", "+path"), within.params)


def weigh(path: str, pattern: Pattern | None = None) -> Sql:
    """Sum up the bytes of keys and values in a namespace, or NULL if it has more than `FEW` rows.

    A pattern's literal head narrows it. The many are counted in the index alone.
    """
    within = in_range(path, subtree=False)
    if pattern is not None:
        within = all_of([within, _begins(pattern)])
    return Sql.of(
        f"SELECT CASE WHEN (SELECT 1 FROM items WHERE ? LIMIT 1 OFFSET {FEW}) IS NULL THEN"
        f" (SELECT coalesce(sum({OCTETS_OF_KEY} + {OCTETS}), 0) FROM items WHERE ?) END",
        *(within, within),
    )


def weigh_first(span: Span, now: int, limit: int) -> Sql:
    """Sum up the bytes of keys and values of a span's first rows, or NULL if one has expired."""
    return Sql.of(
        "SELECT CASE WHEN total(is_live) = count(*) THEN coalesce(sum(octets), 0) END FROM ("
        f"SELECT {LIVE} AS is_live, {OCTETS_OF_KEY} + {OCTETS} AS octets FROM items WHERE ? ?)",
        *(now, in_span(span), in_order(span, limit)),
    )


def in_range_among(path: str, subtree: bool, among: Sql | None) -> Sql:
    """As `in_range`, where the ids of all that matter are known, if they are."""
    within = in_range(path, subtree)
    if among is None:
        return within
    return Sql.of("id IN (?) AND ?", among, _in_no_order(within))


def select_latest(
    path: str,
    subtree: bool,
    condition: Sql,
    now: int,
    limit: int,
    offset: int,
    among: Sql | None = None,
    order: Sql | None = None,
) -> Sql:
    """Select the items that pass, in order; only the page's values are sorted along.

    Args:
        path: of the namespace.
        subtree: whether all below it counts, too.
        condition: what passes.
        now: the instant.
        limit: how many at most.
        offset: how many to skip.
        order: what to order by; `None`: the latest first.
        among: selects the ids of all that can pass, and perhaps of more; `None`: it is not known.
    """
    by = order or _LATEST_FIRST
    within = in_range_among(path, subtree, among)
    return Sql(
        f"SELECT path, key, {ROW} FROM items WHERE id IN (SELECT id FROM items"
        f" WHERE {within.text} AND {LIVE} AND {condition.text}"
        f" ORDER BY {by.text} LIMIT +? OFFSET +?) ORDER BY {by.text}",
        (*within.params, now, *condition.params, *by.params, limit, offset, *by.params),
    )


_LATEST_FIRST = Sql("version DESC")


def select_few(
    path: str, condition: Sql, now: int, limit: int, offset: int, order: Sql | None = None
) -> Sql:
    """As `select_latest`, of a namespace whose values are few and short enough to be sorted."""
    by = order or _LATEST_FIRST
    return Sql(
        f"SELECT path, key, {ROW} FROM items WHERE path = ? AND {LIVE} AND {condition.text}"
        f" ORDER BY {by.text} LIMIT +? OFFSET +?",
        (path, now, *condition.params, *by.params, limit, offset),
    )


def has_more(selected: Sql, number: int) -> Sql:
    """Give a row if something selects more than a number of them."""
    return Sql.of("SELECT 1 FROM (?) LIMIT 1 OFFSET +?", selected, number)


def select_page(span: Span, condition: Sql, now: int, limit: int) -> Sql:
    """Select the first rows of a span; a row that does not pass the condition has no value."""
    return Sql.of(
        f"SELECT path, key, CASE WHEN ? THEN CAST(value AS BLOB) END, {REST} FROM items"
        f" WHERE ? AND ? AND {LIVE} ?",
        *(condition, in_span(span), key_matches(span.pattern), now, in_order(span, limit)),
    )


def select_records(span: Span, now: int, limit: int) -> Sql:
    """Select the first rows of a span with all that they hold, whatever their keys."""
    return Sql.of(
        f"SELECT path, key, {ROW}, ttl, indexing FROM items WHERE ? AND {LIVE} ?",
        *(in_span(span), now, in_order(span, limit)),
    )

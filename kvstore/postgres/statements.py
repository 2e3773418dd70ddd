"""Every SQL statement of items and changes, with the index each expects.

Expired rows are hidden by `LIVE` in every read; the sweep only frees their space. The instant
comes in as a parameter, from the store's clock, in microseconds. `items` is the alias of
kvstore_items everywhere.

Arrays of parameters come through `unnest`, joined LATERAL with a fence (LIMIT 1, OFFSET 0): so
each row is looked up by the primary key, whatever the planner believes the table to hold.
"""

from __future__ import annotations

from kvstore.backend import Span
from kvstore.namespace import subtree_range
from kvstore.patterns import Pattern
from kvstore.postgres.globs import regex_of
from kvstore.postgres.keys import encode_key, root_of
from kvstore.sql import TRUE, Sql, all_of

LIVE = "(items.expires_at IS NULL OR items.expires_at > ?)"
_LIVE = LIVE.replace("?", "{}").format

ADDRESS = "items.path, items.key"
ROW = "items.value, items.version, items.created_at, items.updated_at, items.expires_at"

# The primary key
GET = f"""
SELECT {ROW}
FROM kvstore_items AS items
WHERE items.root = $1 AND items.path = $2 AND items.key = $3 AND {_LIVE("$4")}
"""

# The primary key, once for each key
GET_MANY = f"""
SELECT {ADDRESS}, {ROW}
FROM unnest($3::text[]) AS wanted (key)
CROSS JOIN LATERAL (
    SELECT * FROM kvstore_items AS items
    WHERE items.root = $1 AND items.path = $2 AND items.key = wanted.key AND {_LIVE("$4")}
    LIMIT 1
) AS items
"""

# The primary key, once for each address
GET_POINTS = f"""
SELECT wanted.number, {ROW}
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY
    AS wanted (root, path, key, number)
CROSS JOIN LATERAL (
    SELECT * FROM kvstore_items AS items
    WHERE items.root = wanted.root AND items.path = wanted.path AND items.key = wanted.key
        AND {_LIVE("$4")}
    LIMIT 1
) AS items
"""

# The primary key, once for each address; of expired rows, too
GET_BY_ADDRESS = f"""
SELECT {ADDRESS}, {ROW}
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (root, path, key)
CROSS JOIN LATERAL (
    SELECT * FROM kvstore_items AS items
    WHERE items.root = wanted.root AND items.path = wanted.path AND items.key = wanted.key
    LIMIT 1
) AS items
"""

# The primary key, backwards
GET_BEFORE = f"""
SELECT wanted.number, {ADDRESS}, {ROW}
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS wanted (root, path, key, number)
CROSS JOIN LATERAL (
    SELECT * FROM kvstore_items AS items
    WHERE items.root = wanted.root AND items.path = wanted.path AND items.key < wanted.key
        AND (items.expires_at IS NULL OR items.expires_at > $4)
    ORDER BY items.key DESC
    LIMIT 1
) AS items
"""

# As GET_BY_ADDRESS; values only where they are asked for
_STATES = f"""
SELECT {ADDRESS}, items.version, items.created_at, items.updated_at, items.expires_at, items.ttl,
    items.indexing, CASE WHEN wanted.with_value THEN items.value END AS value
FROM unnest($1::text[], $2::text[], $3::text[], $4::bool[]) AS wanted (root, path, key, with_value)
CROSS JOIN LATERAL (
    SELECT * FROM kvstore_items AS items
    WHERE items.root = wanted.root AND items.path = wanted.path AND items.key = wanted.key
    LIMIT 1
) AS items
"""
GET_STATES = _STATES
# With the store's state as of the same instant; a row without an item if there is none
GET_STATES_UNLOCKED = f"""
SELECT state.version, state.watched_until, state.changes_begin, state.index, state.turn, items.*
FROM kvstore_state AS state
LEFT JOIN LATERAL ({_STATES}) AS items ON TRUE
WHERE state.id = 1
"""

# The one row of the store's state. Who has locked it writes alone, until the transaction ends.
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
LOCK_STATE = """
SELECT version, watched_until, changes_begin, index, turn, pg_current_xact_id()::text
FROM kvstore_state
WHERE id = 1
FOR UPDATE
"""
GET_OUTCOME = "SELECT pg_xact_status($1::text::xid8)"
GET_XID = "SELECT pg_current_xact_id()::text"
END_BACKEND = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2
"""
GET_TURN = "SELECT turn FROM kvstore_state WHERE id = 1"
GET_STATE = "SELECT version, watched_until, changes_begin, index FROM kvstore_state WHERE id = 1"
# Whoever writes changes `turn`, whatever he writes: see WRITE_UNLOCKED.
SET_VERSION = "UPDATE kvstore_state SET version = {version}, turn = turn + 1 WHERE id = 1;"
# In a transaction of its own: a NOTIFY locks the whole database until its commit is done.
# Whose it is goes along: a store has told its own watches already.
NOTIFY = """SET LOCAL synchronous_commit = off; NOTIFY "{channel}", '{sender}'"""
SET_WATCHED_UNTIL = "UPDATE kvstore_state SET watched_until = $1, turn = turn + 1 WHERE id = 1"
SET_CHANGES_BEGIN = "UPDATE kvstore_state SET changes_begin = $1, turn = turn + 1 WHERE id = 1"

# Everything that plain puts need, in one statement and so in one round trip: it locks the state,
# takes the versions, and upserts. It does nothing while somebody watches or there is an index.
# An expired row is replaced as if it were not there.
_PUT = """
WITH counter AS (
    UPDATE kvstore_state SET version = version + {count}, turn = turn + 1
    WHERE id = 1 AND watched_until = 0 AND index IS NULL
    RETURNING version - {count} AS base
), stored AS (
    INSERT INTO kvstore_items AS items (
        root, path, key, version, created_at, updated_at, value{columns}
    )
    SELECT {root}, put.path, put.key, counter.base + put.number, {now}, {now}, put.value{values}
    FROM counter, {puts}
    ON CONFLICT (root, path, key) DO UPDATE SET
        version = excluded.version,
        created_at = CASE
            WHEN items.expires_at <= excluded.updated_at THEN excluded.created_at
            ELSE items.created_at
        END,
        updated_at = excluded.updated_at,
        value = excluded.value,
        expires_at = excluded.expires_at,
        ttl = excluded.ttl,
        indexing = excluded.indexing
    RETURNING items.version, items.created_at, items.updated_at
)
"""
# Of items without lifetime or indexing of their own, no two the same. The columns come as texts,
# each value after a separator: the driver takes ten times as long for an array. The separator is
# escaped in all of them.
SEPARATOR = "\x01"
PUT_PLAIN = (
    _PUT.format(
        count="$4",
        now="$5",
        columns="",
        values="",
        root="left(put.path, strpos(put.path, E'\\t'))",
        puts="""unnest(
        (string_to_array($1, E'\\x01'))[2:],
        (string_to_array($2, E'\\x01'))[2:],
        (string_to_array($3, E'\\x01'))[2:]
    ) WITH ORDINALITY AS put (path, key, value, number)""",
    )
    + """
SELECT max(version), array_agg(created_at ORDER BY version), array_agg(updated_at ORDER BY version)
FROM stored
"""
)
PUT_ANY = (
    _PUT.format(
        count="$9",
        now="$10",
        columns=", expires_at, ttl, indexing",
        values=", put.expires_at, put.ttl, put.indexing",
        root="put.root",
        puts="""unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
        $8::text[]
    ) AS put (root, path, key, value, number, expires_at, ttl, indexing)""",
    )
    + """
SELECT version, created_at, updated_at
FROM stored
"""
)

# The primary key
_UPSERT = """
INSERT INTO kvstore_items (
    root, path, key, version, created_at, updated_at, value, expires_at, ttl, indexing
)
SELECT written.*
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
    $8::bigint[], $9::bigint[], $10::text[]
) AS written{mine}
ON CONFLICT (root, path, key) DO UPDATE SET
    version = excluded.version,
    created_at = excluded.created_at,
    updated_at = excluded.updated_at,
    value = excluded.value,
    expires_at = excluded.expires_at,
    ttl = excluded.ttl,
    indexing = excluded.indexing
"""
_DELETE = """
DELETE FROM kvstore_items AS items
USING unnest({roots}::text[], {paths}::text[], {keys}::text[]) AS gone (root, path, key){mine}
WHERE items.root = gone.root AND items.path = gone.path AND items.key = gone.key
"""
_TOUCH = """
UPDATE kvstore_items AS items
SET expires_at = touched.expires_at, ttl = touched.ttl
FROM unnest(
    {roots}::text[], {paths}::text[], {keys}::text[], {expiries}::bigint[], {ttls}::bigint[]
) AS touched (root, path, key, expires_at, ttl){mine}
WHERE items.root = touched.root AND items.path = touched.path AND items.key = touched.key
"""
UPSERT = _UPSERT.format(mine="")
DELETE = _DELETE.format(roots="$1", paths="$2", keys="$3", mine="")
TOUCH = _TOUCH.format(roots="$1", paths="$2", keys="$3", expiries="$4", ttls="$5", mine="")

# All three in one statement, which takes effect if nobody has written since the state was read:
# $19 is the turn of then, $20 another one, $21 the store's new version. The rows that it writes,
# deletes and touches are not the same.
_MINE = ", mine"
_RENEWAL = _TOUCH.format(
    roots="$14", paths="$15", keys="$16", expiries="$17", ttls="$18", mine=_MINE
)
WRITE_UNLOCKED = f"""
WITH mine AS (
    UPDATE kvstore_state SET version = $21, turn = $20 WHERE id = 1 AND turn = $19 RETURNING id
), upsert AS ({_UPSERT.format(mine=_MINE)}
), deletion AS ({_DELETE.format(roots="$11", paths="$12", keys="$13", mine=_MINE)}
), renewal AS ({_RENEWAL}
)
SELECT count(*) FROM mine
"""

# The partial index kvstore_items_expiry, then the primary key
SWEEP = """
DELETE FROM kvstore_items AS items
WHERE (items.root, items.path, items.key) IN (
    SELECT expired.root, expired.path, expired.key
    FROM kvstore_items AS expired
    WHERE expired.expires_at <= $1
    ORDER BY expired.expires_at
    LIMIT $2
)
RETURNING items.path, items.key
"""

# The change feed, by its primary key
ADD_CHANGES = """
INSERT INTO kvstore_changes (version, kind, path, key, at)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[])
"""
GET_LAST_CHANGE = "SELECT max(version) FROM kvstore_changes"
GET_OLDEST_CHANGES = "SELECT version, at FROM kvstore_changes ORDER BY version LIMIT $1"
DELETE_CHANGES = "DELETE FROM kvstore_changes WHERE version <= $1"

# The state and the next changes, as of one instant; a row without a change if there is none. For
# the length, the primary key; for the rest the partial index kvstore_items_expiry
READ_CHANGES = """
SELECT state.watched_until, state.changes_begin,
    EXISTS (SELECT 1 FROM kvstore_items WHERE expires_at <= $3),
    changes.version, changes.kind, changes.path, changes.key, changes.size, changes.at
FROM kvstore_state AS state
LEFT JOIN LATERAL (
    SELECT changes.version, changes.kind, changes.path, changes.key, changes.at,
        (
            SELECT octet_length(items.value) FROM kvstore_items AS items
            WHERE items.root = left(changes.path, strpos(changes.path, E'\\t'))
                AND items.path = changes.path AND items.key = changes.key
        ) AS size
    FROM kvstore_changes AS changes
    WHERE changes.version > $1
    ORDER BY changes.version
    LIMIT $2
) AS changes ON TRUE
WHERE state.id = 1
ORDER BY changes.version
"""

# The whole table
COUNT_ROWS = "SELECT count(*) FROM kvstore_items"
MEASURE = f"""
SELECT items.root, count(*), count(DISTINCT items.path), sum(octet_length(items.value))
FROM kvstore_items AS items
WHERE {_LIVE("$1")}
GROUP BY items.root
ORDER BY items.root
"""
COUNT_REST = """
SELECT
    (SELECT count(*) FROM kvstore_items WHERE expires_at <= $1),
    (SELECT count(*) FROM kvstore_changes),
    pg_total_relation_size('kvstore_items'::regclass)
    + pg_total_relation_size('kvstore_changes'::regclass)
"""
GET_SIZE = """
SELECT pg_total_relation_size('kvstore_items'::regclass)
    + pg_total_relation_size('kvstore_changes'::regclass)
"""


def in_range(path: str, subtree: bool) -> Sql:
    """Lie in a namespace or its subtree: one range of the primary key."""
    root = root_of(path)
    if not subtree:
        return Sql("items.root = ? AND items.path = ?", (root, path))
    low, high = subtree_range(path)
    if high is None:
        return TRUE
    if path == root:
        return Sql("items.root = ?", (root,))
    return Sql("items.root = ? AND items.path >= ? AND items.path < ?", (root, low, high))


def key_matches(pattern: Pattern) -> tuple[Sql, bool]:
    """Match a pattern: a range of the primary key for its literal head, a regex for the rest.

    Returns:
        The condition, and whether it is exact; else it lets pass some that do not match.
    """
    if pattern.matches_all:
        return TRUE, True
    if pattern.literal is not None:
        return Sql("items.key = ?", (encode_key(pattern.literal),)), True
    parts = []
    if pattern.head:
        parts.append(Sql("items.key >= ?", (encode_key(pattern.head),)))
        if pattern.after_head is not None:
            parts.append(Sql("items.key < ?", (encode_key(pattern.after_head),)))
    is_exact = True
    if pattern.text != pattern.head + "*":
        regex = regex_of(pattern.text)
        is_exact = regex is not None
        if regex is not None:
            parts.append(Sql("items.key ~ ?", (regex,)))
    return all_of(parts), is_exact


def live(now: int) -> Sql:
    """Be there at an instant."""
    return Sql(LIVE, (now,))


# A skip scan: each step jumps to the least path above the one before, by the primary key
_DISTINCT_PATHS = """
WITH RECURSIVE namespaces (root, path) AS (
    (
        SELECT items.root, items.path FROM kvstore_items AS items
        WHERE {range}
        ORDER BY items.root, items.path LIMIT 1
    )
    UNION ALL
    SELECT following.root, following.path
    FROM namespaces CROSS JOIN LATERAL (
        SELECT items.root, items.path FROM kvstore_items AS items
        WHERE (items.root, items.path) > (namespaces.root, namespaces.path) AND {range}
        ORDER BY items.root, items.path LIMIT 1
    ) AS following
)
"""


def distinct_paths(path: str) -> Sql:
    """Begin a statement with `namespaces`, the roots and paths in a subtree."""
    within = in_range(path, subtree=True)
    return Sql(_DISTINCT_PATHS.format(range=within.text), within.params * 2)


def list_paths(path: str, now: int) -> Sql:
    """List the paths in a subtree that hold live items, sorted: costs by their number."""
    return distinct_paths(path) + Sql(
        f"""
SELECT path FROM namespaces
WHERE EXISTS (
    SELECT 1 FROM kvstore_items AS items
    WHERE items.root = namespaces.root AND items.path = namespaces.path AND {LIVE}
)
ORDER BY root, path
""",
        (now,),
    )


def first_live_path(low: str, within: str, now: int) -> Sql:
    """Find the least path from `low` on, in the subtree of `within`, that holds a live item."""
    root = root_of(low) or low  # a text between two roots has no label
    return (
        Sql("SELECT items.path FROM kvstore_items AS items WHERE (items.root, items.path) >=")
        + Sql("(?, ?) AND", (root, low))
        + in_range(within, subtree=True)
        + Sql(f"AND {LIVE} ORDER BY items.root, items.path LIMIT 1", (now,))
    )


def matching(columns: str, path: str, subtree: bool, condition: Sql, *, by_namespace: bool) -> Sql:
    """Select from the items of a namespace or subtree that meet a condition.

    Args:
        columns: what to select.
        path: of the namespace.
        subtree: whether its subtree is meant.
        condition: on an item.
        by_namespace: search a subtree namespace by namespace, so that the cost is by what
            matches and not by what the subtree holds: for a condition on a range of keys.
    """
    if not (subtree and by_namespace):
        within = in_range(path, subtree)
        return Sql(f"SELECT {columns} FROM kvstore_items AS items WHERE") + all_of(
            [within, condition]
        )
    return (
        distinct_paths(path)
        + Sql(f"SELECT {columns} FROM namespaces CROSS JOIN LATERAL (")
        + Sql("SELECT * FROM kvstore_items AS items")
        + Sql("WHERE items.root = namespaces.root AND items.path = namespaces.path AND")
        + condition
        + Sql("OFFSET 0) AS items")
    )


def select_addresses(span: Span, now: int, limit: int | None) -> tuple[Sql, bool]:
    """Select the addresses of a span's items, in its order; and whether that is exact.

    If not, there is no limit.
    """
    condition, is_exact = key_matches(span.pattern)
    conditions = all_of([condition, live(now), _between(span)])
    by_namespace = bool(span.pattern.head) and span.bounds == (None, None)
    found = matching(ADDRESS, span.path, span.subtree, conditions, by_namespace=by_namespace)
    ordered = found + _in_order(span)
    if is_exact and limit is not None:
        ordered += Sql("LIMIT ?", (limit,))
    return ordered, is_exact


def _between(span: Span) -> Sql:
    """Lie between the bounds of a span: a range of the primary key."""
    after, before = span.bounds
    parts = [
        Sql(f"(items.root, items.path, items.key) {sign} (?, ?, ?)", place)
        for sign, bound in ((">", after), ("<", before))
        if bound is not None
        for place in ((root_of(bound[0]), bound[0], encode_key(bound[1])),)
    ]
    return all_of(parts) if parts else TRUE


def _in_order(span: Span) -> Sql:
    down = " DESC" if span.reverse else ""
    return Sql(f"ORDER BY items.root{down}, items.path{down}, items.key{down}")


def count(path: str, subtree: bool, pattern: Pattern, now: int) -> Sql | None:
    """Count the matching items, or `None` if SQL cannot."""
    condition, is_exact = key_matches(pattern)
    if not is_exact:
        return None
    return matching(
        "count(*)", path, subtree, all_of([condition, live(now)]), by_namespace=bool(pattern.head)
    )


def delete_range(path: str, subtree: bool, pattern: Pattern, now: int) -> Sql | None:
    """Delete the matching items, or `None` if they are better looked up first."""
    condition, is_exact = key_matches(pattern)
    if not is_exact or (subtree and pattern.head):
        return None
    return Sql("DELETE FROM kvstore_items AS items WHERE") + all_of(
        [in_range(path, subtree), condition, live(now)]
    )


def select_latest(path: str, subtree: bool, condition: Sql, now: int) -> Sql:
    """Select the items that pass, latest first."""
    return (
        Sql(f"SELECT {ADDRESS}, {ROW} FROM kvstore_items AS items WHERE")
        + all_of([in_range(path, subtree), live(now), condition])
        + Sql("ORDER BY items.version DESC, items.root, items.path, items.key")
    )


def _above(path: str, subtree: bool, after: tuple[str, str] | None) -> Sql:
    within = in_range(path, subtree)
    if after is None:
        return within
    place = (root_of(after[0]), *after)
    return all_of([Sql("(items.root, items.path, items.key) > (?, ?, ?)", place), within])


def select_page(span: Span, keys: Sql, condition: Sql, now: int, limit: int) -> Sql:
    """Select the first rows of a span; a row that does not pass the condition has no value."""
    rest = ROW.removeprefix("items.value, ")
    return (
        Sql(f"SELECT {ADDRESS}, CASE WHEN")
        + condition
        + Sql(f"THEN items.value END, {rest} FROM kvstore_items AS items WHERE")
        + all_of([_between(span), in_range(span.path, span.subtree), keys, live(now)])
        + _in_order(span)
        + Sql("LIMIT ?", (limit,))
    )


def select_records(path: str, now: int, after: tuple[str, str] | None, limit: int) -> Sql:
    """Select the next rows of a subtree with all that they hold, in order."""
    return (
        Sql(f"SELECT {ADDRESS}, {ROW}, items.ttl, items.indexing")
        + Sql("FROM kvstore_items AS items WHERE")
        + all_of([_above(path, True, after), live(now)])
        + Sql("ORDER BY items.root, items.path, items.key LIMIT ?", (limit,))
    )


def check_rows(after: tuple[str, str, str] | None, limit: int) -> Sql:
    """Select the next rows of all there are, live or not, with all that they hold."""
    above = TRUE
    if after is not None:
        above = Sql("(items.root, items.path, items.key) > (?, ?, ?)", after)
    return (
        Sql(f"SELECT items.root, {ADDRESS}, {ROW}, items.ttl, items.indexing")
        + Sql("FROM kvstore_items AS items WHERE")
        + above
        + Sql("ORDER BY items.root, items.path, items.key LIMIT ?", (limit,))
    )

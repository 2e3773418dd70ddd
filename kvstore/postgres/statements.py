"""Every SQL statement of items and changes, with the index each expects.

Expired rows are hidden by `LIVE` in every read; the sweep only frees their space. The instant
comes in as a parameter, from the store's clock, in microseconds. `items` is the alias of
kvstore_items everywhere.

Arrays of parameters come through `unnest`, joined LATERAL with a fence (LIMIT 1, OFFSET 0): so
each row is looked up by the primary key, whatever the planner believes the table to hold.
"""

from __future__ import annotations

from functools import cache
from itertools import count as counter

from kvstore.backend import Span
from kvstore.namespace import subtree_range
from kvstore.patterns import EVERY_KEY, Pattern
from kvstore.postgres.keys import encode_key, regex_of, root_of
from kvstore.sql import TRUE, Sql, all_of

_LOCK = 0x6B767374  # "kvst"
LIVE = "(items.expires_at IS NULL OR items.expires_at > ?)"
live_at = LIVE.replace("?", "{}").format

ADDRESS = "items.path, items.key"
ROW = "items.value, items.version, items.created_at, items.updated_at, items.expires_at"

# The primary key
GET = f"""
SELECT {ROW}
FROM kvstore_items AS items
WHERE items.root = $1 AND items.path = $2 AND items.key = $3 AND {live_at("$4")}
"""

# The primary key, once for each key
GET_MANY = f"""
SELECT {ADDRESS}, {ROW}
FROM unnest($3::text[]) AS wanted (key)
CROSS JOIN LATERAL (
    SELECT * FROM kvstore_items AS items
    WHERE items.root = $1 AND items.path = $2 AND items.key = wanted.key AND {live_at("$4")}
    LIMIT 1
) AS items
"""

# Those of several roots at once, and those of one, which engines that hash rows over machines send
# to one of them. The primary key, once for each address
WANTED = """
    unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS wanted (root, path, key, number)
"""
WANTED_UNDER = "unnest($2::text[], $3::text[]) WITH ORDINALITY AS wanted (path, key, number)"
_GET_POINTS = f"""
SELECT wanted.number, {ROW}
FROM {{wanted}}
CROSS JOIN LATERAL (
    SELECT * FROM kvstore_items AS items
    WHERE items.root = {{root}} AND items.path = wanted.path AND items.key = wanted.key
        AND {live_at("$4")}
    LIMIT 1
) AS items
""".format
GET_POINTS = _GET_POINTS(wanted=WANTED, root="wanted.root")
GET_POINTS_UNDER = _GET_POINTS(wanted=WANTED_UNDER, root="$1")

# The primary key, backwards
_GET_BEFORE = f"""
SELECT wanted.number, {ADDRESS}, {ROW}
FROM {{wanted}}
CROSS JOIN LATERAL (
    SELECT * FROM kvstore_items AS items
    WHERE items.root = {{root}} AND items.path = wanted.path AND items.key < wanted.key
        AND (items.expires_at IS NULL OR items.expires_at > $4)
    ORDER BY items.key DESC
    LIMIT 1
) AS items
""".format
GET_BEFORE = _GET_BEFORE(wanted=WANTED, root="wanted.root")
GET_BEFORE_UNDER = _GET_BEFORE(wanted=WANTED_UNDER, root="$1")

# The rows that operations name under one root, values only where they are asked for: the primary
# key, once for each
_NAMED = "unnest($2::text[], $3::text[], $4::bool[]) AS wanted (path, key, with_value)"
_STATE_COLUMNS = """
    wanted.path, wanted.key, items.version, items.created_at, items.updated_at, items.expires_at,
    items.ttl, items.indexing, CASE WHEN wanted.with_value THEN items.value END AS value
"""
_BESIDE = """
LEFT JOIN LATERAL (
    SELECT * FROM {table} AS {name}
    WHERE {name}.root = $1 AND {name}.path = wanted.path AND {name}.key = wanted.key
    LIMIT 1
) AS {name} ON TRUE
""".format
_ITEMS = _BESIDE(table="kvstore_items", name="items")
_INDEXED = (
    _BESIDE(table="kvstore_entries", name="entries")
    + _BESIDE(table="kvstore_facts", name="facts")
    + _BESIDE(table="kvstore_pending", name="pending")
)
_INDEX_COLUMNS = ", entries.texts, facts.facts, pending.root IS NOT NULL"
GET_STATES = f"SELECT {_STATE_COLUMNS} FROM {_NAMED} {_ITEMS}"
GET_INDEXED_STATES = f"SELECT {_STATE_COLUMNS} {_INDEX_COLUMNS} FROM {_NAMED} {_ITEMS} {_INDEXED}"

# A root, and with it what operations name, as of one instant; no row if there is no such root
_ROOT = """
    turns.version, turns.turn, roots.watched_until, roots.changes_begin, turns.recorded,
    roots.index, roots.has_sequences, roots.history
"""
TURN = """
JOIN kvstore_turns AS turns ON turns.root = $1 AND turns.era = roots.era
"""
_LOOK = f"""
SELECT {_ROOT}, {_STATE_COLUMNS} {{more}}
FROM kvstore_roots AS roots {TURN} LEFT JOIN {_NAMED} ON TRUE {_ITEMS} {{beside}}
WHERE roots.root = $1
"""
LOOK = _LOOK.format(more="", beside="")
LOOK_INDEXED = _LOOK.format(more=_INDEX_COLUMNS, beside=_INDEXED)
GET_ROOT = f"SELECT {_ROOT} FROM kvstore_roots AS roots {TURN} WHERE roots.root = $1"
LOCK_ROOT = "SELECT 1 FROM kvstore_roots WHERE root = $1 FOR NO KEY UPDATE"
# New roots begin as the store's own row says. Who has changed it waits, with the second, until
# those that are being made meanwhile are there.
BEGIN_ROOT = "SELECT * FROM kvstore_begin($1)"
AWAIT_ROOTS = f"""
SELECT pg_catalog.pg_advisory_xact_lock(
    {_LOCK}, ('kvstore_state'::regclass)::oid::integer
)
"""
# The same on every machine
AWAIT_ROOTS_OF_ALL = "SELECT bool_and(success) FROM run_command_on_all_nodes($1)"
GET_STATE = "SELECT version, watched_until, index FROM kvstore_state WHERE id = 1"
LOCK_STATE = f"{GET_STATE} FOR UPDATE"
SET_INDEX = "UPDATE kvstore_state SET index = $1 WHERE id = 1"
SET_WATCHED_UNTIL = "UPDATE kvstore_state SET watched_until = $1 WHERE id = 1"
# What is the whole store's is looked after by those who may: not by the role of one root
MAY_LOOK_AFTER_ALL = """
SELECT pg_catalog.has_column_privilege('kvstore_state'::regclass, 'watched_until', 'UPDATE')
"""
ADVANCE = """
SELECT * FROM kvstore_advance($1, NULL, NULL, NULL, $2, $3, false, 0, $4, NULL, NULL, NULL)
"""
ADVANCE_PUTS = """
SELECT * FROM kvstore_advance($1, NULL, $2, $3, NULL, $4, false, 0, 0, $5, $6, $7)
"""
# The primary key: one range, of a namespace
IS_ANY_BETWEEN = """
SELECT EXISTS (
    SELECT 1 FROM kvstore_items AS items
    WHERE items.root = $1 AND items.path = $2 AND items.key BETWEEN $3 AND $4
)
"""
# The primary key, once for each; whose columns come as texts, each value after a separator. With a
# condition on the root the planner goes over all of it for each, where it believes it small
_DELETE_PRESENT = """
DELETE FROM kvstore_items AS items
WHERE {within} items.ctid = ANY (ARRAY(
    SELECT present.ctid
    FROM unnest(
        (string_to_array($2, E'\\x01'))[2:], (string_to_array($3, E'\\x01'))[2:]
    ) AS gone (path, key)
    CROSS JOIN LATERAL (
        SELECT here.ctid FROM kvstore_items AS here
        WHERE here.root = $1 AND here.path = gone.path AND here.key = gone.key
        LIMIT 1
    ) AS present
))
RETURNING items.path, items.key, items.created_at, items.expires_at
""".format
DELETE_PRESENT = _DELETE_PRESENT(within="")
DELETE_PRESENT_UNDER = _DELETE_PRESENT(within="items.root = $1 AND")
# Whether this role sees only some of the rows
HAS_ROW_SECURITY = "SELECT pg_catalog.row_security_active('kvstore_items'::regclass)"
INSERT = """
INSERT INTO kvstore_items (
    root, path, key, version, created_at, updated_at, value, expires_at, ttl, indexing
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
# All roots: the whole table
GET_NEWEST = "SELECT max(version) FROM kvstore_turns"
LIST_ROOTS = "SELECT root, version FROM kvstore_turns ORDER BY root"
# Those whose words, if they have any, are of an older revision
LIST_ROOTS_BY_WORDS = """
SELECT root FROM kvstore_roots
WHERE index IS NULL OR (index::json ->> 'words')::integer < $1 ORDER BY root
"""
# Those with a feed to look after: with an end to their recording, or with changes that are kept
LIST_RECORDED = """
SELECT roots.root FROM kvstore_roots AS roots JOIN kvstore_turns AS turns USING (root)
WHERE roots.watched_until <> 0 OR turns.recorded > roots.changes_begin
ORDER BY roots.root
"""

# Whoever makes or changes tables does so alone
LOCK_TABLES = f"SELECT pg_catalog.pg_advisory_xact_lock({_LOCK})"
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
# Where the session plans its statements once: whose plans depend on how much they find
BEGIN_PLANNED = f"{BEGIN}; SET LOCAL plan_cache_mode = auto; SET LOCAL enable_seqscan = on"
# In a transaction of its own: a NOTIFY locks the whole database until its commit is done.
# Whose it is goes along: a store has told its own watches already.
NOTIFY = """SET LOCAL synchronous_commit = off; NOTIFY "{channel}", '{sender}'"""

# What writes: one call each, which locks the root first, and makes it if it is not there. See
# migrations/postgres/0004_roots.sql, 0007_calls.sql, 0009_put_one.sql, 0011_by_key.sql and
# 0012_put_words.sql; and 0014_put_roots.sql, which does so under those of several roots that nobody
# has locked.
SEPARATOR = "\x01"
PUT_ONE = "SELECT kvstore_put_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
PUT_WORDS = """
SELECT kvstore_put_words($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
"""
PUT = "SELECT * FROM kvstore_put($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
PUT_SOON = """
SELECT * FROM kvstore_put_soon($1, $14, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""
PUT_ROOTS = """
SELECT root, number, version, created_at, is_watched
FROM kvstore_put_roots($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""
_WRITTEN = 44  # arguments of kvstore_write
_KEPT = 13  # columns of what is kept of the past
_SEQUENCES = 22  # of what has changed of logs and queues
WRITE = f"SELECT * FROM kvstore_write({', '.join(f'${at}' for at in range(1, _WRITTEN + 1))})"
DONE_BEFORE, NOT_PLAIN = "KV002", "KV003"  # what these raise
MOST_WRITERS = 64  # whose last transactions a root remembers
GET_WRITERS = f"""
SELECT turns.writers, turns.numbers, turns.bases
FROM kvstore_roots AS roots {TURN}
WHERE roots.root = $1
"""

# The partial index kvstore_items_expiry
FIND_EXPIRED = """
SELECT items.root, items.path, items.key
FROM kvstore_items AS items
WHERE items.expires_at <= $1
ORDER BY items.expires_at
LIMIT $2
"""

FIND_EXPIRED_UNDER = """
SELECT items.path, items.key FROM kvstore_items AS items
WHERE items.root = $1 AND items.expires_at <= $2
"""

# The change feed, by its primary key
RECORD = "SELECT version, changes_begin FROM kvstore_record($1, $2)"
KEEP_RECORD = """
UPDATE kvstore_roots SET watched_until = $2, changes_begin = $3 WHERE root = $1
"""
GET_OLDEST_CHANGES = """
SELECT version, at FROM kvstore_changes WHERE root = $1 ORDER BY version LIMIT $2
"""
DELETE_CHANGES = "DELETE FROM kvstore_changes WHERE root = $1 AND version <= $2"
IS_ANY_EXPIRED = "SELECT EXISTS (SELECT 1 FROM kvstore_items WHERE expires_at <= $1)"
LIST_FEEDS = """
SELECT root, turns.version, roots.watched_until, roots.changes_begin
FROM kvstore_roots AS roots JOIN kvstore_turns AS turns USING (root)
"""

# A root and the next changes under it, with the items as they are, as of one instant; a row
# without a change if there is none. The primary keys of both
READ_CHANGES = f"""
SELECT roots.watched_until, roots.changes_begin, roots.history, changes.*
FROM kvstore_roots AS roots
LEFT JOIN (
    SELECT changes.version AS changed, changes.kind, changes.path, changes.key, changes.at, {ROW},
        sum(coalesce(octet_length(items.value), 0)) OVER (ORDER BY changes.version) AS size
    FROM (
        SELECT * FROM kvstore_changes AS changes
        WHERE changes.root = $1 AND changes.version > $2
        ORDER BY changes.version
        LIMIT $3
    ) AS changes
    LEFT JOIN LATERAL (
        SELECT * FROM kvstore_items AS items
        WHERE items.root = $1 AND items.path = changes.path AND items.key = changes.key
        LIMIT 1
    ) AS items ON changes.kind = 'put'
) AS changes ON changes.size - coalesce(octet_length(changes.value), 0) < $4
WHERE roots.root = $1
ORDER BY changes.changed
"""

FIND_FEEDS_AHEAD = """
SELECT roots.root
FROM kvstore_roots AS roots
JOIN kvstore_turns AS turns USING (root)
LEFT JOIN (
    SELECT root, max(version) AS version FROM kvstore_changes GROUP BY root
) AS feed USING (root)
WHERE roots.changes_begin > turns.version OR feed.version > turns.version
LIMIT 100
"""

# The whole table
COUNT_ROWS = "SELECT count(*) FROM kvstore_items"
MEASURE = f"""
SELECT items.root, count(*), count(DISTINCT items.path), sum(octet_length(items.value))
FROM kvstore_items AS items
WHERE {live_at("$1")}
GROUP BY items.root
ORDER BY items.root
"""
GET_SIZE = """
SELECT pg_total_relation_size('kvstore_items'::regclass)
    + pg_total_relation_size('kvstore_changes'::regclass)
    + pg_total_relation_size('kvstore_scalars'::regclass)
"""
COUNT_REST = f"""
SELECT
    (SELECT count(*) FROM kvstore_items WHERE expires_at <= $1),
    (SELECT count(*) FROM kvstore_changes),
    ({GET_SIZE})
"""

# The record of the steps that have made a schema what it is
HAS_SCHEMA_RECORD = """
SELECT EXISTS (
    SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'kvstore_schema'
)
"""
CREATE_SCHEMA_RECORD = """
CREATE TABLE kvstore_schema (
    number integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    needs integer NOT NULL DEFAULT 0
)
"""
# The last step, and the least that a program must know; tables of earlier versions have no such
# column, and a step that needs one adds it.
GET_APPLIED = """
SELECT max(record.number), max(coalesce((to_jsonb(record) ->> 'needs')::integer, 0))
FROM kvstore_schema AS record
"""
NOTE_STEP = "INSERT INTO kvstore_schema (number, name) VALUES ($1, $2)"
NOTE_NEEDS = "UPDATE kvstore_schema SET needs = $2 WHERE number = $1"


@cache
def one_call(*, keeps_past: bool, has_sequences: bool, patience: int | None) -> str:
    """Write what a transaction has come to under a root: the one statement for it.

    It is a call of `kvstore_write`. Where the past is kept, or logs or queues have changed, it is
    one of `kvstore_apply`, which does that as well: each part says whether the next may be done,
    and the first that locks the root finds out whether somebody has written meanwhile.

    It is nothing but a call, so that where roots are spread over machines it goes to the root's
    own, and is a transaction of that machine. Its arguments are those of `kvstore_write`, then
    those of the others.

    Args:
        keeps_past: with those of `kvstore_keep_past`, but for the root, its turn and the instant.
        has_sequences: with those of `kvstore_write_sequences`, but for the root.
        patience: how long to wait for others, in milliseconds, where the session does not know.
    """
    if patience is None and not (keeps_past or has_sequences):
        return WRITE
    numbers = counter(2)

    def places(size: int, is_given: bool = True) -> list[str]:
        return [f"${next(numbers)}" if is_given else "NULL" for _ in range(size)]

    limit = "NULL" if patience is None else str(patience)
    rest = *places(_WRITTEN - 1), *places(_KEPT, keeps_past), *places(_SEQUENCES, has_sequences)
    return f"SELECT * FROM kvstore_apply({', '.join(['$1', limit, *rest])})"


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
    holding = all_of([_in_found(path), live(now)])
    return distinct_paths(path) + Sql.of(
        "SELECT path FROM namespaces WHERE EXISTS (SELECT 1 FROM kvstore_items AS items WHERE ?)"
        " ORDER BY root, path",
        holding,
    )


def _in_found(path: str) -> Sql:
    """Lie in one of `namespaces`, which are in a subtree."""
    within = Sql("items.root = namespaces.root AND items.path = namespaces.path")
    return all_of([within, Sql("items.root = ?", (root_of(path),))]) if path else within


def scan_paths(now: int) -> Sql:
    """As `list_paths`, of all roots, wherever they are: costs by the items."""
    return Sql.of(
        "SELECT DISTINCT items.path, items.root FROM kvstore_items AS items WHERE ?"
        " ORDER BY items.root, items.path",
        live(now),
    )


def first_live_path(low: str, within: str, now: int, *, subtree: bool = True) -> Sql:
    """Find the least path from `low` on, in `within` or its subtree, that holds a live item."""
    root = root_of(low) or low  # a text between two roots has no label
    return Sql.of(
        "SELECT items.path FROM kvstore_items AS items WHERE (items.root, items.path) >= (?, ?)"
        " AND ? ORDER BY items.root, items.path LIMIT 1",
        *(root, low, all_of([in_range(within, subtree), live(now)])),
    )


def _matching(columns: str, path: str, subtree: bool, condition: Sql, *, by_namespace: bool) -> Sql:
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
        found = all_of([in_range(path, subtree), condition])
        return Sql.of(f"SELECT {columns} FROM kvstore_items AS items WHERE ?", found)
    return distinct_paths(path) + Sql.of(
        f"SELECT {columns} FROM namespaces CROSS JOIN LATERAL ("
        "SELECT * FROM kvstore_items AS items WHERE ? OFFSET 0) AS items",
        all_of([_in_found(path), condition]),
    )


def select_addresses(
    span: Span, now: int, limit: int | None, *, is_distributed: bool
) -> tuple[Sql, bool]:
    """Select the addresses of a span's items, in its order; and whether that is exact.

    If not, there is no limit.
    """
    condition, is_exact = key_matches(span.pattern)
    conditions = all_of([condition, live(now), between(span)])
    by_namespace = bool(span.pattern.head) and span.bounds == (None, None)
    by_namespace &= not is_distributed or bool(span.path)
    found = _matching(ADDRESS, span.path, span.subtree, conditions, by_namespace=by_namespace)
    ordered = found + _in_order(span)
    if is_exact and limit is not None:
        ordered += Sql("LIMIT ?", (limit,))
    return ordered, is_exact


def between(span: Span) -> Sql:
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


def count(
    path: str, subtree: bool, pattern: Pattern, now: int, *, is_distributed: bool
) -> Sql | None:
    """Count the matching items, or `None` if SQL cannot."""
    condition, is_exact = key_matches(pattern)
    if not is_exact:
        return None
    by_namespace = bool(pattern.head) and (not is_distributed or bool(path))
    conditions = all_of([condition, live(now)])
    return _matching("count(*)", path, subtree, conditions, by_namespace=by_namespace)


def delete_range(path: str, subtree: bool, pattern: Pattern, now: int) -> Sql | None:
    """Delete the matching items, or `None` if they are better looked up first."""
    condition, is_exact = key_matches(pattern)
    if not is_exact or (subtree and pattern.head):
        return None
    doomed = all_of([in_range(path, subtree), condition, live(now)])
    return Sql.of("DELETE FROM kvstore_items AS items WHERE ?", doomed)


def select_latest(path: str, subtree: bool, condition: Sql, now: int) -> Sql:
    """Select the items that pass, latest first."""
    return Sql.of(
        f"SELECT {ADDRESS}, {ROW} FROM kvstore_items AS items WHERE ?"
        " ORDER BY items.version DESC, items.root, items.path, items.key",
        all_of([in_range(path, subtree), live(now), condition]),
    )


def select_page(span: Span, keys: Sql, condition: Sql, now: int, limit: int) -> Sql:
    """Select the first rows of a span; a row that does not pass the condition has no value."""
    rest = ROW.removeprefix("items.value, ")
    found = all_of([between(span), in_range(span.path, span.subtree), keys, live(now)])
    return Sql.of(
        f"SELECT {ADDRESS}, CASE WHEN ? THEN items.value END, {rest}"
        " FROM kvstore_items AS items WHERE ? ? LIMIT ?",
        *(condition, found, _in_order(span), limit),
    )


def select_records(path: str, now: int, after: tuple[str, str] | None, limit: int) -> Sql:
    """Select the next rows of a subtree with all that they hold, in order."""
    span = Span(path, EVERY_KEY, True, after)
    return Sql.of(
        f"SELECT {ADDRESS}, {ROW}, items.ttl, items.indexing FROM kvstore_items AS items"
        " WHERE ? ? LIMIT ?",
        *(all_of([between(span), in_range(path, True), live(now)]), _in_order(span), limit),
    )


def check_rows(after: tuple[str, str, str] | None, limit: int) -> Sql:
    """Select the next rows of all there are, live or not, with all that they hold."""
    above = TRUE
    if after is not None:
        above = Sql("(items.root, items.path, items.key) > (?, ?, ?)", after)
    return Sql.of(
        f"SELECT items.root, {ADDRESS}, {ROW}, items.ttl, items.indexing"
        " FROM kvstore_items AS items WHERE ?"
        " ORDER BY items.root, items.path, items.key LIMIT ?",
        *(above, limit),
    )

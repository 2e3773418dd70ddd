"""The SQL statements of the past, with the index that each expects; each is about one root.

A value of the past that is NULL is that of the version after it: of the next row of its item in
kvstore_past that has one, or else of the item itself. One that is empty is forgotten.
"""

from __future__ import annotations

from kvstore.backend import Span
from kvstore.namespace import root_of
from kvstore.patterns import Pattern
from kvstore.postgres.statements import LIVE, TURN, between, in_range, key_matches, live_at
from kvstore.sql import Sql, all_of

_OWN = """{0}.version, {0}.created_at, {0}.updated_at, {0}.expires_at, {0}.ttl,
    {0}.indexing""".format
_ITEM = f"items.path, items.key, items.value, {_OWN('items')}"
_WHOLE = """coalesce(
    past.value,
    (
        SELECT later.value FROM kvstore_past AS later
        WHERE later.root = {0} AND later.path = past.path AND later.key = past.key
            AND later.version > past.version AND later.value IS NOT NULL
        ORDER BY later.version LIMIT 1
    ),
    (
        SELECT items.value FROM kvstore_items AS items
        WHERE items.root = {0} AND items.path = past.path AND items.key = past.key
    )
)""".format
_PAST = f"past.path, past.key, {_WHOLE('$1')}, {_OWN('past')}"
_PAST_LIVE = LIVE.replace("?", "{}").replace("items.", "past.").format

# The primary key of items, and kvstore_past_versions, once for each address
GET_AT = f"""
SELECT {_ITEM}
FROM unnest($2::text[], $3::text[]) AS wanted (path, key)
CROSS JOIN LATERAL (
    SELECT * FROM kvstore_items AS items
    WHERE items.root = $1 AND items.path = wanted.path AND items.key = wanted.key
    LIMIT 1
) AS items
WHERE items.version <= $4 AND {live_at("$5")}
UNION ALL
SELECT {_PAST}
FROM unnest($2::text[], $3::text[]) AS wanted (path, key)
CROSS JOIN LATERAL (
    SELECT * FROM kvstore_past AS past
    WHERE past.root = $1 AND past.path = wanted.path AND past.key = wanted.key
        AND past.version <= $4
    ORDER BY past.version DESC LIMIT 1
) AS past
WHERE past.ended > $4 AND {_PAST_LIVE("$5")} AND past.value IS DISTINCT FROM ''
"""
# The same, of which nothing is told but that they are forgotten
FIND_FORGOTTEN = """
SELECT past.path, past.key
FROM unnest($2::text[], $3::text[]) AS wanted (path, key)
CROSS JOIN LATERAL (
    SELECT * FROM kvstore_past AS past
    WHERE past.root = $1 AND past.path = wanted.path AND past.key = wanted.key
        AND past.version <= $4 AND past.ended > $4 AND past.value = ''
    OFFSET 0
) AS past
"""

# How much is kept under a root, and the instant of the first change after a version. The primary
# keys of roots and changes
_KEPT = """roots.history, roots.history_begin, roots.history_begin_at, turns.version, turns.instant,
    (
        SELECT changes.at FROM kvstore_changes AS changes
        WHERE changes.root = $1 AND changes.version > $2
        ORDER BY changes.version LIMIT 1
    )"""
_ROOT = f"FROM kvstore_roots AS roots {TURN}"
GET_KEPT = f"SELECT {_KEPT} {_ROOT} WHERE roots.root = $1"
# The same, and what was at one address; the indexes of both
GET_ONE_AT = f"""
SELECT {_KEPT}, found.*
{_ROOT}
LEFT JOIN LATERAL (
    SELECT {_ITEM}
    FROM kvstore_items AS items
    WHERE items.root = $1 AND items.path = $3 AND items.key = $4 AND items.version <= $2
        AND {live_at("$5")}
    UNION ALL
    SELECT {_PAST}
    FROM (
        SELECT * FROM kvstore_past AS past
        WHERE past.root = $1 AND past.path = $3 AND past.key = $4 AND past.version <= $2
        ORDER BY past.version DESC LIMIT 1
    ) AS past
    WHERE past.ended > $2 AND {_PAST_LIVE("$5")} AND past.value IS DISTINCT FROM ''
) AS found ON TRUE
WHERE roots.root = $1
"""
# The same of new roots
GET_STORE_KEPT = """
SELECT history, history_begin, history_begin_at, version FROM kvstore_state WHERE id = 1
"""
GET_INSTANT_OF = """
SELECT changes.at FROM kvstore_changes AS changes
WHERE changes.root = $1 AND changes.version <= $2
ORDER BY changes.version DESC LIMIT 1
"""
GET_INSTANT_OF_ALL = """
SELECT max(found.at)
FROM kvstore_roots AS roots
CROSS JOIN LATERAL (
    SELECT changes.at FROM kvstore_changes AS changes
    WHERE changes.root = roots.root AND changes.version <= $1
    ORDER BY changes.version DESC LIMIT 1
) AS found
"""
GET_NEWEST = "SELECT max(version), max(instant) FROM kvstore_turns"
# A version that is not kept, if the instant is before what is
GET_VERSION_BEFORE = """
SELECT history_begin - 1 FROM kvstore_roots WHERE root = $1 AND history_begin_at > $2
"""
# By itself: what reads a distributed table calls no function that does
GET_VERSION_AT = "SELECT kvstore_version_at($1, $2)"
LIST_ROOTS_FROM = "SELECT root FROM kvstore_roots WHERE root >= $1 ORDER BY root LIMIT $2"
LIST_ROOTS_BELOW = """
SELECT root FROM kvstore_roots
WHERE $1::text IS NULL OR root < $1
ORDER BY root DESC
LIMIT $2
"""

# The primary key of items; of an expired row, too
GET_PRESENT = f"""
SELECT {_ITEM},
    (
        SELECT changes.at FROM kvstore_changes AS changes
        WHERE changes.root = $1 AND changes.version = items.version
    )
FROM kvstore_items AS items
WHERE items.root = $1 AND items.path = $2 AND items.key = $3
"""
# kvstore_past_versions
GET_PAST_OF = f"""
SELECT {_PAST},
    (
        SELECT changes.at FROM kvstore_changes AS changes
        WHERE changes.root = $1 AND changes.version = past.version
    ),
    past.ended, past.ended_at, past.ended_by
FROM kvstore_past AS past
WHERE past.root = $1 AND past.path = $2 AND past.key = $3 AND past.value IS DISTINCT FROM ''
ORDER BY past.version DESC
LIMIT $4
"""
# kvstore_past_versions, once for each
GET_PUTS = f"""
SELECT {_PAST}
FROM unnest($2::text[], $3::text[], $4::bigint[]) AS wanted (path, key, version)
CROSS JOIN LATERAL (
    SELECT * FROM kvstore_past AS past
    WHERE past.root = $1 AND past.path = wanted.path AND past.key = wanted.key
        AND past.version = wanted.version AND past.value IS DISTINCT FROM ''
    OFFSET 0
) AS past
"""

# Keeping, trimming. The primary keys
KEEP_STORE = """
UPDATE kvstore_state SET
    history = CASE WHEN $1 > history OR history_until < $2 THEN $1 ELSE history END,
    history_until = CASE WHEN $1 >= history OR history_until < $2
        THEN $2::bigint + $1::bigint ELSE history_until END,
    history_begin = CASE WHEN history = 0 THEN version ELSE history_begin END,
    history_begin_at = CASE WHEN history = 0 THEN $2 ELSE history_begin_at END,
    watched_until = greatest(watched_until, $2::bigint + $1::bigint)
WHERE id = 1 AND (history < $1 OR history_until < $2::bigint + $1::bigint / 2)
"""
LIST_UNKEPT = """
SELECT root FROM kvstore_roots
WHERE history < $1 OR history_until < $2::bigint + $1::bigint / 2
ORDER BY root
"""
KEEP_ROOT = """
UPDATE kvstore_roots AS roots SET
    history = CASE WHEN $2 > roots.history OR roots.history_until < $3
        THEN $2 ELSE roots.history END,
    history_until = CASE WHEN $2 >= roots.history OR roots.history_until < $3
        THEN $3::bigint + $2::bigint ELSE roots.history_until END,
    history_begin = CASE WHEN roots.history = 0 THEN turns.version ELSE roots.history_begin END,
    history_begin_at = CASE WHEN roots.history = 0
        THEN greatest(turns.instant, $3) ELSE roots.history_begin_at END
FROM kvstore_turns AS turns
WHERE roots.root = $1 AND turns.root = $1 AND turns.era = roots.era
"""
IS_KEPT = "SELECT history <> 0 FROM kvstore_state WHERE id = 1"
IS_HISTORY_OVER = """
SELECT history <> 0 AND history_until < $1 FROM kvstore_state WHERE id = 1
"""
END_HISTORY_OF_STORE = "UPDATE kvstore_state SET history = 0 WHERE id = 1 AND history_until < $1"
END_HISTORY = "UPDATE kvstore_roots SET history = 0 WHERE root = $1 AND history_until < $2"
LIST_PASTS = """
SELECT root, history, history_until, history_begin FROM kvstore_roots AS roots
WHERE history <> 0 OR EXISTS (SELECT 1 FROM kvstore_past AS past WHERE past.root = roots.root)
ORDER BY root
"""
GET_OLDEST = """
SELECT version, at FROM kvstore_changes WHERE root = $1 AND at <= $2 ORDER BY version LIMIT $3
"""
GET_OLDEST_PAST = "SELECT ended, ended_at FROM kvstore_past WHERE root = $1 ORDER BY ended LIMIT $2"
DELETE_PAST = "DELETE FROM kvstore_past WHERE root = $1 AND ended <= $2"
BEGIN_LATER = """
UPDATE kvstore_roots SET
    history_begin = $2, history_begin_at = $3, changes_begin = greatest(changes_begin, $2)
WHERE root = $1
"""
FIND_AHEAD = """
SELECT DISTINCT past.root
FROM kvstore_past AS past LEFT JOIN kvstore_turns AS turns USING (root)
WHERE past.version >= past.ended OR past.ended > turns.version OR turns.version IS NULL
LIMIT 100
"""
MEASURE = "SELECT count(*), coalesce(sum(octet_length(value)), 0) FROM kvstore_past"


def changed_since(path: str, subtree: bool, version: int) -> Sql:
    """List the addresses of what has changed under a root since a version, in order.

    The primary key of changes.
    """
    within = in_range(path, subtree)
    return Sql.of(
        "SELECT DISTINCT items.path, items.key FROM kvstore_changes AS items WHERE ?"
        " ORDER BY items.path, items.key",
        all_of([within, Sql("items.version > ?", (version,))]),
    )


def forget(path: str, pattern: Pattern, subtree: bool) -> Sql | None:
    """Take away the values of the past of some keys, and leave that there was one.

    kvstore_past_versions. `None`: SQL cannot tell them.
    """
    condition, is_exact = key_matches(pattern)
    if not is_exact:
        return None
    kept = Sql("items.value IS DISTINCT FROM ''")
    return Sql.of(
        "UPDATE kvstore_past AS items SET value = '', indexing = NULL WHERE ?",
        all_of([in_range(path, subtree), condition, kept]),
    )


FORGET_KEYS = """
UPDATE kvstore_past AS past SET value = '', indexing = NULL
FROM unnest($2::text[], $3::text[]) AS wanted (path, key)
WHERE past.root = $1 AND past.path = wanted.path AND past.key = wanted.key
    AND past.value IS DISTINCT FROM ''
"""


def past_keys(path: str, pattern: Pattern, subtree: bool) -> Sql:
    """List the addresses of the past under a root that may match."""
    condition, _ = key_matches(pattern)
    return Sql.of(
        "SELECT DISTINCT items.path, items.key FROM kvstore_past AS items WHERE ?",
        all_of([in_range(path, subtree), condition]),
    )


def select_page(span: Span, version: int, instant: int, limit: int) -> Sql:
    """Select the first items of a span, which lies under a root, that were there at a moment.

    The primary key of items, and kvstore_past_versions.
    """
    condition, _ = key_matches(span.pattern)
    within = [in_range(span.path, span.subtree), condition, between(span)]
    within += [Sql("items.version <= ?", (version,)), Sql(LIVE, (instant,))]
    gone = [Sql("items.ended > ?", (version,)), Sql("items.value IS DISTINCT FROM ''")]
    root, down = root_of(span.path), " DESC" if span.reverse else ""
    first = Sql.of(f"ORDER BY items.path{down}, items.key{down} LIMIT ?", limit)
    return Sql.of(
        f"""
SELECT * FROM (
    (SELECT {_ITEM} FROM kvstore_items AS items WHERE ? ?)
    UNION ALL
    (
        SELECT past.path, past.key, {_WHOLE("?")}, {_OWN("past")}
        FROM (SELECT * FROM kvstore_past AS items WHERE ? ?) AS past
    )
) AS found
ORDER BY path{down}, key{down}
LIMIT ?
""",
        *(all_of(within), first, root, root, all_of([*within, *gone]), first, limit),
    )

"""The SQL statements of declared filters; entries are found by kvstore_scalars_in_order.

Those that find items are about one namespace; see `kvstore.postgres.declared`.
"""

from __future__ import annotations

from kvstore.postgres.keys import root_of
from kvstore.postgres.statements import ADDRESS, ROW
from kvstore.sql import Sql

# By whoever sees the entries of all items that he sees
MAY_LOOK = """
SELECT pg_catalog.has_table_privilege('kvstore_filters'::regclass, 'SELECT')
    AND pg_catalog.has_table_privilege('kvstore_scalars'::regclass, 'SELECT')
    AND pg_catalog.row_security_active('kvstore_scalars'::regclass)
        = pg_catalog.row_security_active('kvstore_items'::regclass)
"""
LIST_BUILT = "SELECT field, name FROM kvstore_filters WHERE is_built"
# By the owner, who sees the items of all roots
MAY_BUILD = """
SELECT pg_has_role(pg_class.relowner, 'USAGE')
    AND NOT pg_catalog.row_security_active('kvstore_items'::regclass)
FROM pg_catalog.pg_class WHERE pg_class.oid = 'kvstore_items'::regclass
"""
HAS_MORE = "SELECT EXISTS (SELECT 1 FROM kvstore_items AS items OFFSET $1)"
WAIT_SHORTLY = "SET LOCAL lock_timeout = '500ms'"
LOCK_ITEMS = "LOCK TABLE kvstore_items IN SHARE ROW EXCLUSIVE MODE"
ADD_FILTER = """
INSERT INTO kvstore_filters (field, name, place, is_list)
SELECT lpad(to_hex(count(*)), 4, '0'), $1, $2::text::jsonpath, $3 FROM kvstore_filters
ON CONFLICT (name) DO NOTHING
"""
HAS_TRIGGERS = """
SELECT EXISTS (
    SELECT 1 FROM pg_catalog.pg_trigger
    WHERE tgrelid = 'kvstore_items'::regclass AND tgname = 'scalars_put'
)
"""
CREATE_TRIGGERS = (
    """
    CREATE TRIGGER scalars_put AFTER INSERT ON kvstore_items
    REFERENCING NEW TABLE AS news FOR EACH STATEMENT EXECUTE FUNCTION kvstore_add_scalars()
    """,
    """
    CREATE TRIGGER scalars_drop AFTER DELETE ON kvstore_items
    REFERENCING OLD TABLE AS olds FOR EACH STATEMENT EXECUTE FUNCTION kvstore_take_scalars()
    """,
    """
    CREATE TRIGGER scalars_change AFTER UPDATE ON kvstore_items
    FOR EACH ROW WHEN (old.value <> new.value) EXECUTE FUNCTION kvstore_change_scalars()
    """,
)
FORGET_FILTERS = (
    "DROP TRIGGER IF EXISTS scalars_put ON kvstore_items",
    "DROP TRIGGER IF EXISTS scalars_drop ON kvstore_items",
    "DROP TRIGGER IF EXISTS scalars_change ON kvstore_items",
    "DELETE FROM kvstore_scalars",
    "UPDATE kvstore_filters SET is_built = false",
)
# The next items of a root, from the one after an address on; those that have entries keep them
BUILD = """
WITH slice AS MATERIALIZED (
    SELECT items.root, items.path, items.key, items.value FROM kvstore_items AS items
    WHERE items.root = $1 AND (items.path, items.key) > ($2, $3)
    ORDER BY items.path, items.key LIMIT $4
),
added AS (
    INSERT INTO kvstore_scalars (root, path, key, scalar)
    SELECT slice.root, slice.path, slice.key, wanted.scalar
    FROM slice CROSS JOIN LATERAL unnest(kvstore_scalars_of(slice.value)) AS wanted (scalar)
    LEFT JOIN LATERAL (
        SELECT scalars.scalar FROM kvstore_scalars AS scalars
        WHERE hashtextextended(scalars.path, 0) = hashtextextended(slice.path, 0)
            AND scalars.scalar = wanted.scalar
            AND hashtextextended(scalars.key, 0) = hashtextextended(slice.key, 0)
            AND scalars.path = slice.path AND scalars.key = slice.key
        LIMIT 1
    ) AS there ON TRUE
    WHERE there.scalar IS NULL
)
SELECT slice.path, slice.key FROM slice ORDER BY slice.path DESC, slice.key DESC LIMIT 1
"""
SET_BUILT = "UPDATE kvstore_filters SET is_built = true WHERE name = ANY ($1::text[])"
# Entries that are missing, and such as are no item's, by the path
COUNT_WRONG = """
WITH wanted AS MATERIALIZED (
    SELECT items.root, items.path, items.key, unnest(kvstore_scalars_of(items.value)) AS scalar
    FROM kvstore_items AS items
),
held AS MATERIALIZED (SELECT root, path, key, scalar FROM kvstore_scalars)
SELECT filters.name, wrong.number, wrong.is_missing
FROM (
    SELECT left(scalar, 4) AS field, count(*) AS number, true AS is_missing
    FROM (SELECT * FROM wanted EXCEPT ALL SELECT * FROM held) AS missing GROUP BY 1
    UNION ALL
    SELECT left(scalar, 4), count(*), false
    FROM (SELECT * FROM held EXCEPT ALL SELECT * FROM wanted) AS more GROUP BY 1
) AS wrong
JOIN kvstore_filters AS filters ON filters.field = wrong.field AND filters.is_built
ORDER BY filters.field, wrong.is_missing DESC
"""

UNSURE = "5"  # after the field: an item has to be asked
_ADDRESSES = "SELECT scalars.root, scalars.path, scalars.key FROM kvstore_scalars AS scalars"


def entries_that(path: str, condition: Sql) -> Sql:
    """Select the addresses of a namespace's items of which an entry meets a condition."""
    return Sql.of(f"{_ADDRESSES} WHERE ? AND ?", _of(path), condition)


def _of(path: str) -> Sql:
    return Sql(
        "scalars.root = ? AND hashtextextended(scalars.path, 0) = hashtextextended(?, 0)"
        " AND scalars.path = ?",
        (root_of(path), path, path),
    )


def first_entries(field: str, path: str, descends: bool, count: int) -> Sql:
    """Select the addresses of the first items in an order, with all that equal the last of them.

    None, if of an item it is not known where it belongs.
    """
    last, way, sign = ("min", "DESC", ">=") if descends else ("max", "ASC", "<=")
    of = Sql.of("? AND ?", _of(path), between(field, field + "9"))
    return Sql.of(
        f"""
        {_ADDRESSES} WHERE ? AND scalars.scalar {sign} (
            SELECT {last}(first.scalar) FROM (
                SELECT scalars.scalar FROM kvstore_scalars AS scalars
                WHERE ? ORDER BY scalars.scalar {way} LIMIT ?
            ) AS first
        )
        AND NOT EXISTS (
            SELECT 1 FROM kvstore_scalars AS scalars WHERE ? AND scalars.scalar = ?
        )
        """,
        *(of, of, count, _of(path), field + UNSURE),
    )


def between(low: str, high: str) -> Sql:
    """Have an entry that is in a range."""
    return Sql("scalars.scalar >= ? AND scalars.scalar <= ?", (low, high))


def items_among(path: str, addresses: Sql, condition: Sql, most: int) -> Sql:
    """Select those of some items of a namespace that pass, latest first.

    Each row begins with the number of addresses; if they are more than `most`, there is one row,
    which has no item.
    """
    return Sql.of(
        f"""
        WITH keys AS MATERIALIZED (SELECT found.key FROM (?) AS found LIMIT ?),
        counted AS MATERIALIZED (SELECT count(*) AS number FROM keys),
        few AS MATERIALIZED (SELECT keys.key FROM keys, counted WHERE counted.number <= ?)
        SELECT counted.number, items.*
        FROM counted LEFT JOIN (
            SELECT {ADDRESS}, {ROW} FROM few CROSS JOIN LATERAL (
                SELECT * FROM kvstore_items AS items
                WHERE items.root = ? AND items.path = ? AND items.key = few.key LIMIT 1
            ) AS items
            WHERE ?
        ) AS items ON TRUE
        ORDER BY items.version DESC, items.key
        """,
        *(addresses, most + 1, most, root_of(path), path, condition),
    )

"""Every SQL statement of the search index, with the index each expects.

The tables of vectors have their number in their name, and pgvector's types may be in any schema:
both come from our own code and from the server's catalogue, never from a caller.
"""

from __future__ import annotations

from kvstore.postgres.statements import TURN, WANTED, WANTED_UNDER, in_range
from kvstore.sql import TRUE, Sql, all_of

# Writing

# Primary keys, but where it says otherwise
GET_EXTENSION = """
SELECT pg_namespace.nspname, pg_extension.extversion
FROM pg_catalog.pg_extension
JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pg_extension.extnamespace
WHERE pg_extension.extname = 'vector'
"""
CREATE_EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector SCHEMA {}"
HAS_ITEMS = "SELECT EXISTS (SELECT 1 FROM kvstore_items WHERE root = $1)"
MARK_ALL = """
INSERT INTO kvstore_pending (root, path, key)
SELECT root, path, key FROM kvstore_items WHERE root = $1
ON CONFLICT DO NOTHING
"""
FIND_WAITING = "SELECT path, key FROM kvstore_pending ORDER BY root, path, key LIMIT 100"
COUNT_PENDING = "SELECT count(*) FROM kvstore_pending"
COUNT_WORDS = "SELECT sum(words)::bigint FROM kvstore_turns WHERE root = $1"
FORGET_WORDS = (
    "UPDATE kvstore_entries SET words = '{}', counts = '{}', length = 0 WHERE root = $1",
    "DELETE FROM kvstore_terms WHERE root = $1",
)
FORGET_TEXTS = "UPDATE kvstore_entries SET texts = '' WHERE root = $1"
SET_ROOT_INDEX = "UPDATE kvstore_roots SET index = $2 WHERE root = $1"
LIST_DESCRIPTIONS = "SELECT root, index FROM kvstore_roots WHERE index IS NOT NULL ORDER BY root"
LIST_DESCRIPTIONS_UNDER = """
SELECT index, count(*)::integer FROM kvstore_roots
WHERE ($1 = '' OR root = $1) AND index IS NOT NULL
GROUP BY index
"""
HAS_TABLE = """
SELECT EXISTS (
    SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = $2
)
"""
CREATE_VECTORS = """
CREATE TABLE {table} (
    root text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    text bytea NOT NULL,
    embedding {schema}.vector({dimensions}) NOT NULL,
    PRIMARY KEY (root, path, key, text)
)
"""
CREATE_HNSW = """
CREATE INDEX {table}_hnsw ON {table} USING hnsw (embedding {schema}.vector_ip_ops)
"""
CREATE_HALF_HNSW = """
CREATE INDEX {table}_hnsw ON {table}
USING hnsw ((embedding::{schema}.halfvec({dimensions})) {schema}.halfvec_ip_ops)
"""
PUT_VECTORS = """
INSERT INTO {table} (root, path, key, text, embedding)
SELECT roots.root, put.path, put.key, put.text, put.embedding
FROM kvstore_roots AS roots, unnest($2::text[], $3::text[], $4::bytea[], $5::{schema}.vector[])
    AS put (path, key, text, embedding)
WHERE roots.root = $1
ON CONFLICT (root, path, key, text) DO UPDATE SET embedding = excluded.embedding
"""
DELETE_VECTOR = """
DELETE FROM {table} WHERE root = $1 AND path = $2 AND key = $3 AND text = $4
"""
DROP_VECTORS = "DELETE FROM {table} WHERE root = $1"
_CURRENT = """
items.value, items.indexing, entries.texts, facts.facts
"""
_BESIDE = """
LEFT JOIN kvstore_entries AS entries USING (root, path, key)
LEFT JOIN kvstore_facts AS facts USING (root, path, key)
"""
# Marks in order, with the items: the primary keys
FIND_PENDING = """
SELECT root FROM kvstore_pending WHERE (root, path, key) > ($1, $2, $3)
ORDER BY root, path, key LIMIT 1
"""
GET_PENDING = f"""
SELECT pending.path, pending.key, {_CURRENT}, TRUE AS is_pending
FROM (
    SELECT * FROM kvstore_pending
    WHERE root = $1 AND (path, key) > ($2, $3) ORDER BY path, key LIMIT $4
) AS pending
LEFT JOIN kvstore_items AS items USING (root, path, key)
{_BESIDE}
ORDER BY pending.path, pending.key
"""
GET_CHECKED = f"""
SELECT items.root, items.path, items.key, {_CURRENT}, pending.root IS NOT NULL AS is_pending
FROM kvstore_items AS items {_BESIDE}
LEFT JOIN kvstore_pending AS pending USING (root, path, key)
"""
COUNT_ORPHANS = """
SELECT count(*) FROM {table} AS rows
WHERE NOT EXISTS (
    SELECT 1 FROM kvstore_items AS items
    WHERE items.root = rows.root AND items.path = rows.path AND items.key = rows.key
)
"""
FIND_MISCOUNTED = """
SELECT turns.root
FROM kvstore_turns AS turns
LEFT JOIN (
    SELECT root, count(*) AS entries, sum(length) AS words FROM kvstore_entries GROUP BY root
) AS counted USING (root)
WHERE (turns.entries, turns.words)
    IS DISTINCT FROM (coalesce(counted.entries, 0), coalesce(counted.words, 0)::bigint)
LIMIT 100
"""


# Reading

# What is kept of the index of one root, and of all of them: primary keys, and the whole table
DESCRIBE_ROOT = f"""
SELECT roots.index, turns.entries, turns.words, coalesce(terms.items, 0) AS in_scope
FROM kvstore_roots AS roots
{TURN}
LEFT JOIN kvstore_terms AS terms ON terms.root = $1 AND terms.term = $2
WHERE roots.root = $1
"""
DESCRIBE_ALL = """
SELECT roots.index, sum(turns.entries)::bigint AS entries, sum(turns.words)::bigint AS words,
    sum(turns.entries)::bigint AS in_scope
FROM kvstore_roots AS roots JOIN kvstore_turns AS turns USING (root)
GROUP BY roots.index
"""
# How many vectors there are, about; 0: unknown
GUESS_VECTORS = """
SELECT greatest(reltuples, 0)::float8 FROM pg_catalog.pg_class
WHERE relname = $2
    AND relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1)
"""
GET_TERMS = """
SELECT term, items FROM kvstore_terms WHERE root = $1 AND term = ANY($2::bigint[])
"""
GET_TERMS_OF_ALL = """
SELECT term, sum(items)::bigint AS items FROM kvstore_terms
WHERE term = ANY($1::bigint[]) GROUP BY term
"""

# Items, and the live ones on either side of each: the primary key, once for each. The counts are of
# the terms in the order in which they are asked for.
_NEAR = """
    SELECT near.path, near.key FROM wanted
    CROSS JOIN LATERAL (
        SELECT items.path, items.key FROM kvstore_items AS items
        WHERE items.root = $1 AND items.path = wanted.path AND items.key {sign} wanted.key
            AND (items.expires_at IS NULL OR items.expires_at > $4)
        ORDER BY items.key {order} LIMIT $5
    ) AS near
""".format
GET_AROUND = f"""
WITH wanted AS (SELECT * FROM unnest($2::text[], $3::text[]) AS wanted (path, key)), near AS (
    SELECT path COLLATE "C" AS path, key COLLATE "C" AS key FROM wanted
    UNION {_NEAR(sign="<", order="DESC")}
    UNION {_NEAR(sign=">", order="ASC")}
)
SELECT near.path, near.key, entries.length, (
    SELECT array_agg(coalesce(entries.counts[array_position(entries.words, asked.term)], 0)
        ORDER BY asked.number)
    FROM unnest($6::bigint[]) WITH ORDINALITY AS asked (term, number)
) AS counts
FROM near
LEFT JOIN LATERAL (
    SELECT * FROM kvstore_entries AS entries
    WHERE entries.root = $1 AND entries.path = near.path AND entries.key = near.key
    LIMIT 1
) AS entries ON TRUE
"""

# A search sees one state of everything. Neighbours come from the HNSW index, which alone gives them
# in order, wherever a statement lets it; its scan goes on until enough of them pass.
USE_HNSW = """
SET LOCAL hnsw.iterative_scan = relaxed_order;
SET LOCAL hnsw.ef_search = {ef_search};
SET LOCAL enable_sort = off
"""

# BM25's part of a word, with what is constant of it in its first parameter. There is no count of a
# word that is not there.
_TERM_WEIGHT = (
    "coalesce(?::float8 / (1.0::float8 + norm / counts[array_position(words, ?::bigint)]), 0.0)"
)
_VECTOR = "vectors.root, vectors.path, vectors.key"
_NO_VALUE = "NULL::text AS value, items.version"
_VALUE = "items.value, items.version, items.created_at, items.updated_at, items.expires_at"


def join_items(candidates: Sql, condition: Sql, *, with_values: bool) -> Sql:
    """Add to candidates what is known of the items that meet a condition, by the primary key.

    Args:
        candidates: a ranking.
        condition: on the items.
        with_values: whether the values are wanted.
    """
    return Sql.of(
        f"""
WITH ranked AS MATERIALIZED (?)
SELECT ranked.path, ranked.key, ranked.weight, items.*
FROM ranked
LEFT JOIN LATERAL (
    SELECT {_VALUE if with_values else _NO_VALUE}
    FROM kvstore_items AS items
    WHERE items.root = ranked.root AND items.path = ranked.path AND items.key = ranked.key AND ?
    LIMIT 1
) AS items ON TRUE
""",
        *(candidates, condition),
    )


def by_words(
    weights: list[tuple[int, float]],
    token: int | None,
    mean: float,
    within: Sql = TRUE,
) -> Sql:
    """Weigh entries by BM25; uses the GIN index of words.

    Args:
        weights: of each term, the constant part.
        token: a term that all must have, such as a namespace's.
        mean: length of an entry, in words.
        within: a condition on entries that says no more than the token, for engines that have to
            know on which machine they are.
    """
    parts = [within, Sql("entries.words && ?::bigint[]", ([term for term, _ in weights],))]
    if token is not None:
        parts.append(Sql("entries.words @> ?::bigint[]", ([token],)))
    weight = Sql(
        " + ".join([_TERM_WEIGHT] * len(weights)),
        tuple(each for term, constant in weights for each in (constant, term)),
    )
    return Sql.of(
        """
SELECT entries.root, entries.path, entries.key, - (?) AS weight
FROM (
    SELECT *, 0.3::float8 + 0.9::float8 * length / ?::float8 AS norm
    FROM kvstore_entries AS entries WHERE ? OFFSET 0
) AS entries
""",
        *(weight, mean, all_of(parts)),
    )


def _distance(schema: str, query: list[float]) -> Sql:
    """Compare a vector; the query is converted once, and not for each row."""
    return Sql(f"(vectors.embedding OPERATOR({schema}.<#>) ?::real[]::{schema}.vector)", (query,))


def comparing(table: str, schema: str, query: list[float], source: Sql | None, within: Sql) -> Sql:
    """Compare vectors one by one; the sum keeps the planner from the HNSW index.

    Args:
        table: of the vectors.
        schema: of pgvector.
        query: the vector of the query.
        source: of the addresses whose vectors matter; `None`: those `within`.
        within: a condition on vectors.
    """
    vectors = Sql.of(f"{table} AS vectors WHERE ?", within)
    if source is not None:
        vectors = Sql.of(
            f"""
(? OFFSET 0) AS passing
CROSS JOIN LATERAL (
    SELECT * FROM {table} AS vectors
    WHERE vectors.root = passing.root AND vectors.path = passing.path
        AND vectors.key = passing.key AND ? OFFSET 0
) AS vectors
""",
            *(source, within),
        )
    return Sql.of(f"SELECT {_VECTOR}, ? + 0.0 AS weight FROM ?", _distance(schema, query), vectors)


def vectors_at(table: str, schema: str) -> tuple[str, str]:
    """Give the vectors of some items, as pgvector sends them: of any roots, and of one."""
    statement = f"""
SELECT wanted.number, {schema}.vector_send(vectors.embedding) AS vector
FROM {{wanted}}
CROSS JOIN LATERAL (
    SELECT * FROM {table} AS vectors
    WHERE vectors.root = {{root}} AND vectors.path = wanted.path AND vectors.key = wanted.key
    OFFSET 0
) AS vectors
""".format
    return statement(wanted=WANTED, root="wanted.root"), statement(wanted=WANTED_UNDER, root="$1")


def count_vectors(table: str, path: str) -> Sql:
    """Count the vectors of a subtree."""
    return Sql.of(f"SELECT count(*) FROM {table} AS items WHERE ?", in_range(path, True))


def sample_vectors(table: str, schema: str, path: str, every: int, limit: int) -> Sql:
    """Give a vector of some items of a subtree, as pgvector sends it."""
    return Sql.of(
        f"""
SELECT DISTINCT ON (items.root, items.path, items.key)
    items.path, items.key, {schema}.vector_send(items.embedding)
FROM {table} AS items
WHERE ? AND (hashtext(items.path || items.key)::bigint & 2147483647) % ?::bigint = 0
ORDER BY items.root, items.path, items.key
LIMIT ?
""",
        *(in_range(path, True), every, limit),
    )


def page_of(ranking: Sql, limit: int, offset: int) -> Sql:
    """Cut a page of what was weighed, the least weight first."""
    return ranking + Sql("ORDER BY weight, root, path, key LIMIT ? OFFSET ?", (limit, offset))


def nearest(
    table: str,
    schema: str,
    query: list[float],
    within: Sql,
    condition: Sql | None,
    count: int,
    halved: int | None,
) -> Sql:
    """Ask the HNSW index for neighbours, nearest first.

    Args:
        table: of the vectors.
        schema: of pgvector.
        query: the vector of the query.
        within: a condition on vectors.
        condition: on their items.
        count: how many.
        halved: the dimensions, if the index is one of half precision.
    """
    column, kind = "vectors.embedding", "vector"
    if halved is not None:
        kind = f"halfvec({halved})"
        column = f"vectors.embedding::{schema}.{kind}"
    if condition is not None:
        passing = Sql.of(
            """
EXISTS (
    SELECT 1 FROM kvstore_items AS items
    WHERE items.root = vectors.root AND items.path = vectors.path AND items.key = vectors.key
        AND ? OFFSET 0
)
""",
            condition,
        )
        within = all_of([within, passing])
    return Sql.of(
        f"""
SELECT {_VECTOR}, ? AS weight
FROM {table} AS vectors
WHERE ?
ORDER BY ({column}) OPERATOR({schema}.<#>) (SELECT ?::real[]::{schema}.{kind})
LIMIT ?
""",
        *(_distance(schema, query), within, query, count),
    )


def passing_scalars(within: Sql, conditions: list[list[int]]) -> Sql:
    """Select the addresses of items that have a code of each list; uses the GIN index of codes."""
    wanted = [Sql("facts.facts && ?::bigint[]", (codes,)) for codes in conditions]
    return Sql.of(
        "SELECT facts.root, facts.path, facts.key FROM kvstore_facts AS facts WHERE ?",
        all_of([within, *wanted]),
    )


def passing_items(within: Sql, condition: Sql) -> Sql:
    """Select the addresses of items that meet a condition, by a look at each."""
    return Sql.of(
        "SELECT items.root, items.path, items.key FROM kvstore_items AS items WHERE ?",
        all_of([within, condition]),
    )


def count_of(rows: Sql, most: int) -> Sql:
    """Count rows, up to a number."""
    return Sql.of("SELECT count(*) FROM (? LIMIT ?) AS counted", rows, most)


def share_of(within: Sql, condition: Sql, sample: int) -> Sql:
    """Find out which share meets a condition of some items, the first and the last by key."""
    some = Sql.of("SELECT * FROM kvstore_items AS items WHERE ?", within)
    return Sql.of(
        """
SELECT avg(CASE WHEN ? THEN 1.0 ELSE 0.0 END)::float8
FROM (
    (? ORDER BY root, path, key LIMIT ?)
    UNION ALL
    (? ORDER BY root DESC, path DESC, key DESC LIMIT ?)
) AS items
""",
        *(condition, some, sample, some, sample),
    )

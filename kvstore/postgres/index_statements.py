"""Every SQL statement of the search index, with the index each expects.

The tables of vectors have their number in their name, and pgvector's types may be in any schema:
both come from our own code and from the server's catalogue, never from a caller.
"""

from __future__ import annotations

from kvstore.sql import Sql, all_of

# Writing

# Primary keys, but where it says otherwise
GET_EXTENSION = """
SELECT pg_namespace.nspname, pg_extension.extversion
FROM pg_catalog.pg_extension
JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pg_extension.extnamespace
WHERE pg_extension.extname = 'vector'
"""
CREATE_EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector SCHEMA {}"
MARK_ALL = """
INSERT INTO kvstore_pending (root, path, key) SELECT root, path, key FROM kvstore_items
ON CONFLICT DO NOTHING
"""
FIND_WAITING = "SELECT path, key FROM kvstore_pending ORDER BY number LIMIT 100"
FORGET_WORDS = (
    "UPDATE kvstore_entries SET words = '{}', counts = '{}', length = 0",
    "TRUNCATE kvstore_terms",
    "UPDATE kvstore_corpus SET words = 0 WHERE id = 1",
)
_WANTED = "unnest($1::text[], $2::text[], $3::text[]) AS wanted (root, path, key)"
_IS_WANTED = "{0}.root = wanted.root AND {0}.path = wanted.path AND {0}.key = wanted.key".format
LOAD = f"""
SELECT wanted.path, wanted.key, entries.texts, facts.facts, pending.number IS NOT NULL
FROM {_WANTED}
LEFT JOIN LATERAL (
    SELECT * FROM kvstore_entries AS entries WHERE {_IS_WANTED("entries")} LIMIT 1
) AS entries ON TRUE
LEFT JOIN LATERAL (
    SELECT * FROM kvstore_facts AS facts WHERE {_IS_WANTED("facts")} LIMIT 1
) AS facts ON TRUE
LEFT JOIN LATERAL (
    SELECT * FROM kvstore_pending AS pending WHERE {_IS_WANTED("pending")} LIMIT 1
) AS pending ON TRUE
"""
DELETE_ENTRIES = f"""
WITH gone AS (
    DELETE FROM kvstore_entries AS entries USING {_WANTED}
    WHERE {_IS_WANTED("entries")}
    RETURNING entries.words, entries.length
), less AS (
    SELECT word, count(*) AS number FROM gone, unnest(gone.words) AS word GROUP BY word
), emptied AS (
    DELETE FROM kvstore_terms AS terms USING less
    WHERE terms.term = less.word AND terms.items <= less.number
), lowered AS (
    UPDATE kvstore_terms AS terms SET items = terms.items - less.number FROM less
    WHERE terms.term = less.word AND terms.items > less.number
)
UPDATE kvstore_corpus SET
    items = items - (SELECT count(*) FROM gone),
    words = words - (SELECT coalesce(sum(length), 0) FROM gone)
WHERE id = 1
"""
# $1-5 entries; $6-7 their words, $8-9 the counts; $10-11 terms and in how many of the entries they
# are; $12-14 addresses of facts, $15-16 these
PUT_ENTRIES = """
WITH put AS (
    INSERT INTO kvstore_entries (root, path, key, texts, length, words, counts)
    SELECT
        root, path, key, texts, length,
        ($6::bigint[])[coalesce(lag(words_end) OVER numbered, 0) + 1 : words_end],
        ($8::smallint[])[coalesce(lag(counts_end) OVER numbered, 0) + 1 : counts_end]
    FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::bytea[], $5::bigint[], $7::int[], $9::int[]
    ) WITH ORDINALITY AS entry (root, path, key, texts, length, words_end, counts_end, number)
    WINDOW numbered AS (ORDER BY number)
    RETURNING length
), counted AS (
    INSERT INTO kvstore_terms AS terms (term, items)
    SELECT * FROM unnest($10::bigint[], $11::bigint[])
    ON CONFLICT (term) DO UPDATE SET items = terms.items + excluded.items
), facts AS (
    INSERT INTO kvstore_facts (root, path, key, facts)
    SELECT
        root, path, key,
        ($15::bigint[])[coalesce(lag(facts_end) OVER (ORDER BY number), 0) + 1 : facts_end]
    FROM unnest($12::text[], $13::text[], $14::text[], $16::int[])
        WITH ORDINALITY AS fact (root, path, key, facts_end, number)
    ON CONFLICT (root, path, key) DO UPDATE SET facts = excluded.facts
)
UPDATE kvstore_corpus SET
    items = items + (SELECT count(*) FROM put),
    words = words + (SELECT coalesce(sum(length), 0) FROM put)
WHERE id = 1
"""
DELETE_FACTS = f"""
DELETE FROM kvstore_facts AS facts USING {_WANTED} WHERE {_IS_WANTED("facts")}
"""
MARK = f"""
INSERT INTO kvstore_pending (root, path, key) SELECT * FROM {_WANTED} ON CONFLICT DO NOTHING
"""
UNMARK = f"""
DELETE FROM kvstore_pending AS pending USING {_WANTED} WHERE {_IS_WANTED("pending")}
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
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::{schema}.vector[])
ON CONFLICT (root, path, key, text) DO UPDATE SET embedding = excluded.embedding
"""
DELETE_VECTORS = """
DELETE FROM {table} AS vectors
USING unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) AS gone (root, path, key, text)
WHERE vectors.root = gone.root AND vectors.path = gone.path AND vectors.key = gone.key
    AND vectors.text = gone.text
"""
_CURRENT = """
items.value, items.indexing, entries.texts, facts.facts, pending.number IS NOT NULL
"""
_BESIDE = """
LEFT JOIN kvstore_entries AS entries USING (root, path, key)
LEFT JOIN kvstore_facts AS facts USING (root, path, key)
"""
GET_SINCE = f"""
SELECT items.path, items.key, {_CURRENT}
FROM kvstore_items AS items {_BESIDE}
LEFT JOIN kvstore_pending AS pending USING (root, path, key)
WHERE items.version >= $1
"""
GET_PENDING = f"""
SELECT pending.number, pending.path, pending.key, {_CURRENT}
FROM (
    SELECT * FROM kvstore_pending WHERE number > $1 ORDER BY number LIMIT $2
) AS pending
LEFT JOIN kvstore_items AS items USING (root, path, key)
{_BESIDE}
ORDER BY pending.number
"""
GET_CHECKED = f"""
SELECT items.path, items.key, {_CURRENT}
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
IS_COUNTED = """
SELECT (items, words) = (SELECT count(*), coalesce(sum(length), 0) FROM kvstore_entries)
FROM kvstore_corpus
"""


# Reading

# Primary keys
DESCRIBE = """
SELECT
    state.index, corpus.items AS entries, corpus.words,
    (SELECT terms.items FROM kvstore_terms AS terms WHERE terms.term = $1) AS in_scope,
    (
        SELECT reltuples::float8 FROM pg_catalog.pg_class
        WHERE relname = 'kvstore_vectors_' || (state.index::json ->> 'epoch')
            AND relnamespace = (
                SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = 'kvstore_state'::regclass
            )
    ) AS vectors
FROM kvstore_state AS state CROSS JOIN kvstore_corpus AS corpus
WHERE state.id = 1 AND corpus.id = 1
"""
GET_TERMS = "SELECT term, items FROM kvstore_terms WHERE term = ANY($1::bigint[])"

# Items, and the live ones on either side of each: the primary key, once for each. The counts are of
# the terms in the order in which they are asked for.
_NEAR = """
    SELECT near.root, near.path, near.key FROM wanted
    CROSS JOIN LATERAL (
        SELECT items.root, items.path, items.key FROM kvstore_items AS items
        WHERE items.root = wanted.root AND items.path = wanted.path AND items.key {sign} wanted.key
            AND (items.expires_at IS NULL OR items.expires_at > $4)
        ORDER BY items.key {order} LIMIT $5
    ) AS near
""".format
GET_AROUND = f"""
WITH wanted AS (SELECT * FROM {_WANTED}), near AS (
    SELECT root COLLATE "C" AS root, path COLLATE "C" AS path, key COLLATE "C" AS key FROM wanted
    UNION {_NEAR(sign="<", order="DESC")}
    UNION {_NEAR(sign=">", order="ASC")}
)
SELECT near.path, near.key, entries.length, (
    SELECT array_agg(coalesce(entries.counts[array_position(entries.words, asked.term)], 0)
        ORDER BY asked.number)
    FROM unnest($6::bigint[]) WITH ORDINALITY AS asked (term, number)
) AS counts
FROM near
LEFT JOIN kvstore_entries AS entries
    ON entries.root = near.root AND entries.path = near.path AND entries.key = near.key
"""

# A search sees one state of everything. Neighbours come from the HNSW index, which alone gives them
# in order, wherever a statement lets it; its scan goes on until enough of them pass.
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
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
    """Add to candidates what is known of the items that meet a condition, by the primary key."""
    return (
        Sql("WITH ranked AS MATERIALIZED (")
        + candidates
        + Sql(
            f"""
) SELECT ranked.path, ranked.key, ranked.weight, items.*
FROM ranked
LEFT JOIN LATERAL (
    SELECT {_VALUE if with_values else _NO_VALUE}
    FROM kvstore_items AS items
    WHERE items.root = ranked.root AND items.path = ranked.path AND items.key = ranked.key AND
"""
        )
        + condition
        + Sql("LIMIT 1) AS items ON TRUE")
    )


def _page(limit: int, offset: int) -> Sql:
    return Sql("ORDER BY weight, root, path, key LIMIT ? OFFSET ?", (limit, offset))


def by_words(
    weights: list[tuple[int, float]], token: int | None, mean: float, limit: int, offset: int
) -> Sql:
    """Rank entries by BM25; uses the GIN index of words.

    Args:
        weights: of each term, the constant part.
        token: a term that all must have, such as a namespace's.
        mean: length of an entry, in words.
        limit: how many.
        offset: after how many.
    """
    parts = [Sql("entries.words && ?::bigint[]", ([term for term, _ in weights],))]
    if token is not None:
        parts.append(Sql("entries.words @> ?::bigint[]", ([token],)))
    weight = Sql(
        " + ".join([_TERM_WEIGHT] * len(weights)),
        tuple(each for term, constant in weights for each in (constant, term)),
    )
    return (
        Sql("SELECT entries.root, entries.path, entries.key, - (")
        + weight
        + Sql(
            ") AS weight FROM (SELECT *, 0.3::float8 + 0.9::float8 * length / ?::float8 AS norm",
            (mean,),
        )
        + Sql("FROM kvstore_entries AS entries WHERE")
        + all_of(parts)
        + Sql("OFFSET 0) AS entries")
        + _page(limit, offset)
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
    compared = Sql(f"SELECT {_VECTOR},") + _distance(schema, query) + Sql("+ 0.0 AS weight FROM")
    if source is None:
        return compared + Sql(f"{table} AS vectors WHERE") + within
    return (
        compared
        + Sql("(")
        + source
        + Sql(
            f"""
OFFSET 0) AS passing
CROSS JOIN LATERAL (
    SELECT * FROM {table} AS vectors
    WHERE vectors.root = passing.root AND vectors.path = passing.path
        AND vectors.key = passing.key
    OFFSET 0
) AS vectors
"""
        )
    )


def page_of(ranking: Sql, limit: int, offset: int) -> Sql:
    """Cut a page of a ranking."""
    return ranking + _page(limit, offset)


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
    parts = [within]
    if condition is not None:
        parts.append(
            Sql(
                """
EXISTS (
    SELECT 1 FROM kvstore_items AS items
    WHERE items.root = vectors.root AND items.path = vectors.path AND items.key = vectors.key AND
"""
            )
            + condition
            + Sql("OFFSET 0)")
        )
    order = (
        f"ORDER BY ({column}) OPERATOR({schema}.<#>) (SELECT ?::real[]::{schema}.{kind}) LIMIT ?"
    )
    return (
        Sql(f"SELECT {_VECTOR},")
        + _distance(schema, query)
        + Sql(f"AS weight FROM {table} AS vectors WHERE")
        + all_of(parts)
        + Sql(order, (query, count))
    )


def passing_facts(within: Sql, conditions: list[list[int]]) -> Sql:
    """Select the addresses of items that have a fact of each list; uses the GIN index of facts."""
    wanted = [Sql("facts.facts && ?::bigint[]", (facts,)) for facts in conditions]
    return Sql("SELECT facts.root, facts.path, facts.key FROM kvstore_facts AS facts WHERE") + (
        all_of([within, *wanted])
    )


def passing_items(within: Sql, condition: Sql) -> Sql:
    """Select the addresses of items that meet a condition, by a look at each."""
    return Sql("SELECT items.root, items.path, items.key FROM kvstore_items AS items WHERE") + (
        all_of([within, condition])
    )


def count_of(rows: Sql, most: int) -> Sql:
    """Count rows, up to a number."""
    return Sql("SELECT count(*) FROM (") + rows + Sql("LIMIT ?) AS counted", (most,))


def share_of(within: Sql, condition: Sql, sample: int) -> Sql:
    """Find out which share meets a condition of some items, the first and the last by key."""
    some = Sql("(SELECT * FROM kvstore_items AS items WHERE") + within
    first = some + Sql("ORDER BY root, path, key LIMIT ?)", (sample,))
    last = some + Sql("ORDER BY root DESC, path DESC, key DESC LIMIT ?)", (sample,))
    return (
        Sql("SELECT avg(CASE WHEN")
        + condition
        + Sql("THEN 1.0 ELSE 0.0 END)::float8 FROM (")
        + first
        + Sql("UNION ALL")
        + last
        + Sql(") AS items")
    )

"""The statements of the search index, with the index of SQLite's that each expects.

The tables are told of in `kvstore.sqlite.indexing`.
"""

from __future__ import annotations

from kvstore.index_plan import CODE_BYTES
from kvstore.sql import NOTHING, Sql
from kvstore.sqlite.statements import (
    LIVE,
    OCTETS,
    REST,
    ROW,
    in_range,
    in_range_among,
    of_meta,
)

# A vector's rowid is the item's id, and above it the slot. In that order, because sqlite-vec 0.1.9
# compares only the low 32 bits of the rowids that a search is restricted to (`_cmp` in its
# sqlite-vec.c): so it confuses but vectors of one item, and all of them are in the list anyway.
ITEM_BITS = 40
ITEM_MASK = (1 << ITEM_BITS) - 1

# The tables that an index makes

CREATE_WORDS = """
CREATE VIRTUAL TABLE words USING fts5(
    text, namespaces, {content}
    tokenize = "ascii tokenchars '.'"
)
"""
OLDER_WORDS = CREATE_WORDS.replace(  # until words were made in kvstore/text.py
    "ascii tokenchars '.'", "porter unicode61 remove_diacritics 2 categories 'L* N* M* Co'"
)
CREATE_TRIGGER = """
CREATE TRIGGER items_dropped AFTER DELETE ON items
BEGIN
    INSERT OR IGNORE INTO index_dropped (item, path) VALUES (old.id, old.path);
END
"""
CREATE_VECTORS = """
CREATE VIRTUAL TABLE {name} USING vec0(
    path TEXT PARTITION KEY, embedding FLOAT[{dimensions}], chunk_size = {chunk}
)
"""
CREATE_VECTORS_INDEX = "CREATE INDEX {name}_by_path ON {name}_chunks (partition00)"
SMALL_CHUNK = 8  # vectors; a namespace of five takes one chunk
SMALL_CHUNKS = 128  # of a namespace; its vectors beyond them go to large chunks
VECTOR_CHUNKS = {"vectors_small": SMALL_CHUNK, "vectors_large": 256}
VECTOR_TABLES = tuple(VECTOR_CHUNKS)
MARK_ALL = "INSERT OR IGNORE INTO index_pending (item) SELECT id FROM items"

HAS_ITEMS = "SELECT EXISTS (SELECT 1 FROM items)"
FORGET_WORDS = (
    "DROP TABLE words",
    "UPDATE index_entries SET words = x'', length = 0",
    "UPDATE index_roots SET length = 0",
)
FORGET_VECTORS = ("DELETE FROM index_garbage", "UPDATE index_entries SET slots = x''")
DROP_VECTORS = tuple(f"DROP TABLE IF EXISTS {table}" for table in VECTOR_TABLES)
HOW_WORDS_WERE_MADE = "SELECT sql FROM sqlite_schema WHERE name = 'words'"
HAS_VEC0 = "SELECT 1 FROM pragma_module_list WHERE name = 'vec0'"

# The primary key of meta
GET_DESCRIPTION = "SELECT value FROM meta WHERE name = 'index'"

_IS_PENDING = "EXISTS (SELECT 1 FROM index_pending WHERE index_pending.item = items.id)"
_HELD = f"index_entries.slots, index_entries.length, {_IS_PENDING}"
_WITH_ENTRIES = "LEFT JOIN index_entries ON index_entries.item = items.id"
_MANY = """
FROM json_each(?) AS wanted
CROSS JOIN items ON items.path = ? AND items.key = wanted.value
"""

# The unique index on (path, key), and primary keys
GET_ONE_ENTRIES = f"""
SELECT items.key, items.id, {_HELD}
FROM items {_WITH_ENTRIES}
WHERE items.path = ? AND items.key = ?
"""
GET_MANY_ENTRIES = f"SELECT items.key, items.id, {_HELD} {_MANY} {_WITH_ENTRIES}"
GET_ONE_ID = "SELECT key, id FROM items WHERE path = ? AND key = ?"
GET_MANY_IDS = f"SELECT items.key, items.id {_MANY}"
GET_MANY_SLOTS = f"""
SELECT NULL, {of_meta("index")}
UNION ALL
SELECT items.key, index_entries.slots {_MANY}
CROSS JOIN index_entries ON index_entries.item = items.id
"""
GET_ENTRIES = """
SELECT slots, length, EXISTS (SELECT 1 FROM index_pending WHERE item = wanted.item)
FROM (SELECT ? AS item) AS wanted
LEFT JOIN index_entries USING (item)
"""
ADD_WORDS = "INSERT INTO words (rowid, text, namespaces) VALUES (?, ?, ?)"
SET_ENTRIES = """
INSERT INTO index_entries (item, slots, words, length) VALUES (?, ?, ?, ?)
ON CONFLICT (item) DO UPDATE
SET slots = excluded.slots, words = excluded.words, length = excluded.length
"""
GET_DROPPED = """
SELECT index_dropped.item, index_dropped.path, index_entries.slots, index_entries.length
FROM index_dropped
LEFT JOIN index_entries ON index_entries.item = index_dropped.item
"""
GET_PENDING = """
SELECT items.key, index_pending.item, items.path, items.indexing, CAST(items.value AS BLOB),
    index_entries.slots, index_entries.length, 1
FROM index_pending
LEFT JOIN items ON items.id = index_pending.item
LEFT JOIN index_entries ON index_entries.item = index_pending.item
WHERE index_pending.item > ?
ORDER BY index_pending.item
LIMIT +?
"""
GET_SINCE = f"""
SELECT items.id, items.path, items.indexing, CAST(items.value AS BLOB), {_HELD}
FROM items {_WITH_ENTRIES}
WHERE items.version >= ?
"""

DELETE_WORDS = "DELETE FROM words WHERE rowid = ?"
DELETE_ENTRIES = "DELETE FROM index_entries WHERE item = ?"
MARK = "INSERT OR IGNORE INTO index_pending (item) VALUES (?)"
UNMARK = "DELETE FROM index_pending WHERE item = ?"
COUNT_MARKED = "SELECT count(*) FROM index_pending"
FORGET_DROPPED = (
    "DELETE FROM index_pending WHERE item IN (SELECT item FROM index_dropped)",
    "DELETE FROM index_dropped",
)

# Vectors that a process without sqlite-vec could not delete
GET_GARBAGE = "SELECT vector FROM index_garbage"
ADD_GARBAGE = "INSERT OR IGNORE INTO index_garbage (vector) VALUES (?)"
FORGET_GARBAGE = "DELETE FROM index_garbage"

# How often the vectors of each namespace were changed
COUNT_WRITE = """
INSERT INTO index_writes (path, writes) VALUES (?, 1)
ON CONFLICT (path) DO UPDATE SET writes = writes + 1
"""


def count_writes(within: Sql) -> Sql:
    """Count how often the vectors of some namespaces were changed."""
    return Sql.of("SELECT total(writes) FROM index_writes WHERE ?", within)


# Checking

# Primary keys
GET_CHECKED = f"""
SELECT items.id, items.indexing, CAST(items.value AS BLOB), index_entries.slots,
    EXISTS (SELECT 1 FROM words_docsize WHERE words_docsize.id = items.id), {_IS_PENDING}
FROM items {_WITH_ENTRIES}
WHERE items.id > ?
ORDER BY items.id
LIMIT +?
"""
FIND_MISCOUNTED = """
WITH counted AS (
    SELECT substr(items.path, 1, instr(items.path, char(9))), count(*), sum(index_entries.length)
    FROM index_entries JOIN items ON items.id = index_entries.item
    GROUP BY 1
)
SELECT 1
WHERE EXISTS (SELECT * FROM counted EXCEPT SELECT root, items, length FROM index_roots)
    OR EXISTS (SELECT root, items, length FROM index_roots EXCEPT SELECT * FROM counted)
"""
COUNT_ENTRIES_WITHOUT_ITEM = """
SELECT count(*) FROM index_entries WHERE item NOT IN (SELECT id FROM items)
"""
COUNT_WORDS_WITHOUT_ITEM = """
SELECT count(*) FROM words_docsize WHERE id NOT IN (SELECT id FROM items)
"""

# vec0's own tables, by the index that we add
HAS_LARGE_CHUNK = "SELECT 1 FROM vectors_large_chunks WHERE partition00 = ? LIMIT 1"
COUNT_SMALL_CHUNKS = """
SELECT count(*) FROM (SELECT 1 FROM vectors_small_chunks WHERE partition00 = ? LIMIT +?)
"""
UPDATE_VECTOR = tuple(
    f"UPDATE {table} SET embedding = ? WHERE rowid = ?" for table in VECTOR_TABLES
)
DELETE_VECTOR = tuple(f"DELETE FROM {table} WHERE rowid = ?" for table in VECTOR_TABLES)
INSERT_SMALL, INSERT_LARGE = (
    f"INSERT INTO {table} (path, rowid, embedding) VALUES (?, ?, ?)" for table in VECTOR_TABLES
)


def _of_chunks(within: Sql) -> Sql:
    return Sql(within.text.replace("path", "partition00"), within.params)


def has_large_chunk(within: Sql) -> Sql:
    """Tell whether some namespaces have vectors in large chunks."""
    return Sql.of("SELECT 1 FROM vectors_large_chunks WHERE ? LIMIT 1", _of_chunks(within))


def count_small_chunks(within: Sql, most: int) -> Sql:
    """Count the small chunks of some namespaces, up to a number."""
    text = "SELECT count(*) FROM (SELECT 1 FROM vectors_small_chunks WHERE ? LIMIT +?)"
    return Sql.of(text, _of_chunks(within), most)


def room_of_chunks(table: str, within: Sql) -> Sql:
    """Tell how many vectors the chunks of some namespaces have room for."""
    return Sql.of(f"SELECT total(size) FROM {table}_chunks WHERE ?", _of_chunks(within))


def read_chunks(table: str, within: Sql) -> Sql:
    """Read the vectors of some namespaces, a chunk each, as vec0 keeps them."""
    return Sql.of(
        f"SELECT validity, rowids, vectors FROM {table}_chunks AS chunks CROSS JOIN"
        f" {table}_vector_chunks00 AS held ON held._rowid_ = chunks.chunk_id WHERE ?",
        _of_chunks(within),
    )


# Searching. Of these, the virtual tables answer those of words.

# Items that wait for reindex, by their ids
FIND_WAITING = """
SELECT items.path, items.key
FROM (SELECT item FROM index_pending ORDER BY item LIMIT 100) AS pending
CROSS JOIN items ON items.id = pending.item
"""
COUNT_HOLDING = "SELECT count(*) FROM words WHERE words MATCH ?"
# Of one root, its primary key, and whether there is another; of all
GET_TOTALS_OF_ROOT = """
SELECT items, length, EXISTS (SELECT 1 FROM index_roots WHERE root < ?1)
    OR EXISTS (SELECT 1 FROM index_roots WHERE root > ?1)
FROM index_roots
WHERE root = ?1
"""
GET_TOTALS = "SELECT total(items), total(length), 0 FROM index_roots"
ADD_TOTALS = """
INSERT INTO index_roots (root, items, length) VALUES (?, ?, ?)
ON CONFLICT (root) DO UPDATE SET items = items + excluded.items, length = length + excluded.length
"""
FORGET_ROOT = "DELETE FROM index_roots WHERE root = ? AND items = 0"
# FTS5's own record of how many rows it has had, and how many words in each column
GET_FTS5_TOTALS = "SELECT block FROM words_data WHERE id = 1"
FIND_WORDS = "SELECT rowid FROM words WHERE words MATCH ?"
# Best first. The namespaces weigh nothing.
RANK_WORDS = """
SELECT rowid, -rank
FROM words
WHERE words MATCH ? AND rank MATCH 'bm25(1.0, 0.0)'
ORDER BY rank
"""

FEW_CHUNKS = 16  # of a namespace that is searched on the event loop's thread: 128 vectors

# The index's description, and the vectors of a namespace, a chunk each, to one more than a few.
# There is a row in any case: its chunk is NULL if there is none, or if the second column says that
# vec0's small chunks are not all there is to it. The primary key of meta, the indexes on vec0's
# tables that we add, and the rowids of its chunks, by which vec0 itself reads them.
SURVEY = f"""
SELECT known.value, known.has_more, chunks.validity, chunks.rowids, held.vectors
FROM (
    SELECT value, EXISTS (SELECT 1 FROM index_garbage)
        OR EXISTS (SELECT 1 FROM vectors_large_chunks WHERE partition00 = ?) AS has_more
    FROM meta
    WHERE name = 'index'
) AS known
LEFT JOIN vectors_small_chunks AS chunks ON NOT known.has_more AND chunks.partition00 = ?
LEFT JOIN vectors_small_vector_chunks00 AS held ON held._rowid_ = chunks.chunk_id
LIMIT {FEW_CHUNKS} + 1
"""


def sample(path: str, subtree: bool, condition: Sql, rows: int) -> Sql:
    """Tell which part of the first items of a namespace or subtree meets a condition."""
    text = "SELECT avg(?) FROM (SELECT * FROM items WHERE ? LIMIT +?) AS items"
    return Sql.of(text, condition, in_range(path, subtree), rows)


def nearest(table: str, within: Sql | None, among: Sql | None, vector: bytes, count: int) -> Sql:
    """Find the vectors of a range of namespaces, and among some, that are nearest."""
    return Sql.of(
        f"SELECT distance, rowid, embedding FROM {table} WHERE embedding MATCH ? AND k = ? ? ?",
        *(vector, count, _and(within), _and(among)),
    )


def all_distances(table: str, within: Sql | None, among: Sql | None, vector: bytes) -> Sql:
    """List the vectors of a range of namespaces, and among some, nearest first."""
    return Sql.of(
        f"SELECT vec_distance_L2(embedding, ?) AS distance, rowid, embedding FROM {table}"
        " WHERE TRUE ? ? ORDER BY distance",
        *(vector, _and(within), _and(among)),
    )


def _and(condition: Sql | None) -> Sql:
    return NOTHING if condition is None else Sql.of("AND ?", condition)


# vec0's own list of vectors, by its primary key
def highest_vector(table: str) -> str:
    """Find the highest id of a vector."""
    return f"SELECT coalesce(max(rowid), 0) FROM {table}_rowids"


# vec0's own list of vectors again: of each item its first one, by its number
def sample_vectors(table: str, path: str, every: int, limit: int) -> Sql:
    """List some items of a subtree, with the chunk that holds a vector of each, and its place."""
    return Sql.of(
        f"SELECT path, key, chunk_id, chunk_offset FROM items JOIN {table}_rowids AS held"
        " ON held.rowid = items.id WHERE ? AND items.id % ? = 0 LIMIT ?",
        *(in_range(path, subtree=True), every, limit),
    )


def count_items(path: str) -> Sql:
    """Count the rows of a subtree."""
    return Sql.of("SELECT count(*) FROM items WHERE ?", in_range(path, subtree=True))


def chunk_of(table: str) -> str:
    """Get the vectors of a chunk, one after the other."""
    return f"SELECT vectors FROM {table}_vector_chunks00 WHERE rowid = ?"


def vectors_of(ids: str, highest: int) -> Sql:
    """Be a vector of one of some items.

    Args:
        ids: of the items, as a JSON list.
        highest: the highest id of a vector; where all are in the first slot, they are the items'.
    """
    if not highest >> ITEM_BITS:
        return Sql("rowid IN (SELECT value FROM json_each(?))", (ids,))
    return Sql(
        "rowid IN (WITH RECURSIVE held (vector, others) AS ("
        f"SELECT item, length(slots) / {CODE_BYTES} - 1 FROM index_entries"
        " WHERE item IN (SELECT value FROM json_each(?))"
        f" UNION ALL SELECT vector + {1 << ITEM_BITS}, others - 1 FROM held WHERE others > 0)"
        " SELECT vector FROM held)",
        (ids,),
    )


# A range of the unique index on (path, key), and all its rows; or primary keys
def select_passing(path: str, subtree: bool, condition: Sql, among: Sql | None = None) -> Sql:
    """List the items of a namespace or subtree whose values meet a condition, in one JSON list.

    To give the driver many rows takes longer.
    """
    within = in_range_among(path, subtree, among)
    return Sql.of("SELECT json_group_array(id) FROM items WHERE ? AND ?", within, condition)


def list_items(among: Sql) -> Sql:
    """List the items that a statement selects, in one JSON list, some perhaps twice."""
    return Sql("SELECT json_group_array(item) FROM (") + among + Sql(")")


def select_passing_since(path: str, subtree: bool, condition: Sql, version: int) -> Sql:
    """Select the items that were written after a version, and whether they meet a condition."""
    within = in_range(path, subtree)
    return Sql.of("SELECT id, ? FROM items WHERE ? AND version > ?", condition, within, version)


# The primary key, once for each id; the condition's parameters follow the ids
def select_among(condition: Sql) -> Sql:
    """Select those of some items that meet a condition, with their words."""
    return (
        Sql(
            "SELECT id, path, key, index_entries.words, index_entries.length"
            " FROM (SELECT value AS wanted FROM json_each(?))"
            " CROSS JOIN items ON items.id = wanted"
            " LEFT JOIN index_entries ON index_entries.item = wanted WHERE"
        )
        + condition
    )


_AROUND = f"""
SELECT items.id, items.path, items.key, index_entries.words, index_entries.length
FROM items {_WITH_ENTRIES}
WHERE items.id IN (
    SELECT value FROM json_each(?)
    UNION
    SELECT near.id FROM json_each(?) AS wanted
    CROSS JOIN items AS hit ON hit.id = wanted.value
    CROSS JOIN items AS near ON near.id IN (
        SELECT id FROM items WHERE path = hit.path AND key < hit.key AND {LIVE}
        ORDER BY key DESC LIMIT ?
    )
    UNION
    SELECT near.id FROM json_each(?) AS wanted
    CROSS JOIN items AS hit ON hit.id = wanted.value
    CROSS JOIN items AS near ON near.id IN (
        SELECT id FROM items WHERE path = hit.path AND key > hit.key AND {LIVE}
        ORDER BY key LIMIT ?
    )
)
"""


def select_around(ids: str, number: int, now: int) -> Sql:
    """Select items, and so many live ones on either side of each, with their words.

    Args:
        ids: of the items, as a JSON list.
        number: of neighbours on each side.
        now: the instant.
    """
    return Sql(_AROUND, (ids, ids, now, number, ids, now, number))


GET_BY_ID = f"""
SELECT path, key, id, {ROW}
FROM items
WHERE id IN (SELECT value FROM json_each(?))
"""

# The unique index on (path, key), backwards
GET_BEFORE = f"""
WITH found AS (
    SELECT wanted.key AS number, (
        SELECT id
        FROM items
        WHERE items.path = json_extract(wanted.value, '$[0]')
            AND items.key < json_extract(wanted.value, '$[1]')
            AND {LIVE}
        ORDER BY items.key DESC
        LIMIT 1
    ) AS before
    FROM json_each(?) AS wanted
)
SELECT number, path, key, {ROW}
FROM found
CROSS JOIN items ON items.id = found.before
"""

# As GET_BY_ID, of live items; NULL for a long value, without reading it
GET_SMALL_BY_ID = f"""
SELECT key, id, CASE WHEN {OCTETS} <= ? THEN CAST(value AS BLOB) END,
    {REST}
FROM items
WHERE id IN (SELECT value FROM json_each(?)) AND {LIVE}
"""


# vec0's own list of vectors, and the primary keys
def count_orphans(table: str) -> str:
    """Count the vectors that are no item's, and that nobody has noted as garbage."""
    slot_at = f"{CODE_BYTES} * (held.rowid >> {ITEM_BITS})"
    return f"""
SELECT count(*)
FROM {table}_rowids AS held
LEFT JOIN index_entries ON index_entries.item = held.rowid & {ITEM_MASK}
WHERE held.rowid NOT IN (SELECT vector FROM index_garbage)
    AND (index_entries.item IS NULL
        OR length(index_entries.slots) <= {slot_at}
        OR substr(index_entries.slots, 1 + {slot_at}, {CODE_BYTES}) = zeroblob({CODE_BYTES}))
"""

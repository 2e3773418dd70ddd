"""Every fixed SQL statement by which the search index is kept and checked."""

from __future__ import annotations

# The unique index on (path, key), and primary keys
GET_MANY_ENTRIES = """
SELECT items.key, items.id, index_entries.slots, index_entries.length,
    EXISTS (SELECT 1 FROM index_pending WHERE index_pending.item = items.id)
FROM json_each(?) AS wanted
CROSS JOIN items ON items.path = ? AND items.key = wanted.value
LEFT JOIN index_entries ON index_entries.item = items.id
"""
GET_MANY_IDS = """
SELECT items.key, items.id
FROM json_each(?) AS wanted
CROSS JOIN items ON items.path = ? AND items.key = wanted.value
"""
GET_ID = "SELECT id FROM items WHERE path = ? AND key = ?"
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
GET_SINCE = """
SELECT items.id, items.path, items.indexing, CAST(items.value AS BLOB), index_entries.slots,
    index_entries.length,
    EXISTS (SELECT 1 FROM index_pending WHERE index_pending.item = items.id)
FROM items
LEFT JOIN index_entries ON index_entries.item = items.id
WHERE items.version >= ?
"""

# Primary keys
GET_CHECKED = """
SELECT items.id, items.indexing, CAST(items.value AS BLOB), index_entries.slots,
    EXISTS (SELECT 1 FROM words_docsize WHERE words_docsize.id = items.id),
    EXISTS (SELECT 1 FROM index_pending WHERE index_pending.item = items.id)
FROM items
LEFT JOIN index_entries ON index_entries.item = items.id
WHERE items.id > ?
ORDER BY items.id
LIMIT +?
"""
IS_COUNTED = """
SELECT count(*) = (SELECT value FROM meta WHERE name = 'index_items')
    AND total(length) = (SELECT value FROM meta WHERE name = 'index_length')
FROM index_entries
"""
CHECKS = {
    "index_entries": """
SELECT count(*) FROM index_entries WHERE item NOT IN (SELECT id FROM items)
""",
    "words": """
SELECT count(*) FROM words_docsize WHERE id NOT IN (SELECT id FROM items)
""",
}

# vec0's own tables, by the index that we add
HAS_LARGE_CHUNK = "SELECT 1 FROM vectors_large_chunks WHERE partition00 = ? LIMIT 1"
COUNT_SMALL_CHUNKS = """
SELECT count(*) FROM (SELECT 1 FROM vectors_small_chunks WHERE partition00 = ? LIMIT +?)
"""
UPDATE_VECTOR = (
    "UPDATE vectors_small SET embedding = ? WHERE rowid = ?",
    "UPDATE vectors_large SET embedding = ? WHERE rowid = ?",
)
DELETE_VECTOR = (
    "DELETE FROM vectors_small WHERE rowid = ?",
    "DELETE FROM vectors_large WHERE rowid = ?",
)
INSERT_SMALL = "INSERT INTO vectors_small (path, rowid, embedding) VALUES (?, ?, ?)"
INSERT_LARGE = "INSERT INTO vectors_large (path, rowid, embedding) VALUES (?, ?, ?)"

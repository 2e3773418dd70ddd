"""The statements of logs and queues, with the index each expects."""

from __future__ import annotations

from kvstore.sequences import DIGITS, LAST_KEY
from kvstore.sqlite.statements import LIVE, ROW

# Logs and queues. The primary key
GET_SEQUENCE = """
SELECT kind, last, trimmed, size, delayed, leased, dead, seen FROM sequences WHERE path = ?
"""
SET_SEQUENCE = """
INSERT INTO sequences (path, kind, last, trimmed, size, delayed, leased, dead, seen)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET
    kind = excluded.kind,
    last = excluded.last,
    trimmed = excluded.trimmed,
    size = excluded.size,
    delayed = excluded.delayed,
    leased = excluded.leased,
    dead = excluded.dead,
    seen = excluded.seen
"""
IS_ENTRY = f"(length(CAST(key AS BLOB)) = {DIGITS} AND key NOT GLOB '*[^0-9]*')"

# A range of the unique index on (path, key); in a namespace of which no sequence is known
COUNT_ENTRIES = f"""
SELECT count(*), max(key) FROM items WHERE path = ? AND key <= '{LAST_KEY}' AND {IS_ENTRY}
"""

# The same, from its end or from a position on
LAST_ENTRIES = f"""
SELECT key, {ROW}
FROM items
WHERE path = ? AND key <= '{LAST_KEY}' AND {IS_ENTRY} AND {LIVE}
ORDER BY key DESC
LIMIT +?
"""
ENTRIES_AFTER = f"""
SELECT key, {ROW}
FROM items
WHERE path = ? AND key > ? AND key <= '{LAST_KEY}' AND {IS_ENTRY} AND {LIVE}
ORDER BY key
LIMIT +?
"""

# These three continue a SELECT or a DELETE. The unique index on (path, key)
ENTRY = "FROM items WHERE path = ? AND key = ?"

# The partial index items_expiry, and not the log's range: costs by what has expired
COUNT_EXPIRED_ENTRIES = f"""
SELECT count(*) FROM items WHERE +path = ? AND expires_at <= ? AND {IS_ENTRY}
"""
EXPIRED_ENTRIES = f"FROM items WHERE +path = ? AND expires_at <= ? AND {IS_ENTRY}"

# The beginning of the range
OLDEST_ENTRIES = f"""
FROM items
WHERE id IN (
    SELECT id FROM items
    WHERE path = ? AND key <= '{LAST_KEY}' AND {IS_ENTRY}
    ORDER BY key LIMIT +?
)
"""

HAS_ITEMS = f"SELECT EXISTS (SELECT 1 FROM items WHERE path = ? AND {LIVE})"

# The primary key; a subtree is a range
GET_SEQUENCES = """
SELECT path, kind, last, trimmed FROM sequences
WHERE path >= ?1 AND (?2 IS NULL OR path < ?2)
ORDER BY path
"""

SKIP_POSITIONS = "UPDATE sequences SET last = last + ?"

# Jobs. The primary key
_JOB = "path, position, state, due, span, attempt, token, is_last, name, error"
GET_JOB = f"SELECT {_JOB} FROM jobs WHERE path = ? AND position = ?"
ERASE_JOB = "DELETE FROM jobs WHERE path = ? AND position = ?"
WRITE_JOB = f"""
INSERT INTO jobs ({_JOB}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path, position) DO UPDATE SET
    state = excluded.state,
    due = excluded.due,
    span = excluded.span,
    attempt = excluded.attempt,
    token = excluded.token,
    is_last = excluded.is_last,
    name = excluded.name,
    error = excluded.error
"""

# The partial index jobs_name
GET_NAMED_JOB = f"SELECT {_JOB} FROM jobs WHERE path = ? AND name = ? AND state < 3"

# The index jobs_order; each of a range of one state
FIRST_READY = f"SELECT {_JOB} FROM jobs WHERE path = ? AND state = 0 ORDER BY due, position LIMIT 1"
ARE_ANY_DUE = """
SELECT EXISTS (SELECT 1 FROM jobs WHERE path = ?1 AND state = 1 AND due <= ?2),
    EXISTS (SELECT 1 FROM jobs WHERE path = ?1 AND state = 2 AND due <= ?2)
"""
ARE_MANY_DUE = """
SELECT EXISTS (SELECT 1 FROM jobs WHERE path = ? AND state = 1 AND due <= ? LIMIT 1 OFFSET 16)
"""
WAKE_JOBS = "UPDATE jobs SET state = 0, due = 0 WHERE path = ? AND state = 1 AND due <= ?"
JOBS_OVER = f"SELECT {_JOB} FROM jobs WHERE path = ? AND state = 2 AND due <= ?"
JOBS_FAR = f"SELECT {_JOB} FROM jobs WHERE path = ? AND state IN (1, 2) AND due > ? + span"
HELD_JOB = f"SELECT {_JOB} FROM jobs WHERE path = ? AND state = 2 AND token = ?"
IS_RIPE = """
SELECT EXISTS (SELECT 1 FROM jobs WHERE path = ?1 AND state = 0)
    OR EXISTS (SELECT 1 FROM jobs WHERE path = ?1 AND state = 1 AND due <= ?2)
    OR EXISTS (SELECT 1 FROM jobs WHERE path = ?1 AND state = 2 AND due <= ?2)
    OR EXISTS (SELECT 1 FROM sequences WHERE path = ?1 AND seen > ?2)
"""
COUNT_OVER = """
SELECT
    (SELECT count(*) FROM jobs WHERE path = ?1 AND state = 1 AND due <= ?2),
    (SELECT count(*) FROM jobs WHERE path = ?1 AND state = 2 AND due <= ?2 AND NOT is_last),
    (SELECT count(*) FROM jobs WHERE path = ?1 AND state = 2 AND due <= ?2 AND is_last)
"""
JOBS_OF_NOTE = f"""
SELECT {_JOB} FROM jobs
WHERE path = ? AND NOT (state = 0 AND attempt = 0 AND name IS NULL AND error IS NULL)
ORDER BY position
"""
ITEMS_WITHOUT_JOB = f"""
SELECT key FROM items
WHERE path = ? AND key <= '{LAST_KEY}' AND {IS_ENTRY} AND NOT EXISTS (
    SELECT 1 FROM jobs
    WHERE jobs.path = items.path AND jobs.position = CAST(items.key AS INTEGER)
)
"""
DEAD_JOBS = f"SELECT {_JOB} FROM jobs WHERE path = ? AND state = 3 ORDER BY due, position LIMIT +?"

"""The statements of logs and queues, with the index each expects."""

from __future__ import annotations

from kvstore.sequences import DIGITS, LAST_KEY, LAST_POSITION
from kvstore.sqlite.statements import LIVE, OCTETS, REST, ROW, replacing

# Logs and queues. The primary key; how many are leased is counted, and not kept
_COUNTED = "kind", "last", "trimmed", "size", "delayed"
_JUDGED = "dead", "seen", "noted", "soonest"
_STATE = f"{', '.join(_COUNTED)}, 0, {', '.join(_JUDGED)}"
GET_SEQUENCE = f"SELECT {_STATE} FROM sequences WHERE path = ?"
SET_SEQUENCE = f"""
INSERT INTO sequences (path, {", ".join(_COUNTED)}, leased, {", ".join(_JUDGED)})
VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE {replacing(_COUNTED + _JUDGED)}
"""
IS_ENTRY = (
    f"(key <= '{LAST_KEY}' AND length(CAST(key AS BLOB)) = {DIGITS} AND key NOT GLOB '*[^0-9]*')"
)

# A range of the unique index on (path, key); in a namespace of which no sequence is known
COUNT_ENTRIES = f"""
SELECT count(*), max(key) FROM items WHERE path = ? AND {IS_ENTRY}
"""

# The same, from its end or from a position on
LAST_ENTRIES = f"""
SELECT key, {ROW}
FROM items
WHERE path = ? AND {IS_ENTRY} AND {LIVE}
ORDER BY key DESC
LIMIT +?
"""
ENTRIES_AFTER = f"""
SELECT key, {ROW}
FROM items
WHERE path = ? AND key > ? AND {IS_ENTRY} AND {LIVE}
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
    WHERE path = ? AND {IS_ENTRY}
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

# Jobs. The primary key, once for each state
_JOB = "path, position, state, due, span, attempt, token, is_last, name, error"
_ONE = "path = ? AND state IN (0, 1, 2, 3) AND position = ?"
GET_JOB = f"SELECT {_JOB} FROM jobs WHERE {_ONE}"
ERASE_JOB = f"DELETE FROM jobs WHERE {_ONE}"
ADD_JOB = f"INSERT INTO jobs ({_JOB}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

# The partial index jobs_name
GET_NAMED_JOB = f"SELECT {_JOB} FROM jobs WHERE path = ? AND name = ? AND state < 3"

# The partial index jobs_due
_IS_ANY_DELAY_OVER = "EXISTS (SELECT 1 FROM jobs WHERE path = ?1 AND state = 1 AND due <= ?2)"
IS_ANY_DELAY_OVER = f"SELECT {_IS_ANY_DELAY_OVER}"
ARE_MANY_DUE = """
SELECT EXISTS (SELECT 1 FROM jobs WHERE path = ? AND state = 1 AND due <= ? LIMIT 1 OFFSET 16)
"""
WAKE_JOBS = "UPDATE jobs SET state = 0, due = 0 WHERE path = ? AND state = 1 AND due <= ?"

# The primary key; each of a range of one state
FIRST_READY = f"SELECT {_JOB} FROM jobs WHERE path = ? AND state = 0 ORDER BY position LIMIT 1"
JOBS_OVER = f"SELECT {_JOB} FROM jobs WHERE path = ? AND state = 2 AND due <= ?"
NEXT_OVER = "SELECT min(due) FROM jobs WHERE path = ? AND state = 2 AND due > ?"
JOBS_FAR = f"SELECT {_JOB} FROM jobs WHERE path = ? AND state IN (1, 2) AND due > ? + span"
LEASED_JOBS = f"SELECT {_JOB} FROM jobs WHERE path = ? AND state = 2"
HELD_JOB = f"SELECT {_JOB} FROM jobs WHERE path = ? AND state = 2 AND token = ?"
DEAD_JOBS = f"SELECT {_JOB} FROM jobs WHERE path = ? AND state = 3 ORDER BY position LIMIT +?"
COUNT_OVER = """
SELECT
    (SELECT count(*) FROM jobs WHERE path = ?1 AND state = 1 AND due <= ?2),
    (SELECT count(*) FROM jobs WHERE path = ?1 AND state = 2),
    (SELECT count(*) FROM jobs WHERE path = ?1 AND state = 2 AND due <= ?2 AND NOT is_last),
    (SELECT count(*) FROM jobs WHERE path = ?1 AND state = 2 AND due <= ?2 AND is_last)
"""
JOBS_OF_NOTE = f"""
SELECT {_JOB} FROM jobs
WHERE path = ? AND NOT (state = 0 AND attempt = 0 AND name IS NULL AND error IS NULL)
ORDER BY position
"""

# Jobs that nobody has taken yet. A range of the unique index on (path, key) of items, and for each
# of its rows the primary key of jobs: it costs by the jobs of which `noted` does not know yet
_IS_NEW = f"""
items.path = ?1 AND {IS_ENTRY} AND NOT EXISTS (
    SELECT 1 FROM jobs
    WHERE jobs.path = ?1 AND jobs.state IN (0, 1, 2, 3)
        AND jobs.position = CAST(items.key AS INTEGER)
)
"""
FIRST_NEW = f"SELECT key FROM items WHERE items.key > ?2 AND {_IS_NEW} ORDER BY key LIMIT 1"
ITEMS_WITHOUT_JOB = f"SELECT key FROM items WHERE items.key <= ?2 AND {_IS_NEW}"

_FIRST_NEW_ID = f"""
SELECT id FROM items
WHERE items.key > printf('%0{DIGITS}d', sequences.noted) AND {_IS_NEW}
ORDER BY key LIMIT 1
"""
IS_RIPE = f"""
SELECT EXISTS (SELECT 1 FROM jobs WHERE path = ?1 AND state = 0)
    OR {_IS_ANY_DELAY_OVER}
    OR EXISTS (
        SELECT 1 FROM sequences
        WHERE path = ?1 AND (
            seen > ?2
            OR EXISTS ({_FIRST_NEW_ID})
            OR soonest <= ?2 AND EXISTS (
                SELECT 1 FROM jobs WHERE jobs.path = ?1 AND state = 2 AND due <= ?2
            )
        )
    )
"""

# What a queue lives by, each in as few statements as may be; see `kvstore.sqlite.sequence_writing`
GIVE_POSITION = f"""
UPDATE sequences SET last = last + 1, size = size + 1
WHERE path = ? AND kind = 'queue' AND last < {LAST_POSITION}
RETURNING last
"""
LOOK_FOR_JOB = f"""
SELECT sequences.kind, last, seen, noted, soonest, {_IS_ANY_DELAY_OVER},
    EXISTS (SELECT 1 FROM jobs WHERE path = ?1 AND state = 0),
    items.key, CASE WHEN {OCTETS} <= ?3 THEN CAST(value AS BLOB) END, {REST}
FROM sequences LEFT JOIN items ON items.id = ({_FIRST_NEW_ID})
WHERE sequences.path = ?1
"""
LEASE_NEW = f"""
INSERT INTO jobs ({_JOB}) VALUES (?, ?, 2, ?, ?, 1, ?, ?, NULL, NULL)
"""
SET_NOTED = "UPDATE sequences SET seen = ?, noted = ?, soonest = ? WHERE path = ?"
END_LEASE = """
DELETE FROM jobs WHERE path = ? AND position = ? AND state = 2 AND token = ? AND due > ?
"""
DELETE_JOB = f"DELETE FROM items WHERE path = ? AND key = ? AND {OCTETS} <= ?"
COUNT_DONE = "UPDATE sequences SET size = size - 1 WHERE path = ?"

# Upkeep. All logs and queues, and of each its range
CHECK_SEQUENCES = f"SELECT path, {_STATE} FROM sequences"
COUNT_STATES = "SELECT state, count(*) FROM jobs WHERE path = ? GROUP BY state"
JOBS_OF_NO_QUEUE = """
SELECT DISTINCT path FROM jobs
WHERE NOT EXISTS (SELECT 1 FROM sequences WHERE path = jobs.path AND kind = 'queue')
"""
# What has a lifetime goes by itself
ITEMS_NO_JOBS = f"""
SELECT key FROM items WHERE path = ? AND NOT {IS_ENTRY} AND expires_at IS NULL
"""
JOBS_WITHOUT_ITEM = f"""
SELECT position FROM jobs
WHERE path = ? AND NOT EXISTS (
    SELECT 1 FROM items WHERE items.path = jobs.path AND key = printf('%0{DIGITS}d', position)
)
"""
MEASURE_SEQUENCES = """
SELECT
    (SELECT count(*) FROM sequences WHERE kind = 'log'),
    (SELECT count(*) FROM sequences WHERE kind = 'queue'),
    (SELECT coalesce(sum(dead), 0) FROM sequences)
"""

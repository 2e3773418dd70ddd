"""The statements of logs and queues, with the index each expects; each is about one root."""

from __future__ import annotations

from kvstore.postgres.statements import ROW, live_at
from kvstore.sequences import DIGITS, LAST_KEY

IS_ENTRY = (
    f"(items.key <= '{LAST_KEY}' AND length(items.key) = {DIGITS} AND items.key ~ '^[0-9]+$')"
)

# Logs and queues. The primary key
GET_STATES = """
SELECT path, kind, last, trimmed, size, delayed, leased, dead, seen, head
FROM kvstore_sequences WHERE root = $1 AND path = ANY ($2::text[])
"""
# A range of the primary key of items; in a namespace of which no sequence is known
COUNT_ENTRIES = f"""
SELECT count(*) FILTER (WHERE {IS_ENTRY}), max(items.key) FILTER (WHERE {IS_ENTRY}),
    count(*) FILTER (WHERE {live_at("$3")}) > 0
FROM kvstore_items AS items
WHERE items.root = $1 AND items.path = $2
"""

# The primary keys, from the end of a log or from a position on; a row without an item if there is
# none, and without a log if there is no such log
_ENTRIES = f"""
SELECT sequences.kind, sequences.last, sequences.trimmed, sequences.size, items.*
FROM kvstore_roots AS roots
LEFT JOIN kvstore_sequences AS sequences ON sequences.root = $1 AND sequences.path = $2
LEFT JOIN LATERAL (
    SELECT items.key, {ROW} FROM kvstore_items AS items
    WHERE items.root = $1 AND items.path = $2 AND {IS_ENTRY} AND {live_at("$3")} {{after}}
    ORDER BY items.key {{direction}}
    LIMIT $4
) AS items ON TRUE
WHERE roots.root = $1
ORDER BY items.key
"""
LAST_ENTRIES = _ENTRIES.format(after="", direction="DESC")
ENTRIES_AFTER = _ENTRIES.format(after="AND items.key > $5", direction="")

# The partial index kvstore_items_expiry, and not the log's range: costs by what has expired
_EXPIRED = f"""
FROM kvstore_items AS items
WHERE items.root = $1 AND items.path || '' = $2 AND items.expires_at <= $3 AND {IS_ENTRY}
"""
COUNT_EXPIRED_ENTRIES = f"SELECT count(*) {_EXPIRED}"
LENGTH = f"""
SELECT sequences.size - ({COUNT_EXPIRED_ENTRIES})
FROM kvstore_sequences AS sequences
WHERE sequences.root = $1 AND sequences.path = $2
"""
FIND_EXPIRED_ENTRIES = f"SELECT items.key {_EXPIRED} ORDER BY items.key"

# The primary key, from the end or from the beginning of the range
_ENTRIES_HERE = f"""
FROM kvstore_items AS items
WHERE items.root = $1 AND items.path = $2 AND {IS_ENTRY}
"""
FIND_OLDEST = f"SELECT items.key {_ENTRIES_HERE} ORDER BY items.key LIMIT $3"
FIND_NEWEST = f"""
SELECT items.key, {ROW} {_ENTRIES_HERE} AND {live_at("$3")} ORDER BY items.key DESC LIMIT 1
"""

# The primary key; one root, or all of them
GET_SEQUENCES = """
SELECT path, kind, last, trimmed FROM kvstore_sequences
WHERE ($1 = '' OR root = $1) AND path >= $2 AND ($3::text IS NULL OR path < $3)
ORDER BY root, path
"""
# Jobs. The primary key
_JOB = """jobs.path, jobs.position, jobs.state, jobs.due, jobs.span, jobs.attempt, jobs.token,
    jobs.is_last, jobs.name, jobs.error"""
_JOBS = f"SELECT {_JOB} FROM kvstore_jobs AS jobs WHERE jobs.root = $1 AND jobs.path = $2"

# Put, take and done, where that is all there is to them
PUT_JOB = "SELECT * FROM kvstore_put_job($1, $2, $3, $4, $5, $6, $7, $8)"
TAKE_JOB = "SELECT * FROM kvstore_take_job($1, $2, $3, $4, $5, $6, $7, $8, $9)"
FINISH_JOB = "SELECT kvstore_finish_job($1, $2, $3, $4, $5, $6, $7, $8, $9)"
# What such a call has done whose answer was lost. The range of the queue; its leased jobs
FIND_PUT_JOB = "SELECT key FROM kvstore_items WHERE root = $1 AND path = $2 AND version = $3"
FIND_TAKEN_JOB = f"""
SELECT jobs.position, jobs.attempt, {ROW}
FROM kvstore_jobs AS jobs
JOIN kvstore_items AS items ON items.root = $1 AND items.path = $2
    AND items.key = lpad(jobs.position::text, {DIGITS}, '0')
WHERE jobs.root = $1 AND jobs.path = $2 AND jobs.state = 2 AND jobs.token = $3
"""

# Those that are ready are due at 0; said so that kvstore_jobs_order alone gives them in order, and
# not the primary key, where those that are delayed lie in between
_READY_FROM = "(jobs.due, jobs.position) >= (0, {}) AND jobs.due <= 0".format

# What a transaction needs of a queue, each part by its index: by position the primary key, by name
# kvstore_jobs_name, the rest by kvstore_jobs_order. $3 is the instant; $8 is how many ready ones
# are wanted, from position $9 on; $10, whether what time alone changes is, and $11 the latest
# instant that was seen. Of the delayed ones that are due one is enough to tell. Of those that may
# be taken, the items come along.
GET_JOBS = f"""
SELECT jobs.*, {ROW}
FROM (
{_JOBS} AND jobs.position = ANY ($4::bigint[])
UNION ALL
{_JOBS} AND left(jobs.name, 16) = ANY ($5::text[]) AND jobs.name = ANY ($6::text[])
    AND jobs.state < 3
UNION ALL
{_JOBS} AND jobs.state = 2 AND jobs.token = ANY ($7::bigint[])
UNION ALL
({_JOBS} AND jobs.state = 0 AND {_READY_FROM("$9")}
ORDER BY jobs.due, jobs.position LIMIT $8)
UNION ALL
{_JOBS} AND jobs.state = 2 AND jobs.due <= $3 AND $10::bool
UNION ALL
({_JOBS} AND jobs.state = 1 AND jobs.due <= $3 AND $10::bool LIMIT 1)
UNION ALL
{_JOBS} AND jobs.state IN (1, 2) AND $11::bigint > $3 AND $10::bool AND jobs.due > $3 + jobs.span
) AS jobs
LEFT JOIN LATERAL (
    SELECT * FROM kvstore_items AS items
    WHERE items.root = $1 AND items.path = $2
        AND items.key = lpad(jobs.position::text, {DIGITS}, '0')
    LIMIT 1
) AS items ON $8 > 0 AND jobs.state IN (0, 2)
"""
LEASED_JOBS = f"{_JOBS} AND jobs.state = 2"
WAKE_JOBS = """
WITH woken AS (
    UPDATE kvstore_jobs SET state = 0, due = 0
    WHERE root = $1 AND path = $2 AND state = 1 AND due <= $3
    RETURNING position
)
SELECT count(*), min(position) FROM woken
"""

_FIRST = """(
        SELECT jobs.position FROM kvstore_jobs AS jobs
        WHERE jobs.root = $1 AND jobs.path = $2 AND jobs.state = {state} AND {condition}
        ORDER BY jobs.due, jobs.position LIMIT 1
    ) IS NOT NULL""".format
IS_RIPE = f"""
SELECT sequences.seen > $3
    OR {_FIRST(state=0, condition=_READY_FROM("sequences.head"))}
    OR {_FIRST(state=1, condition="jobs.due <= $3")}
    OR {_FIRST(state=2, condition="jobs.due <= $3")}
FROM kvstore_sequences AS sequences
WHERE sequences.root = $1 AND sequences.path = $2
"""
SIZE_OF_QUEUE = """
SELECT sequences.size, sequences.delayed, sequences.leased, sequences.dead,
    count(*) FILTER (WHERE jobs.state = 1),
    count(*) FILTER (WHERE jobs.state = 2 AND NOT jobs.is_last),
    count(*) FILTER (WHERE jobs.state = 2 AND jobs.is_last)
FROM kvstore_sequences AS sequences
LEFT JOIN kvstore_jobs AS jobs
    ON jobs.root = $1 AND jobs.path = $2 AND jobs.state IN (1, 2) AND jobs.due <= $3
WHERE sequences.root = $1 AND sequences.path = $2
GROUP BY sequences.size, sequences.delayed, sequences.leased, sequences.dead
"""
# With their items, in order
DEAD_JOBS = f"""
SELECT dead.*, {ROW}
FROM (
    ({_JOBS} AND jobs.state = 3 AND jobs.due = 0 ORDER BY jobs.position LIMIT $4)
    UNION ALL
    ({_JOBS} AND jobs.state = 2 AND jobs.due <= $3 AND jobs.is_last ORDER BY jobs.position LIMIT $4)
) AS dead
JOIN kvstore_items AS items
    ON items.root = $1 AND items.path = $2 AND items.key = lpad(dead.position::text, {DIGITS}, '0')
ORDER BY dead.position
LIMIT $4
"""
JOBS_OF_NOTE = f"""
{_JOBS} AND NOT (
    jobs.state = 0 AND jobs.attempt = 0 AND jobs.name IS NULL AND jobs.error IS NULL
)
ORDER BY jobs.position
"""
ITEMS_WITHOUT_JOB = f"""
SELECT items.key FROM kvstore_items AS items
WHERE items.root = $1 AND items.path = $2 AND {IS_ENTRY}
    AND NOT EXISTS (
        SELECT 1 FROM kvstore_jobs AS jobs
        WHERE jobs.root = $1 AND jobs.path = $2 AND jobs.position = items.key::bigint
    )
ORDER BY items.key
"""

# The whole table
MEASURE = """
SELECT count(*) FILTER (WHERE kind = 'log'), count(*) FILTER (WHERE kind = 'queue'),
    coalesce(sum(dead), 0)
FROM kvstore_sequences
"""

# What has a lifetime goes by itself. The primary key, for each queue
ITEMS_NO_JOBS = f"""
SELECT items.path, items.key
FROM kvstore_sequences AS sequences
JOIN kvstore_items AS items ON items.root = sequences.root AND items.path = sequences.path
WHERE sequences.kind = 'queue' AND NOT {IS_ENTRY} AND items.expires_at IS NULL
ORDER BY items.path, items.key
"""

# What is kept of each, and what there is. The whole tables
CHECK_SEQUENCES = f"""
SELECT sequences.path, sequences.kind, sequences.last, sequences.size, sequences.delayed,
    sequences.leased, sequences.dead, entries.last, entries.number, jobs.*
FROM kvstore_sequences AS sequences
CROSS JOIN LATERAL (
    SELECT max(items.key) AS last, count(*) AS number
    FROM kvstore_items AS items
    WHERE items.root = sequences.root AND items.path = sequences.path
        AND {IS_ENTRY}
) AS entries
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2),
        count(*) FILTER (WHERE state = 3), count(*)
    FROM kvstore_jobs AS jobs
    WHERE jobs.root = sequences.root AND jobs.path = sequences.path
) AS jobs
ORDER BY sequences.root, sequences.path
"""

-- The past lies with the changes that ended it: one row for each change, where there were two.

ALTER TABLE changes ADD COLUMN was INTEGER;         -- the version of the item that it ended; NULL: it
                                                    -- ended none, or that is not kept
ALTER TABLE changes ADD COLUMN created_at INTEGER;  -- from here on as in items, of the item that was
ALTER TABLE changes ADD COLUMN updated_at INTEGER;
ALTER TABLE changes ADD COLUMN checksum INTEGER;
ALTER TABLE changes ADD COLUMN expires_at INTEGER;
ALTER TABLE changes ADD COLUMN ttl INTEGER;
ALTER TABLE changes ADD COLUMN indexing TEXT;
ALTER TABLE changes ADD COLUMN value TEXT;          -- NULL: that of the version after it; '': forgotten

INSERT INTO changes (
    version, kind, path, key, at, was, created_at, updated_at, checksum, expires_at, ttl, indexing,
    value
)
SELECT ended, ended_by, path, key, ended_at, version, created_at, updated_at, checksum, expires_at,
    ttl, indexing, value
FROM past
WHERE true
ON CONFLICT (version) DO UPDATE SET
    was = excluded.was,
    created_at = excluded.created_at,
    updated_at = excluded.updated_at,
    checksum = excluded.checksum,
    expires_at = excluded.expires_at,
    ttl = excluded.ttl,
    indexing = excluded.indexing,
    value = excluded.value;

DROP TABLE past;

CREATE INDEX changes_was ON changes (path, key, was) WHERE was IS NOT NULL;

-- The items and the store's own numbers.

CREATE TABLE items (
    id INTEGER PRIMARY KEY,        -- never changes while the item lives; index entries refer to it
    path TEXT NOT NULL,            -- the namespace, its labels joined (kvstore/namespace.py)
    key TEXT NOT NULL,
    version INTEGER NOT NULL,      -- of the store, at the item's last write
    created_at INTEGER NOT NULL,   -- this and the next two: microseconds since the epoch
    updated_at INTEGER NOT NULL,
    expires_at INTEGER,            -- NULL: never
    ttl INTEGER,                   -- microseconds; what a refreshing read adds to its time
    indexing TEXT,                 -- NULL: the store's fields; else a JSON list of paths
    checksum INTEGER NOT NULL,     -- CRC-32 of path, key, version and value
    value TEXT NOT NULL,           -- JSON (kvstore/codec.py); last, so that long ones cost nothing above
    UNIQUE (path, key)             -- path leads: a namespace and a subtree are each one range
);

CREATE INDEX items_expiry ON items (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;

INSERT INTO meta (name, value) VALUES ('version', 0);

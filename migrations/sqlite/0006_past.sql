-- The past: what was replaced, deleted or expired, while a store asks for its history.

CREATE TABLE past (
    ended INTEGER PRIMARY KEY,     -- the store's version with which it ceased to be
    ended_at INTEGER NOT NULL,     -- the instant of that, in microseconds since the epoch
    ended_by TEXT NOT NULL CHECK (ended_by IN ('put', 'delete', 'expire')),
    path TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,      -- from here on as in items
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    value TEXT,                    -- NULL: that of the version after it; '': forgotten
    expires_at INTEGER,
    ttl INTEGER,
    indexing TEXT
);

CREATE INDEX past_versions ON past (path, key, version);

-- For how long the past is kept, in microseconds; 0: it is not.
INSERT INTO meta (name, value) VALUES ('history', 0);

-- Until when that holds, unless a store asks for it again.
INSERT INTO meta (name, value) VALUES ('history_until', 0);

-- Every state from this version on can be told, and the instant of that.
INSERT INTO meta (name, value) VALUES ('history_begin', 0);
INSERT INTO meta (name, value) VALUES ('history_begin_at', 0);

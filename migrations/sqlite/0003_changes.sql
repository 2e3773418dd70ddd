-- The change feed: written while somebody watches, and for a while after.

CREATE TABLE changes (
    version INTEGER PRIMARY KEY,   -- of the store, at which it happened
    kind TEXT NOT NULL CHECK (kind IN ('put', 'delete', 'expire')),
    path TEXT NOT NULL,
    key TEXT NOT NULL,
    at INTEGER NOT NULL            -- microseconds since the epoch
);

-- When the recording may end, in microseconds since the epoch. 0: nothing is recorded; below 0:
-- it was over at that instant, and ends unless a watcher renews it.
INSERT INTO meta (name, value) VALUES ('watched_until', 0);

-- While there is a recording, every change after this version is in the table.
INSERT INTO meta (name, value) VALUES ('changes_begin', 0);

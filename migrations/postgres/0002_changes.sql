-- The change feed: written while somebody watches, and for a while after.
--
-- kvstore_state.watched_until says when the recording may end, in microseconds since the epoch.
-- 0: nothing is recorded; below 0: it was over at that instant, and ends unless a watcher renews
-- it. While there is a recording, every change after changes_begin is in the table.
CREATE TABLE kvstore_changes (
    version bigint PRIMARY KEY,         -- of the store, at which it happened
    kind text NOT NULL CHECK (kind IN ('put', 'delete', 'expire')),
    path text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    at bigint NOT NULL                  -- microseconds since the epoch
);

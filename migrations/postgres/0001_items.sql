-- The items and the store's own numbers. Names begin with kvstore_, because the schema is often
-- shared with the tables of an application.

-- The first label of the namespace leads every key, so that engines which hash rows over machines
-- can hash by it. COLLATE "C" orders by code point, as Python does.
CREATE TABLE kvstore_items (
    root text COLLATE "C" NOT NULL,     -- the namespace's first label, as it begins its path
    path text COLLATE "C" NOT NULL,     -- the namespace, its labels joined (kvstore/namespace.py)
    key text COLLATE "C" NOT NULL,      -- escaped as labels are: a text here cannot hold NUL
    version bigint NOT NULL,            -- of the store, at the item's last write
    created_at bigint NOT NULL,         -- this and the next two: microseconds since the epoch
    updated_at bigint NOT NULL,
    expires_at bigint,                  -- NULL: never
    ttl bigint,                         -- microseconds; what a refreshing read adds to its time
    indexing text,                      -- NULL: the store's fields; else a JSON list of paths
    value text NOT NULL,                -- JSON (kvstore/codec.py), to the byte
    PRIMARY KEY (root, path, key)
) WITH (fillfactor = 80);               -- room to update in place, with no entry in an index

CREATE INDEX kvstore_items_expiry ON kvstore_items (expires_at) WHERE expires_at IS NOT NULL;

-- One row, which every write locks: versions are given out in the order of commits.
CREATE TABLE kvstore_state (
    id smallint PRIMARY KEY CHECK (id = 1),
    version bigint NOT NULL,
    turn bigint NOT NULL,               -- another one after each write transaction
    watched_until bigint NOT NULL,      -- see 0002_changes.sql
    changes_begin bigint NOT NULL,
    index text                          -- the search index's description; NULL: there is none
) WITH (fillfactor = 10);               -- room for its next versions, on the same page

INSERT INTO kvstore_state (id, version, turn, watched_until, changes_begin) VALUES (1, 0, 0, 0, 0);

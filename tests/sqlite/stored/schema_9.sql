PRAGMA application_id = 1802924916;
PRAGMA user_version = 9;
BEGIN TRANSACTION;
CREATE TABLE changes (
    version INTEGER PRIMARY KEY,   -- of the store, at which it happened
    kind TEXT NOT NULL CHECK (kind IN ('put', 'delete', 'expire')),
    path TEXT NOT NULL,
    key TEXT NOT NULL,
    at INTEGER NOT NULL            -- microseconds since the epoch
, was INTEGER, created_at INTEGER, updated_at INTEGER, checksum INTEGER, expires_at INTEGER, ttl INTEGER, indexing TEXT, value TEXT);
INSERT INTO "changes" VALUES(1,'put','users	ann	','name',1750000000000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(2,'put','users	ann	','name',1750000000000000,1,1750000000000000,1750000000000000,1186486615,NULL,NULL,NULL,'{"first":"Ann","photo":{"$bytes":"AP8="}}');
INSERT INTO "changes" VALUES(3,'put','','root',1750000000000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(4,'put','users	ann	','old',1750000000000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(5,'put','users	ann	','long',1750000000000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(6,'put','users	bob	','gone',1750000000000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(7,'delete','users	bob	','gone',1750000010000000,6,1750000000000000,1750000000000000,364277369,NULL,NULL,NULL,'1');
INSERT INTO "changes" VALUES(8,'put','chats	s1	','0000000000000000001',1750000010000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(9,'put','chats	s1	','0000000000000000002',1750000010000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(10,'put','chats	s1	','0000000000000000003',1750000010000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(11,'put','chats	s1	','0000000000000000004',1750000010000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(12,'delete','chats	s1	','0000000000000000001',1750000010000000,8,1750000010000000,1750000010000000,1021157358,NULL,NULL,NULL,'"a"');
INSERT INTO "changes" VALUES(13,'delete','chats	s1	','0000000000000000004',1750000010000000,11,1750000010000000,1750000010000000,1700569834,NULL,NULL,NULL,'"d"');
INSERT INTO "changes" VALUES(14,'put','e	','0000000000000000001',1750000010000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(15,'delete','e	','0000000000000000001',1750000010000000,14,1750000010000000,1750000010000000,805396653,NULL,NULL,NULL,'"x"');
INSERT INTO "changes" VALUES(16,'put','jobs	','0000000000000000001',1750000010000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(17,'put','jobs	','0000000000000000002',1750000010000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(18,'put','jobs	','0000000000000000003',1750000010000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(19,'put','jobs	','0000000000000000004',1750000010000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(20,'put','jobs	','0000000000000000005',1750000010000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(21,'put','jobs	','0000000000000000006',1750000010000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "changes" VALUES(22,'put','others	','0000000000000000001',1750000010000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE index_dropped (
    item INTEGER PRIMARY KEY,      -- items.id
    path TEXT NOT NULL
);
CREATE TABLE index_entries (
    item INTEGER PRIMARY KEY,      -- items.id
    slots BLOB NOT NULL            -- 16 bytes for each vector: its text's hash; zeros: a free slot
, words BLOB NOT NULL DEFAULT x'', length INTEGER NOT NULL DEFAULT 0);
CREATE TABLE index_garbage (
    vector INTEGER PRIMARY KEY     -- rowid in vectors_small or vectors_large
);
CREATE TABLE index_pending (
    item INTEGER PRIMARY KEY       -- items.id
);
CREATE TABLE index_roots (
    root TEXT PRIMARY KEY,
    items INTEGER NOT NULL,
    length INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE index_writes (
    path TEXT PRIMARY KEY,
    writes INTEGER NOT NULL
) WITHOUT ROWID;
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
INSERT INTO "items" VALUES(1,'users	ann	','name',2,1750000000000000,1750000000000000,NULL,NULL,NULL,113103928,'{"first":"Anna","photo":{"$bytes":"AP8="}}');
INSERT INTO "items" VALUES(2,'','root',3,1750000000000000,1750000000000000,NULL,NULL,NULL,1334132386,'[1,2.5,null,true,"é"]');
INSERT INTO "items" VALUES(3,'users	ann	','old',4,1750000000000000,1750000000000000,1750000005000000,5000000,NULL,1119572716,'"expired"');
INSERT INTO "items" VALUES(4,'users	ann	','long',5,1750000000000000,1750000000000000,4912240000000000,3162240000000000,NULL,24045812,'"lasting"');
INSERT INTO "items" VALUES(6,'chats	s1	','0000000000000000002',9,1750000010000000,1750000010000000,NULL,NULL,NULL,195201810,'"b"');
INSERT INTO "items" VALUES(7,'chats	s1	','0000000000000000003',10,1750000010000000,1750000010000000,NULL,NULL,NULL,3106792517,'"c"');
INSERT INTO "items" VALUES(8,'jobs	','0000000000000000001',16,1750000010000000,1750000010000000,NULL,NULL,NULL,3920008105,'"dead"');
INSERT INTO "items" VALUES(9,'jobs	','0000000000000000002',17,1750000010000000,1750000010000000,NULL,NULL,NULL,2611617750,'"tried"');
INSERT INTO "items" VALUES(10,'jobs	','0000000000000000003',18,1750000010000000,1750000010000000,NULL,NULL,NULL,1313308099,'"named"');
INSERT INTO "items" VALUES(11,'jobs	','0000000000000000004',19,1750000010000000,1750000010000000,NULL,NULL,NULL,59828416,'"delayed"');
INSERT INTO "items" VALUES(12,'jobs	','0000000000000000005',20,1750000010000000,1750000010000000,NULL,NULL,NULL,3586257315,'"new 1"');
INSERT INTO "items" VALUES(13,'jobs	','0000000000000000006',21,1750000010000000,1750000010000000,NULL,NULL,NULL,2122599762,'"new 2"');
INSERT INTO "items" VALUES(14,'others	','0000000000000000001',22,1750000010000000,1750000010000000,NULL,NULL,NULL,3675580765,'"held"');
CREATE TABLE jobs (
    path TEXT NOT NULL,
    position INTEGER NOT NULL,
    state INTEGER NOT NULL,        -- 0 ready, 1 delayed, 2 leased, 3 dead
    due INTEGER NOT NULL,          -- microseconds since the epoch: of a delayed one, when it will be
                                   -- ready; of a leased one, when the lease ends; else 0
    span INTEGER NOT NULL,         -- how long that was, when it was set
    attempt INTEGER NOT NULL,      -- how often it was taken
    token INTEGER NOT NULL,        -- of the last take; 0: none holds it
    is_last INTEGER NOT NULL,      -- whether the last take was the last that it may have
    name TEXT,                     -- no two jobs of a queue that wait or run have the same
    error TEXT,                    -- of the last attempt that failed
    PRIMARY KEY (path, state, position)  -- each state is a range by itself
) WITHOUT ROWID;
INSERT INTO "jobs" VALUES('jobs	',2,0,0,30000000,1,244880701660942150,0,NULL,'once');
INSERT INTO "jobs" VALUES('jobs	',3,0,0,0,0,0,0,'n',NULL);
INSERT INTO "jobs" VALUES('jobs	',4,1,1750003610000000,3600000000,0,0,0,NULL,NULL);
INSERT INTO "jobs" VALUES('jobs	',1,3,0,30000000,2,224861512440053176,1,NULL,'why');
INSERT INTO "jobs" VALUES('others	',1,2,1750000610000000,600000000,1,3605667299999999979,0,NULL,NULL);
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;
INSERT INTO "meta" VALUES('changes_begin',0);
INSERT INTO "meta" VALUES('history',316224000000000);
INSERT INTO "meta" VALUES('history_begin',0);
INSERT INTO "meta" VALUES('history_begin_at',1750000000000000);
INSERT INTO "meta" VALUES('history_until',2066224000000000);
INSERT INTO "meta" VALUES('version',22);
INSERT INTO "meta" VALUES('watched_until',0);
CREATE TABLE sequences (
    path TEXT PRIMARY KEY,         -- the namespace
    kind TEXT NOT NULL CHECK (kind IN ('log', 'queue')),
    last INTEGER NOT NULL,         -- the position that was given last; none is given twice
    trimmed INTEGER NOT NULL,      -- the last position that a trim has taken away
    size INTEGER NOT NULL,         -- of the entries or jobs that are there, expired ones included
    delayed INTEGER NOT NULL,      -- this and the next two: how many of the jobs are so
    leased INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    seen INTEGER NOT NULL          -- the latest instant at which a job was put or taken, in
                                   -- microseconds: a clock that was set back is noticed by it
, noted INTEGER NOT NULL DEFAULT 0, soonest INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
INSERT INTO "sequences" VALUES('chats	s1	','log',4,1,2,0,0,0,0,0,0);
INSERT INTO "sequences" VALUES('e	','log',1,1,0,0,0,0,0,0,0);
INSERT INTO "sequences" VALUES('jobs	','queue',6,0,6,1,0,1,1750000010000000,0,1750000040000000);
INSERT INTO "sequences" VALUES('others	','queue',1,0,1,0,0,0,1750000010000000,0,1750000610000000);
CREATE INDEX items_expiry ON items (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX jobs_due ON jobs (path, due) WHERE state = 1;
CREATE UNIQUE INDEX jobs_name ON jobs (path, name) WHERE name IS NOT NULL AND state < 3;
CREATE INDEX changes_was ON changes (path, key, was) WHERE was IS NOT NULL;
COMMIT;

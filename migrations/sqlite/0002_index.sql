-- What the search index needs beside its virtual tables, which are made with the first index:
-- `words` (FTS5, rowid = items.id) and, with the first vector, `vectors_small` and
-- `vectors_large` (vec0, rowid = slot * 2^40 + items.id). Their description is in `meta`, as
-- `index`. See kvstore/sqlite/indexing.py.

-- What of an item is in the index. A row is here exactly if one is in `words`.
CREATE TABLE index_entries (
    item INTEGER PRIMARY KEY,      -- items.id
    slots BLOB NOT NULL            -- 16 bytes for each vector: its text's hash; zeros: a free slot
);

-- Items of which the index does not hold everything that it should.
CREATE TABLE index_pending (
    item INTEGER PRIMARY KEY       -- items.id
);

-- Items that were deleted in the present transaction: a trigger notes them.
CREATE TABLE index_dropped (
    item INTEGER PRIMARY KEY,      -- items.id
    path TEXT NOT NULL
);

-- Vectors that a process without sqlite-vec could not delete.
CREATE TABLE index_garbage (
    vector INTEGER PRIMARY KEY     -- rowid in vectors_small or vectors_large
);

-- How many transactions have changed vectors of a namespace: caches are checked by it.
CREATE TABLE index_writes (
    path TEXT PRIMARY KEY,
    writes INTEGER NOT NULL
) WITHOUT ROWID;

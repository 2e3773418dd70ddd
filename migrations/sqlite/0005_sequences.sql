-- Logs and queues. Their entries and jobs are items, whose keys are positions; what is not one
-- item's is here (kvstore/sequences.py).

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
) WITHOUT ROWID;

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
    PRIMARY KEY (path, position)
) WITHOUT ROWID;

-- Each state by itself and in the order in which it is looked at
CREATE INDEX jobs_order ON jobs (path, state, due, position);

CREATE UNIQUE INDEX jobs_name ON jobs (path, name) WHERE name IS NOT NULL AND state < 3;

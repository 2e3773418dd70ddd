-- Queues write less for each job. One that is ready and that nobody has taken yet has no row in
-- `jobs`: its item says it all. And what a lease writes is in one table alone, in no index beside.

-- Of a queue: up to this position, each job has a row in `jobs`; above it, one without is new.
ALTER TABLE sequences ADD COLUMN noted INTEGER NOT NULL DEFAULT 0;

-- Of a queue: no lease is over before this instant; 0: that is to be found out.
ALTER TABLE sequences ADD COLUMN soonest INTEGER NOT NULL DEFAULT 0;

-- How many jobs are leased is counted when somebody asks, and no longer kept in `leased`.
UPDATE sequences SET noted = last, leased = 0;

ALTER TABLE jobs RENAME TO jobs_before;

DROP INDEX jobs_order;
DROP INDEX jobs_name;

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

INSERT INTO jobs
SELECT path, position, state, due, span, attempt, token, is_last, name, error FROM jobs_before;

DROP TABLE jobs_before;

CREATE INDEX jobs_due ON jobs (path, due) WHERE state = 1;

CREATE UNIQUE INDEX jobs_name ON jobs (path, name) WHERE name IS NOT NULL AND state < 3;

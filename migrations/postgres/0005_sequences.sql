-- Logs and queues. Their entries and jobs are items, whose keys are positions; what is not one
-- item's is here (kvstore/sequences.py, kvstore/jobs.py).
CREATE TABLE kvstore_sequences (
    root text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,     -- the namespace
    kind text NOT NULL CHECK (kind IN ('log', 'queue')),
    last bigint NOT NULL,               -- the position that was given last; none is given twice
    trimmed bigint NOT NULL,            -- the last position that a trim has taken away
    size bigint NOT NULL,               -- of the entries or jobs that are there, with expired ones
    delayed bigint NOT NULL,            -- this and the next two: how many of the jobs are so
    leased bigint NOT NULL,
    dead bigint NOT NULL,
    seen bigint NOT NULL,               -- the latest instant at which a job was put or taken, in
                                        -- microseconds: a clock that was set back is noticed by it
    head bigint NOT NULL,               -- no job below this position is ready: dead versions of
                                        -- those that were are not looked through again
    PRIMARY KEY (root, path)
) WITH (fillfactor = 30);               -- room to update in place

CREATE TABLE kvstore_jobs (
    root text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    state smallint NOT NULL,            -- 0 ready, 1 delayed, 2 leased, 3 dead
    due bigint NOT NULL,                -- microseconds since the epoch: of a delayed one, when it
                                        -- will be ready; of a leased one, when the lease ends
    span bigint NOT NULL,               -- how long that was, when it was set
    attempt bigint NOT NULL,            -- how often it was taken
    token bigint NOT NULL,              -- of the last take; 0: none holds it
    is_last boolean NOT NULL,           -- whether the last take was the last that it may have
    name text,                          -- no two jobs of a queue that wait or run have the same
    error text,                         -- of the last attempt that failed; both escaped as keys are
    PRIMARY KEY (root, path, position)
) WITH (fillfactor = 70);

-- Each state by itself and in the order in which it is looked at
CREATE INDEX kvstore_jobs_order ON kvstore_jobs (root, path, state, due, position);

-- A name may be of any length, and an index's entry may not
CREATE INDEX kvstore_jobs_name ON kvstore_jobs (root, path, left(name, 16))
    WHERE name IS NOT NULL AND state < 3;

-- What was decided about logs, queues and jobs under one root, which the transaction has locked by
-- kvstore_write: states of logs and queues, jobs to write, jobs to delete.
CREATE FUNCTION kvstore_write_sequences(
    the_root text,
    paths text[], kinds text[], lasts bigint[], trims bigint[], sizes bigint[], delays bigint[],
    leases bigint[], deaths bigint[], sights bigint[], heads bigint[],
    job_paths text[], positions bigint[], states smallint[], dues bigint[], spans bigint[],
    attempts bigint[], tokens bigint[], are_last boolean[], names text[], errors text[],
    gone_paths text[], gone_positions bigint[]
)
RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    UPDATE kvstore_roots AS roots SET has_sequences = true
    WHERE roots.root = the_root AND NOT roots.has_sequences;
    INSERT INTO kvstore_sequences (
        root, path, kind, last, trimmed, size, delayed, leased, dead, seen, head
    )
    SELECT roots.root, written.*
    FROM kvstore_roots AS roots, unnest(
        paths, kinds, lasts, trims, sizes, delays, leases, deaths, sights, heads
    ) AS written
    WHERE roots.root = the_root
    ON CONFLICT (root, path) DO UPDATE SET
        kind = excluded.kind,
        last = excluded.last,
        trimmed = excluded.trimmed,
        size = excluded.size,
        delayed = excluded.delayed,
        leased = excluded.leased,
        dead = excluded.dead,
        seen = excluded.seen,
        head = excluded.head;
    IF cardinality(gone_paths) > 0 THEN
        EXECUTE $delete$
            DELETE FROM kvstore_jobs AS jobs USING unnest($2, $3) AS gone (path, position)
            WHERE jobs.root = $1 AND jobs.path = gone.path AND jobs.position = gone.position
        $delete$ USING the_root, gone_paths, gone_positions;
    END IF;
    IF cardinality(job_paths) > 0 THEN
        INSERT INTO kvstore_jobs (
            root, path, position, state, due, span, attempt, token, is_last, name, error
        )
        SELECT roots.root, written.*
        FROM kvstore_roots AS roots, unnest(
            job_paths, positions, states, dues, spans, attempts, tokens, are_last, names, errors
        ) AS written
        WHERE roots.root = the_root
        ON CONFLICT (root, path, position) DO UPDATE SET
            state = excluded.state,
            due = excluded.due,
            span = excluded.span,
            attempt = excluded.attempt,
            token = excluded.token,
            is_last = excluded.is_last,
            name = excluded.name,
            error = excluded.error;
    END IF;
    RETURN true;
END
$$;

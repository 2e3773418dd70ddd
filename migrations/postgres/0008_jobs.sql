-- What a queue lives by, put, take and done, each as one call under a locked root
-- (kvstore/postgres/quick_jobs.py). They come to what kvstore.plan and kvstore.jobs decide. Where that
-- takes more (an index, somebody who watches, a kept past, a lease or a delay that is over), they raise
-- 'not plain', and nothing has happened.
CREATE FUNCTION kvstore_put_job(
    the_root text, the_path text, data text, present bigint, at_least bigint,
    the_writer bigint, first_number bigint, the_number bigint
)
RETURNS TABLE (place bigint, newest bigint)
LANGUAGE plpgsql AS $$
DECLARE
    begun record;
    given bigint;
BEGIN
    SELECT * INTO begun FROM kvstore_advance(
        the_root, NULL, 1, at_least, NULL, present, false, 0, 0,
        the_writer, first_number, the_number
    );
    IF begun.described IS NOT NULL OR begun.watched_until <> 0 OR NOT begun.has_sequences THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
    UPDATE kvstore_sequences AS sequences
    SET last = sequences.last + 1, size = sequences.size + 1,
        seen = greatest(sequences.seen, present)
    WHERE sequences.root = the_root AND sequences.path = the_path AND sequences.kind = 'queue'
    RETURNING sequences.last INTO given;
    IF given IS NULL THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
    INSERT INTO kvstore_items (root, path, key, version, created_at, updated_at, value)
    VALUES (
        the_root, the_path, lpad(given::text, 19, '0'), begun.base + 1, present, present, data
    );
    INSERT INTO kvstore_jobs (
        root, path, position, state, due, span, attempt, token, is_last
    )
    VALUES (the_root, the_path, given, 0, 0, 0, 0, 0, false);
    RETURN QUERY SELECT given, begun.base + 1;
END
$$;

-- No row: no job is ready, and nothing is written.
CREATE FUNCTION kvstore_take_job(
    the_root text, the_path text, the_token bigint, lease bigint, attempts bigint, present bigint,
    the_writer bigint, first_number bigint, the_number bigint
)
RETURNS TABLE (
    place bigint, tried bigint, value text, version bigint, created_at bigint, updated_at bigint,
    expires_at bigint
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    line kvstore_sequences%ROWTYPE;
    job kvstore_jobs%ROWTYPE;
    is_locked boolean := false;
BEGIN
    LOOP
        SELECT * INTO line FROM kvstore_sequences AS sequences
        WHERE sequences.root = the_root AND sequences.path = the_path;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        IF line.kind <> 'queue' OR line.seen > present THEN
            RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
        END IF;
        IF line.delayed > 0 THEN
            PERFORM FROM kvstore_jobs AS jobs
            WHERE jobs.root = the_root AND jobs.path = the_path AND jobs.state = 1
                AND jobs.due <= present;
            IF FOUND THEN
                RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
            END IF;
        END IF;
        IF line.leased > 0 THEN
            PERFORM FROM kvstore_jobs AS jobs
            WHERE jobs.root = the_root AND jobs.path = the_path AND jobs.state = 2
                AND jobs.due <= present;
            IF FOUND THEN
                RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
            END IF;
        END IF;
        SELECT * INTO job FROM kvstore_jobs AS jobs
        WHERE jobs.root = the_root AND jobs.path = the_path AND jobs.state = 0
            AND (jobs.due, jobs.position) >= (0, line.head) AND jobs.due <= 0
        ORDER BY jobs.due, jobs.position LIMIT 1;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        EXIT WHEN is_locked;
        -- Once more, as those before have left it
        PERFORM kvstore_advance(
            the_root, NULL, 0, 0, NULL, present, false, 0, 0,
            the_writer, first_number, the_number
        );
        is_locked := true;
    END LOOP;
    UPDATE kvstore_jobs AS jobs
    SET state = 2, due = present + lease, span = lease, attempt = jobs.attempt + 1,
        token = the_token, is_last = jobs.attempt + 1 >= attempts
    WHERE jobs.root = the_root AND jobs.path = the_path AND jobs.position = job.position;
    UPDATE kvstore_sequences AS sequences
    SET leased = sequences.leased + 1, head = job.position + 1, seen = present
    WHERE sequences.root = the_root AND sequences.path = the_path;
    RETURN QUERY
    SELECT job.position, job.attempt + 1, items.value, items.version, items.created_at,
        items.updated_at, items.expires_at
    FROM kvstore_items AS items
    WHERE items.root = the_root AND items.path = the_path
        AND items.key = lpad(job.position::text, 19, '0');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
END
$$;

CREATE FUNCTION kvstore_finish_job(
    the_root text, the_path text, the_position bigint, the_token bigint, present bigint,
    at_least bigint, the_writer bigint, first_number bigint, the_number bigint
)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    begun record;
    is_there boolean;
BEGIN
    SELECT * INTO begun FROM kvstore_advance(
        the_root, NULL, 1, at_least, NULL, present, false, 0, 0,
        the_writer, first_number, the_number
    );
    IF begun.described IS NOT NULL OR begun.watched_until <> 0 THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
    DELETE FROM kvstore_jobs AS jobs
    WHERE jobs.root = the_root AND jobs.path = the_path AND jobs.position = the_position
        AND jobs.state = 2 AND jobs.token = the_token AND jobs.due > present;
    is_there := FOUND;
    DELETE FROM kvstore_items AS items
    WHERE is_there AND items.root = the_root AND items.path = the_path
        AND items.key = lpad(the_position::text, 19, '0');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
    UPDATE kvstore_sequences AS sequences
    SET size = sequences.size - 1, leased = sequences.leased - 1
    WHERE sequences.root = the_root AND sequences.path = the_path;
    RETURN begun.base + 1;
END
$$;

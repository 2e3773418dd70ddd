-- What a queue lives by, as in 0008_jobs.sql, in fewer statements; and instants that are not in the
-- order of the calls, as those of several processes are, take no more than that (`seen_at` of
-- kvstore/jobs.py).

-- Calls of this kind wait for each other in one line, by an advisory lock, and only the first of them
-- for the root, which is the lock that counts: many that wait for a row wake each other up.

-- Locks a root, and takes its next turn for a call that gives out so many versions; returns the last
-- one. As kvstore_advance does, but by one statement where the writer was among the last ones there.
-- KV003: with the versions goes more than rows.
CREATE FUNCTION kvstore_turn(
    the_root text, more bigint, at_least bigint, present bigint,
    the_writer bigint, first_number bigint, the_number bigint
)
RETURNS bigint
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    root record;
    newest bigint;
BEGIN
    PERFORM pg_advisory_xact_lock('kvstore_roots'::regclass::oid::integer, hashtext(the_root));
    SELECT roots.era, roots.index IS NOT NULL OR roots.watched_until <> 0 AS has_more INTO root
    FROM kvstore_roots AS roots WHERE roots.root = the_root FOR NO KEY UPDATE;
    IF root.has_more AND more <> 0 THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
    UPDATE kvstore_turns AS turns SET
        turn = turns.turn + 1,
        version = greatest(turns.version, at_least) + more,
        instant = greatest(turns.instant, present),
        numbers[array_position(turns.writers, the_writer)] = the_number,
        bases[array_position(turns.writers, the_writer)] = greatest(turns.version, at_least)
    WHERE turns.root = the_root AND turns.era = root.era AND (turns.turn + 1) / 256 = root.era
        AND array_position(turns.writers, the_writer) > cardinality(turns.writers) - 16
        AND turns.numbers[array_position(turns.writers, the_writer)] < first_number
    RETURNING turns.version INTO newest;
    IF newest IS NULL THEN
        SELECT advanced.base + more INTO newest
        FROM kvstore_advance(
            the_root, NULL, more, at_least, NULL, present, false, 0, 0,
            the_writer, first_number, the_number
        ) AS advanced;
    END IF;
    RETURN newest;
END
$$;

CREATE OR REPLACE FUNCTION kvstore_put_job(
    the_root text, the_path text, data text, present bigint, at_least bigint,
    the_writer bigint, first_number bigint, the_number bigint
)
RETURNS TABLE (place bigint, newest bigint)
LANGUAGE plpgsql AS $$
BEGIN
    newest := kvstore_turn(
        the_root, 1, at_least, present, the_writer, first_number, the_number
    );
    UPDATE kvstore_sequences AS sequences SET last = sequences.last + 1, size = sequences.size + 1
    WHERE sequences.root = the_root AND sequences.path = the_path AND sequences.kind = 'queue'
    RETURNING sequences.last INTO place;
    IF place IS NULL THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
    INSERT INTO kvstore_items (root, path, key, version, created_at, updated_at, value)
    VALUES (the_root, the_path, lpad(place::text, 19, '0'), newest, present, present, data);
    INSERT INTO kvstore_jobs (
        root, path, position, state, due, span, attempt, token, is_last
    )
    VALUES (the_root, the_path, place, 0, 0, 0, 0, 0, false);
    RETURN NEXT;
END
$$;

-- No row: no job is ready, and nothing is written.
CREATE OR REPLACE FUNCTION kvstore_take_job(
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
    is_more boolean;
BEGIN
    PERFORM pg_advisory_xact_lock('kvstore_roots'::regclass::oid::integer, hashtext(the_root));
    PERFORM FROM kvstore_roots AS roots WHERE roots.root = the_root FOR NO KEY UPDATE;
    SELECT sequences.kind <> 'queue' OR sequences.seen > present OR (
            sequences.delayed > 0 AND EXISTS (
                SELECT FROM kvstore_jobs AS jobs
                WHERE jobs.root = the_root AND jobs.path = the_path AND jobs.state = 1
                    AND jobs.due <= present
            )
        ) OR (
            sequences.leased > 0 AND EXISTS (
                SELECT FROM kvstore_jobs AS jobs
                WHERE jobs.root = the_root AND jobs.path = the_path AND jobs.state = 2
                    AND jobs.due <= present
            )
        ),
        (
            SELECT jobs.position FROM kvstore_jobs AS jobs
            WHERE jobs.root = the_root AND jobs.path = the_path AND jobs.state = 0
                AND (jobs.due, jobs.position) >= (0, sequences.head) AND jobs.due <= 0
            ORDER BY jobs.due, jobs.position LIMIT 1
        )
    INTO is_more, place
    FROM kvstore_sequences AS sequences
    WHERE sequences.root = the_root AND sequences.path = the_path;
    IF is_more THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
    IF place IS NULL THEN
        RETURN;
    END IF;
    PERFORM kvstore_turn(the_root, 0, 0, present, the_writer, first_number, the_number);
    UPDATE kvstore_jobs AS jobs
    SET state = 2, due = present + lease, span = lease, attempt = jobs.attempt + 1,
        token = the_token, is_last = jobs.attempt + 1 >= attempts
    WHERE jobs.root = the_root AND jobs.path = the_path AND jobs.position = place
    RETURNING jobs.attempt INTO tried;
    UPDATE kvstore_sequences AS sequences
    SET leased = sequences.leased + 1, head = place + 1,
        seen = CASE WHEN present - sequences.seen > lease / 4 THEN present - lease / 8
            ELSE sequences.seen END
    WHERE sequences.root = the_root AND sequences.path = the_path;
    SELECT items.value, items.version, items.created_at, items.updated_at, items.expires_at
    INTO value, version, created_at, updated_at, expires_at
    FROM kvstore_items AS items
    WHERE items.root = the_root AND items.path = the_path
        AND items.key = lpad(place::text, 19, '0');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
    RETURN NEXT;
END
$$;

CREATE OR REPLACE FUNCTION kvstore_finish_job(
    the_root text, the_path text, the_position bigint, the_token bigint, present bigint,
    at_least bigint, the_writer bigint, first_number bigint, the_number bigint
)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    newest bigint;
BEGIN
    newest := kvstore_turn(
        the_root, 1, at_least, present, the_writer, first_number, the_number
    );
    DELETE FROM kvstore_jobs AS jobs
    WHERE jobs.root = the_root AND jobs.path = the_path AND jobs.position = the_position
        AND jobs.state = 2 AND jobs.token = the_token AND jobs.due > present;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
    DELETE FROM kvstore_items AS items
    WHERE items.root = the_root AND items.path = the_path
        AND items.key = lpad(the_position::text, 19, '0');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
    UPDATE kvstore_sequences AS sequences
    SET size = sequences.size - 1, leased = sequences.leased - 1
    WHERE sequences.root = the_root AND sequences.path = the_path;
    RETURN newest;
END
$$;

-- As kvstore_put, of items under several roots at once, by one transaction: puts that wait under many
-- roots are committed together. Nobody is waited for, and what takes more than this is left out, and
-- has no row in the answer: a root that somebody else has locked, that is not there yet, or has an
-- index; one of whose logs or queues something is put into; one whose expired items are to be told of.
--
-- `all_roots` are different ones, `sizes` says how many puts each has, and `offsets` how many those
-- before it have; the puts come in the order of their roots, and `places` says of which one each is.
--
-- Sent again, with a `first_number` below `the_number`, what was done under one of the roots is not done
-- once more: the answer says by which number it was, and `created_at` is that of the item as it is now,
-- or NULL. A root that remembers too few writers to tell is left out.
CREATE FUNCTION kvstore_put_roots(
    all_roots text, sizes integer[], offsets bigint[],
    all_paths text, all_keys text, all_values text, places integer[],
    expiries bigint[], ttls bigint[], indexings text[],
    present bigint, at_least bigint, the_writer bigint, first_number bigint, the_number bigint
)
RETURNS TABLE (
    root text, number bigint, version bigint, created_at bigint, is_watched boolean
)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    the_roots text[] := (string_to_array(all_roots, E'\x01'))[2:];
    paths text[] := (string_to_array(all_paths, E'\x01'))[2:];
    keys text[] := (string_to_array(all_keys, E'\x01'))[2:];
    datas text[] := (string_to_array(all_values, E'\x01'))[2:];
    eras bigint[];
    are_watched boolean[];
    keep_past boolean[];
    have_sequences boolean[];
    rows tid[];
    spots integer[];     -- of the writer, among those of the root
    lasts bigint[];      -- what it sent last
    starts bigint[];     -- the version before; NULL: left out
    moments bigint[];
    are_quick boolean[];
    which integer;
BEGIN
    -- In the order of the roots, here and below: rows of LATERAL come one after the other
    SELECT array_agg(locked.era), array_agg(locked.is_watched), array_agg(locked.keeps_past),
        array_agg(locked.has_sequences)
    INTO eras, are_watched, keep_past, have_sequences
    FROM unnest(the_roots) AS wanted (root)
    LEFT JOIN LATERAL (
        SELECT roots.era, roots.watched_until <> 0 AS is_watched,
            roots.history <> 0 AS keeps_past, roots.has_sequences
        FROM kvstore_roots AS roots
        WHERE roots.root = wanted.root AND roots.index IS NULL
        LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS locked ON TRUE;
    IF TRUE = ANY (have_sequences) THEN
        FOR which IN
            SELECT DISTINCT put.place
            FROM unnest(places, paths) AS put (place, path)
            CROSS JOIN LATERAL (
                SELECT FROM kvstore_sequences AS sequences
                WHERE sequences.root = the_roots[put.place] AND sequences.path = put.path
                LIMIT 1
            ) AS sequences
            WHERE have_sequences[put.place]
        LOOP
            eras[which] := NULL;
        END LOOP;
    END IF;
    IF TRUE = ANY (are_watched) OR TRUE = ANY (keep_past) THEN
        FOR which IN
            SELECT DISTINCT put.place
            FROM unnest(places, paths, keys) AS put (place, path, key)
            CROSS JOIN LATERAL (
                SELECT FROM kvstore_items AS items
                WHERE items.root = the_roots[put.place] AND items.path = put.path
                    AND items.key = put.key AND items.expires_at <= present
                LIMIT 1
            ) AS items
            WHERE are_watched[put.place] OR keep_past[put.place]
        LOOP
            eras[which] := NULL;
        END LOOP;
    END IF;
    SELECT array_agg(known.place), array_agg(known.spot), array_agg(known.last),
        array_agg(
            CASE
                WHEN known.last >= first_number THEN known.old_start
                WHEN known.spot IS NOT NULL OR first_number = the_number OR known.writers < 64
                    THEN known.start
            END
        ),
        array_agg(known.moment),
        array_agg(
            known.is_same_era AND known.last < first_number AND known.spot > known.writers - 16
        )
    INTO rows, spots, lasts, starts, moments, are_quick
    FROM unnest(the_roots, eras) AS wanted (root, era)
    LEFT JOIN LATERAL (
        SELECT turns.ctid AS place, greatest(turns.version, at_least) AS start,
            greatest(turns.instant, present) AS moment,
            (turns.turn + 1) / 256 = turns.era AS is_same_era,
            cardinality(turns.writers) AS writers, writer.spot,
            turns.numbers[writer.spot] AS last, turns.bases[writer.spot] AS old_start
        FROM kvstore_turns AS turns
        CROSS JOIN LATERAL (SELECT array_position(turns.writers, the_writer)) AS writer (spot)
        WHERE turns.root = wanted.root AND turns.era = wanted.era
        LIMIT 1
    ) AS known ON TRUE;
    UPDATE kvstore_turns AS turns SET
        turn = turns.turn + 1,
        version = quick.base + quick.size,
        instant = quick.moment,
        recorded = CASE WHEN quick.is_watched THEN quick.base + quick.size ELSE turns.recorded END,
        numbers[quick.spot] = the_number,
        bases[quick.spot] = quick.base
    FROM unnest(rows, starts, sizes, moments, spots, are_watched, are_quick)
        AS quick (place, base, size, moment, spot, is_watched, is_quick)
    WHERE quick.is_quick AND turns.ctid = quick.place;
    IF (TRUE = ALL (are_quick)) IS NOT TRUE THEN
        FOR which IN 1 .. cardinality(the_roots) LOOP
            IF lasts[which] >= first_number THEN
                RETURN QUERY
                SELECT the_roots[which], lasts[which], starts[which] + put.nth - offsets[which],
                    items.created_at, TRUE
                FROM unnest(places, paths, keys) WITH ORDINALITY AS put (place, path, key, nth)
                LEFT JOIN LATERAL (
                    SELECT * FROM kvstore_items AS items
                    WHERE items.root = the_roots[put.place] AND items.path = put.path
                        AND items.key = put.key
                    LIMIT 1
                ) AS items ON TRUE
                WHERE put.place = which;
                starts[which] := NULL;
            ELSIF starts[which] IS NOT NULL AND are_quick[which] IS NOT TRUE THEN
                PERFORM FROM kvstore_advance(
                    the_roots[which], NULL, sizes[which], at_least, NULL, present, false, 0, 0,
                    the_writer, first_number, the_number
                );
            END IF;
        END LOOP;
    END IF;
    IF TRUE = ANY (keep_past) THEN
        INSERT INTO kvstore_past (
            root, ended, ended_at, ended_by, path, key, version, created_at, updated_at, value,
            expires_at, ttl, indexing
        )
        SELECT items.root, starts[put.place] + put.nth - offsets[put.place], moments[put.place], 'put', items.path,
            items.key, items.version, items.created_at, items.updated_at,
            nullif(items.value, put.data), items.expires_at, items.ttl, items.indexing
        FROM unnest(places, paths, keys, datas)
            WITH ORDINALITY AS put (place, path, key, data, nth)
        CROSS JOIN LATERAL (
            SELECT * FROM kvstore_items AS items
            WHERE items.root = the_roots[put.place] AND items.path = put.path AND items.key = put.key
            LIMIT 1
        ) AS items
        WHERE keep_past[put.place] AND starts[put.place] IS NOT NULL;
    END IF;
    IF TRUE = ANY (are_watched) THEN
        INSERT INTO kvstore_changes (root, version, kind, path, key, at)
        SELECT the_roots[put.place], starts[put.place] + put.nth - offsets[put.place], 'put', put.path, put.key,
            moments[put.place]
        FROM unnest(places, paths, keys) WITH ORDINALITY AS put (place, path, key, nth)
        WHERE are_watched[put.place] AND starts[put.place] IS NOT NULL;
    END IF;
    RETURN QUERY
    INSERT INTO kvstore_items AS items (
        root, path, key, version, created_at, updated_at, value, expires_at, ttl, indexing
    )
    SELECT the_roots[put.place], put.path, put.key, starts[put.place] + put.nth - offsets[put.place], present, present,
        put.data, put.expires_at, put.ttl, put.indexing
    FROM unnest(places, paths, keys, datas, expiries, ttls, indexings)
        WITH ORDINALITY AS put (place, path, key, data, expires_at, ttl, indexing, nth)
    WHERE starts[put.place] IS NOT NULL
    ON CONFLICT (root, path, key) DO UPDATE SET
        version = excluded.version,
        created_at = CASE WHEN items.expires_at <= excluded.updated_at THEN excluded.created_at
            ELSE items.created_at END,
        updated_at = excluded.updated_at,
        value = excluded.value,
        expires_at = excluded.expires_at,
        ttl = excluded.ttl,
        indexing = excluded.indexing
    RETURNING items.root, the_number, items.version, items.created_at,
        TRUE = ANY (are_watched);
END
$$;

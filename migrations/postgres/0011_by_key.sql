-- As in the steps before, but each row that goes, is renewed or becomes past is found by its key. Where
-- statistics of a smaller day have the planner believe that a root is small, a join goes through all
-- of it for each of them. Plans last as long as sessions, and none is to go through a table from end
-- to end because that was short when the plan was made.
CREATE OR REPLACE FUNCTION kvstore_write(
    the_root text, expected_turn bigint,
    the_writer bigint, first_number bigint, the_number bigint,
    present bigint, new_version bigint, new_index text,
    kinds smallint[], paths text[], keys text[], versions bigint[], created bigint[],
    updated bigint[], datas text[], expiries bigint[], ttls bigint[], indexings text[],
    note_versions bigint[], note_kinds text[], note_paths text[], note_keys text[],
    gone_paths text[], gone_keys text[],
    entry_paths text[], entry_keys text[], entry_texts bytea[], entry_lengths bigint[],
    all_words bigint[], words_ends integer[], all_counts smallint[], counts_ends integer[],
    gone_fact_paths text[], gone_fact_keys text[],
    fact_paths text[], fact_keys text[], all_facts bigint[], facts_ends integer[],
    marked_paths text[], marked_keys text[], unmarked_paths text[], unmarked_keys text[],
    more_terms bigint[], more_numbers bigint[]
)
RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    moment bigint;
    less_entries bigint := 0;
    less_words bigint := 0;
    less_terms bigint[];
    less_numbers bigint[];
    row record;
BEGIN
    IF cardinality(gone_paths) > 0 THEN
        PERFORM FROM kvstore_roots AS roots WHERE roots.root = the_root FOR NO KEY UPDATE;
        SELECT count(*), coalesce(sum(entries.length), 0) INTO less_entries, less_words
        FROM unnest(gone_paths, gone_keys) AS gone (path, key)
        CROSS JOIN LATERAL (
            SELECT * FROM kvstore_entries AS entries
            WHERE entries.root = the_root AND entries.path = gone.path AND entries.key = gone.key
            LIMIT 1
        ) AS entries;
        SELECT array_agg(less.term), array_agg(less.number) INTO less_terms, less_numbers
        FROM (
            SELECT word AS term, count(*) AS number
            FROM unnest(gone_paths, gone_keys) AS gone (path, key)
            CROSS JOIN LATERAL (
                SELECT * FROM kvstore_entries AS entries
                WHERE entries.root = the_root
                    AND entries.path = gone.path AND entries.key = gone.key
                LIMIT 1
            ) AS entries,
            unnest(entries.words) AS word
            GROUP BY word
        ) AS less;
    END IF;
    SELECT advanced.moment INTO moment
    FROM kvstore_advance(
        the_root, expected_turn, NULL, NULL, new_version, present, false,
        coalesce(cardinality(entry_paths), 0) - less_entries,
        coalesce((SELECT sum(length) FROM unnest(entry_lengths) AS length), 0)::bigint - less_words,
        the_writer, first_number, the_number
    ) AS advanced;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF new_index IS NOT NULL THEN
        UPDATE kvstore_roots AS roots SET index = new_index WHERE roots.root = the_root;
    END IF;
    IF cardinality(gone_paths) > 0 THEN  -- those that come again are overwritten
        SELECT array_agg(gone.path), array_agg(gone.key) INTO gone_paths, gone_keys
        FROM (
            SELECT path, key FROM unnest(gone_paths, gone_keys) AS former (path, key)
            EXCEPT SELECT path, key FROM unnest(entry_paths, entry_keys) AS coming (path, key)
        ) AS gone;
    END IF;
    IF cardinality(gone_paths) > 0 THEN
        FOR row IN SELECT * FROM unnest(gone_paths, gone_keys) AS gone (path, key) LOOP
            DELETE FROM kvstore_entries AS entries
            WHERE entries.root = the_root AND entries.path = row.path AND entries.key = row.key;
        END LOOP;
    END IF;
    IF 1 = ANY (kinds) THEN
        IF current_setting('citus.shard_count', true) IS NULL THEN  -- by their places, in one go
            DELETE FROM kvstore_items AS items
            WHERE items.ctid = ANY (ARRAY(
                SELECT present.ctid
                FROM unnest(kinds, paths, keys) AS gone (kind, path, key)
                CROSS JOIN LATERAL (
                    SELECT here.ctid FROM kvstore_items AS here
                    WHERE here.root = the_root AND here.path = gone.path AND here.key = gone.key
                    LIMIT 1
                ) AS present
                WHERE gone.kind = 1
            ));
        ELSE  -- where a statement without the root is not of one machine
            FOR row IN
                SELECT gone.path, gone.key
                FROM unnest(kinds, paths, keys) AS gone (kind, path, key)
                WHERE gone.kind = 1
            LOOP
                DELETE FROM kvstore_items AS items
                WHERE items.root = the_root AND items.path = row.path AND items.key = row.key;
            END LOOP;
        END IF;
    END IF;
    IF 0 = ANY (kinds) THEN
        INSERT INTO kvstore_items AS items (
            root, path, key, version, created_at, updated_at, value, expires_at, ttl, indexing
        )
        SELECT roots.root, written.path, written.key, written.version, written.created_at,
            written.updated_at, written.value, written.expires_at, written.ttl, written.indexing
        FROM kvstore_roots AS roots, unnest(
            kinds, paths, keys, versions, created, updated, datas, expiries, ttls, indexings
        ) AS written (
            kind, path, key, version, created_at, updated_at, value, expires_at, ttl, indexing
        )
        WHERE roots.root = the_root AND written.kind = 0
        ON CONFLICT (root, path, key) DO UPDATE SET
            version = excluded.version,
            created_at = excluded.created_at,
            updated_at = excluded.updated_at,
            value = excluded.value,
            expires_at = excluded.expires_at,
            ttl = excluded.ttl,
            indexing = excluded.indexing;
    END IF;
    IF 2 = ANY (kinds) THEN
        FOR row IN
            SELECT touched.*
            FROM unnest(kinds, paths, keys, expiries, ttls)
                AS touched (kind, path, key, expires_at, ttl)
            WHERE touched.kind = 2
        LOOP
            UPDATE kvstore_items AS items SET expires_at = row.expires_at, ttl = row.ttl
            WHERE items.root = the_root AND items.path = row.path AND items.key = row.key;
        END LOOP;
    END IF;
    IF cardinality(note_versions) > 0 THEN
        INSERT INTO kvstore_changes (root, version, kind, path, key, at)
        SELECT roots.root, note.version, note.kind, note.path, note.key, moment
        FROM kvstore_roots AS roots,
            unnest(note_versions, note_kinds, note_paths, note_keys)
                AS note (version, kind, path, key)
        WHERE roots.root = the_root;
    END IF;
    IF cardinality(entry_paths) > 0 THEN
        INSERT INTO kvstore_entries (root, path, key, texts, length, words, counts)
        SELECT roots.root, entry.path, entry.key, entry.texts, entry.length,
            all_words[coalesce(words_ends[entry.nth - 1], 0) + 1 : entry.words_end],
            all_counts[coalesce(counts_ends[entry.nth - 1], 0) + 1 : entry.counts_end]
        FROM kvstore_roots AS roots, unnest(
            entry_paths, entry_keys, entry_texts, entry_lengths, words_ends, counts_ends
        ) WITH ORDINALITY AS entry (path, key, texts, length, words_end, counts_end, nth)
        WHERE roots.root = the_root
        ON CONFLICT (root, path, key) DO UPDATE SET
            texts = excluded.texts,
            length = excluded.length,
            words = excluded.words,
            counts = excluded.counts;
    END IF;
    IF cardinality(more_terms) > 0 OR less_terms IS NOT NULL THEN
        INSERT INTO kvstore_terms AS terms (root, term, items)
        SELECT roots.root, delta.term, delta.number
        FROM kvstore_roots AS roots, (
            SELECT each.term, sum(each.number)::bigint AS number
            FROM (
                SELECT more.term, more.number
                FROM unnest(more_terms, more_numbers) AS more (term, number)
                UNION ALL
                SELECT less.term, - less.number
                FROM unnest(less_terms, less_numbers) AS less (term, number)
            ) AS each
            GROUP BY each.term HAVING sum(each.number) <> 0
        ) AS delta
        WHERE roots.root = the_root
        ON CONFLICT (root, term) DO UPDATE SET items = terms.items + excluded.items;
        DELETE FROM kvstore_terms AS terms
        WHERE terms.root = the_root AND terms.term = ANY (less_terms) AND terms.items <= 0;
    END IF;
    IF cardinality(gone_fact_paths) > 0 THEN
        FOR row IN SELECT * FROM unnest(gone_fact_paths, gone_fact_keys) AS gone (path, key) LOOP
            DELETE FROM kvstore_facts AS facts
            WHERE facts.root = the_root AND facts.path = row.path AND facts.key = row.key;
        END LOOP;
    END IF;
    IF cardinality(fact_paths) > 0 THEN
        INSERT INTO kvstore_facts AS facts (root, path, key, facts)
        SELECT roots.root, fact.path, fact.key,
            all_facts[coalesce(facts_ends[fact.nth - 1], 0) + 1 : fact.facts_end]
        FROM kvstore_roots AS roots, unnest(fact_paths, fact_keys, facts_ends)
            WITH ORDINALITY AS fact (path, key, facts_end, nth)
        WHERE roots.root = the_root
        ON CONFLICT (root, path, key) DO UPDATE SET facts = excluded.facts;
    END IF;
    IF cardinality(marked_paths) > 0 THEN
        INSERT INTO kvstore_pending (root, path, key)
        SELECT roots.root, marked.path, marked.key
        FROM kvstore_roots AS roots, unnest(marked_paths, marked_keys) AS marked (path, key)
        WHERE roots.root = the_root
        ON CONFLICT DO NOTHING;
    END IF;
    IF cardinality(unmarked_paths) > 0 THEN
        FOR row IN SELECT * FROM unnest(unmarked_paths, unmarked_keys) AS gone (path, key) LOOP
            DELETE FROM kvstore_pending AS pending
            WHERE pending.root = the_root AND pending.path = row.path AND pending.key = row.key;
        END LOOP;
    END IF;
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION kvstore_write_sequences(
    the_root text,
    paths text[], kinds text[], lasts bigint[], trims bigint[], sizes bigint[], delays bigint[],
    leases bigint[], deaths bigint[], sights bigint[], heads bigint[],
    job_paths text[], positions bigint[], states smallint[], dues bigint[], spans bigint[],
    attempts bigint[], tokens bigint[], are_last boolean[], names text[], errors text[],
    gone_paths text[], gone_positions bigint[]
)
RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    row record;
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
        FOR row IN SELECT * FROM unnest(gone_paths, gone_positions) AS gone (path, position) LOOP
            DELETE FROM kvstore_jobs AS jobs
            WHERE jobs.root = the_root AND jobs.path = row.path AND jobs.position = row.position;
        END LOOP;
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

CREATE OR REPLACE FUNCTION kvstore_keep_past(
    the_root text, expected_turn bigint, present bigint,
    ends bigint[], kinds text[], paths text[], keys text[], afters text[],
    are_told boolean[], versions bigint[], created bigint[], updated bigint[], datas text[],
    expiries bigint[], ttls bigint[], indexings text[]
)
RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    moment bigint;
    past record;
BEGIN
    PERFORM FROM kvstore_roots AS roots WHERE roots.root = the_root FOR NO KEY UPDATE;
    SELECT greatest(turns.instant, present) INTO moment
    FROM kvstore_roots AS roots
    JOIN kvstore_turns AS turns ON turns.root = the_root AND turns.era = roots.era
    WHERE roots.root = the_root AND turns.turn = expected_turn;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOR past IN
        SELECT gone.ended, gone.kind, gone.path, gone.key,
            CASE WHEN gone.is_told THEN gone.version ELSE items.version END AS version,
            CASE WHEN gone.is_told THEN gone.created_at ELSE items.created_at END AS created_at,
            CASE WHEN gone.is_told THEN gone.updated_at ELSE items.updated_at END AS updated_at,
            nullif(coalesce(gone.data, items.value), gone.after) AS value,
            CASE WHEN gone.is_told THEN gone.expires_at ELSE items.expires_at END AS expires_at,
            CASE WHEN gone.is_told THEN gone.ttl ELSE items.ttl END AS ttl,
            CASE WHEN gone.is_told THEN gone.indexing ELSE items.indexing END AS indexing
        FROM unnest(
            ends, kinds, paths, keys, afters, are_told, versions, created, updated, datas,
            expiries, ttls, indexings
        ) AS gone (
            ended, kind, path, key, after, is_told, version, created_at, updated_at, data,
            expires_at, ttl, indexing
        )
        LEFT JOIN LATERAL (
            SELECT * FROM kvstore_items AS items
            WHERE items.root = the_root AND items.path = gone.path AND items.key = gone.key
            LIMIT 1
        ) AS items ON TRUE
        WHERE gone.is_told OR items.version IS NOT NULL
    LOOP
        INSERT INTO kvstore_past (
            root, ended, ended_at, ended_by, path, key, version, created_at, updated_at, value,
            expires_at, ttl, indexing
        )
        VALUES (
            the_root, past.ended, moment, past.kind, past.path, past.key, past.version,
            past.created_at, past.updated_at, past.value, past.expires_at, past.ttl, past.indexing
        );
    END LOOP;
    RETURN true;
END
$$;

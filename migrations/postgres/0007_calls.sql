-- Whatever a write takes is one call. Where roots are spread over machines, a statement that is
-- nothing but a call is sent to the root's machine, and is one local transaction there.

-- Makes a root as the store's own row says. Who changes that row looks for roots afterwards, once he
-- has had the lock by himself (`AWAIT_ROOTS`): he finds all that were made by what it said before.
CREATE FUNCTION kvstore_begin(the_root text)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    state kvstore_state%ROWTYPE;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(
        1802924916, ('kvstore_state'::regclass)::oid::integer
    );
    SELECT * INTO state FROM kvstore_state WHERE id = 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'kvstore: the row of its state is lost' USING ERRCODE = 'KV004';
    END IF;
    INSERT INTO kvstore_roots (
        root, watched_until, changes_begin, index, history, history_until, history_begin,
        history_begin_at
    )
    VALUES (
        the_root, state.watched_until, state.version,
        (state.index::jsonb || '{"has_all_words": true, "has_all_vectors": true}')::text,
        state.history, state.history_until, state.history_begin, state.history_begin_at
    )
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        INSERT INTO kvstore_turns (root, era, turn, version, instant, recorded, entries, words)
        VALUES (the_root, 0, 0, state.version, 0, state.version, 0, 0);
    END IF;
    RETURN true;
END
$$;

-- As in 0004_roots.sql; a root that is not there is made.
CREATE OR REPLACE FUNCTION kvstore_advance(
    the_root text, expected_turn bigint, more bigint, at_least bigint, new_version bigint,
    present bigint, is_recorded boolean, more_entries bigint, more_words bigint,
    the_writer bigint, first_number bigint, the_number bigint
)
RETURNS TABLE (
    base bigint, moment bigint, watched_until bigint, described text, has_sequences boolean,
    history bigint
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    root kvstore_roots%ROWTYPE;
    at kvstore_turns%ROWTYPE;
    place integer;
    newest bigint;
BEGIN
    SELECT * INTO root FROM kvstore_roots AS roots
    WHERE roots.root = the_root FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM kvstore_begin(the_root);
        SELECT * INTO root FROM kvstore_roots AS roots
        WHERE roots.root = the_root FOR NO KEY UPDATE;
    END IF;
    SELECT * INTO at FROM kvstore_turns AS turns
    WHERE turns.root = the_root AND turns.era = root.era;
    IF at.turn <> expected_turn THEN
        RETURN;
    END IF;
    newest := coalesce(new_version, greatest(at.version, at_least) + more);
    IF the_number IS NOT NULL THEN
        place := array_position(at.writers, the_writer);
        IF at.numbers[place] >= first_number THEN
            RAISE EXCEPTION 'kvstore: done before' USING ERRCODE = 'KV002';
        END IF;
        IF place IS NULL AND cardinality(at.writers) >= 64 THEN
            place := 1;
        END IF;
        IF place IS NOT NULL THEN
            at.writers := at.writers[: place - 1] || at.writers[place + 1 :];
            at.numbers := at.numbers[: place - 1] || at.numbers[place + 1 :];
            at.bases := at.bases[: place - 1] || at.bases[place + 1 :];
        END IF;
        at.writers := at.writers || the_writer;
        at.numbers := at.numbers || the_number;
        at.bases := at.bases || newest - coalesce(more, 0);
    END IF;
    at.turn := at.turn + 1;
    at.era := at.turn / 256;
    at.version := newest;
    at.instant := greatest(at.instant, present);
    IF is_recorded OR root.watched_until <> 0 THEN
        at.recorded := newest;
    END IF;
    at.entries := at.entries + more_entries;
    at.words := at.words + more_words;
    IF at.era = root.era THEN
        UPDATE kvstore_turns AS turns SET
            turn = at.turn, version = at.version, instant = at.instant, recorded = at.recorded,
            entries = at.entries, words = at.words,
            writers = at.writers, numbers = at.numbers, bases = at.bases
        WHERE turns.root = the_root AND turns.era = root.era;
    ELSE
        INSERT INTO kvstore_turns (
            root, era, turn, version, instant, recorded, entries, words, writers, numbers, bases
        )
        VALUES (
            the_root, at.era, at.turn, at.version, at.instant, at.recorded, at.entries, at.words,
            at.writers, at.numbers, at.bases
        );
        DELETE FROM kvstore_turns AS turns
        WHERE turns.root = the_root AND turns.era = root.era;
        UPDATE kvstore_roots AS roots SET era = at.era WHERE roots.root = the_root;
    END IF;
    RETURN QUERY SELECT newest - coalesce(more, 0), at.instant, root.watched_until, root.index,
        root.has_sequences, root.history;
END
$$;

-- As kvstore_put, in a session that the store has not made its settings in, as it is one between two
-- servers: it waits for others for so many milliseconds at most.
CREATE FUNCTION kvstore_put_soon(
    the_root text, patience integer, all_paths text, all_keys text, all_values text,
    expiries bigint[], ttls bigint[], indexings text[], puts bigint, present bigint,
    at_least bigint, the_writer bigint, first_number bigint, the_number bigint
)
RETURNS TABLE (version bigint, created_at bigint, is_watched boolean)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
    PERFORM set_config('lock_timeout', patience::text, true);
    RETURN QUERY SELECT * FROM kvstore_put(
        the_root, all_paths, all_keys, all_values, expiries, ttls, indexings, puts, present,
        at_least, the_writer, first_number, the_number
    );
END
$$;

-- kvstore_write, and before it kvstore_keep_past, if there is something for it, and after it
-- kvstore_write_sequences, likewise. Returns whether the root was at the expected turn. `patience` as
-- above; NULL: the session has the settings.
CREATE FUNCTION kvstore_apply(
    the_root text, patience integer, expected_turn bigint, the_writer bigint, first_number bigint,
    the_number bigint, present bigint, new_version bigint, new_index text, kinds smallint[],
    paths text[], keys text[], versions bigint[], created bigint[], updated bigint[], datas text[],
    expiries bigint[], ttls bigint[], indexings text[], note_versions bigint[], note_kinds text[],
    note_paths text[], note_keys text[], gone_paths text[], gone_keys text[], entry_paths text[],
    entry_keys text[], entry_texts bytea[], entry_lengths bigint[], all_words bigint[],
    words_ends integer[], all_counts smallint[], counts_ends integer[], gone_fact_paths text[],
    gone_fact_keys text[], fact_paths text[], fact_keys text[], all_facts bigint[],
    facts_ends integer[], marked_paths text[], marked_keys text[], unmarked_paths text[],
    unmarked_keys text[], more_terms bigint[], more_numbers bigint[], past_ends bigint[],
    past_kinds text[], past_paths text[], past_keys text[], past_afters text[],
    past_are_told boolean[], past_versions bigint[], past_created bigint[], past_updated bigint[],
    past_datas text[], past_expiries bigint[], past_ttls bigint[], past_indexings text[],
    line_paths text[], line_kinds text[], line_lasts bigint[], line_trims bigint[],
    line_sizes bigint[], line_delays bigint[], line_leases bigint[], line_deaths bigint[],
    line_sights bigint[], line_heads bigint[], line_job_paths text[], line_positions bigint[],
    line_states smallint[], line_dues bigint[], line_spans bigint[], line_attempts bigint[],
    line_tokens bigint[], line_are_last boolean[], line_names text[], line_errors text[],
    line_gone_paths text[], line_gone_positions bigint[]
)
RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF patience IS NOT NULL THEN
        PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
        PERFORM set_config('lock_timeout', patience::text, true);
    END IF;
    IF past_ends IS NOT NULL THEN
        IF NOT kvstore_keep_past(
            the_root, expected_turn, present, past_ends, past_kinds, past_paths, past_keys,
            past_afters, past_are_told, past_versions, past_created, past_updated, past_datas,
            past_expiries, past_ttls, past_indexings
        ) THEN
            RETURN false;
        END IF;
    END IF;
    IF NOT kvstore_write(
        the_root, expected_turn, the_writer, first_number, the_number, present, new_version,
        new_index, kinds, paths, keys, versions, created, updated, datas, expiries, ttls,
        indexings, note_versions, note_kinds, note_paths, note_keys, gone_paths, gone_keys,
        entry_paths, entry_keys, entry_texts, entry_lengths, all_words, words_ends, all_counts,
        counts_ends, gone_fact_paths, gone_fact_keys, fact_paths, fact_keys, all_facts, facts_ends,
        marked_paths, marked_keys, unmarked_paths, unmarked_keys, more_terms, more_numbers
    ) THEN
        RETURN false;
    END IF;
    IF line_paths IS NOT NULL THEN
        RETURN kvstore_write_sequences(
            the_root, line_paths, line_kinds, line_lasts, line_trims, line_sizes, line_delays,
            line_leases, line_deaths, line_sights, line_heads, line_job_paths, line_positions,
            line_states, line_dues, line_spans, line_attempts, line_tokens, line_are_last,
            line_names, line_errors, line_gone_paths, line_gone_positions
        );
    END IF;
    RETURN true;
END
$$;

-- needs: 4
-- Versions, locks, the change feed and what an index counts belong to a root, the first label of
-- a namespace: writers of different roots share no row. Programs that know only steps 1 to 3 are
-- refused when they open, and those that run lose the column by which they write.
LOCK TABLE kvstore_state IN ACCESS EXCLUSIVE MODE;

-- A row for each root that was ever written to. Who has locked it writes alone there, until the
-- transaction ends: versions are given out in the order of commits. It hardly ever changes, so it
-- has few dead versions to walk over, however long somebody keeps a snapshot.
CREATE TABLE kvstore_roots (
    root text COLLATE "C" PRIMARY KEY,
    era bigint NOT NULL DEFAULT 0,      -- which row of kvstore_turns is the present one
    watched_until bigint NOT NULL DEFAULT 0,  -- see 0002_changes.sql
    changes_begin bigint NOT NULL DEFAULT 0,  -- the feed holds all after this version
    index text,                         -- the index's description; NULL: there is none
    has_sequences boolean NOT NULL DEFAULT false, -- see 0005_sequences.sql
    history bigint NOT NULL DEFAULT 0   -- see 0006_past.sql
) WITH (fillfactor = 50);

-- How far each root is: one row, replaced by another one with each era, which is 256 turns, so that
-- the dead versions of those before are passed by.
CREATE TABLE kvstore_turns (
    root text COLLATE "C" NOT NULL,
    era bigint NOT NULL,
    turn bigint NOT NULL,               -- counts the transactions that wrote
    version bigint NOT NULL,            -- of the last write
    instant bigint NOT NULL,            -- of the last commit; never goes back
    recorded bigint NOT NULL,           -- the last version that the feed has told of
    entries bigint NOT NULL,            -- in the search index, for BM25
    words bigint NOT NULL,              -- in these
    -- The last transaction of each of the last writers, which so is applied once, however often it
    -- is sent. A writer is a connection that a program has for writing, and numbers what it sends.
    writers bigint[] NOT NULL DEFAULT '{}',
    numbers bigint[] NOT NULL DEFAULT '{}',
    bases bigint[] NOT NULL DEFAULT '{}',  -- the version of the root before it
    PRIMARY KEY (root, era)
) WITH (fillfactor = 30);               -- room for its next versions, on the same page

INSERT INTO kvstore_roots (root, watched_until, changes_begin, index)
WITH RECURSIVE found (root) AS (
    (SELECT items.root FROM kvstore_items AS items ORDER BY items.root LIMIT 1)
    UNION ALL
    SELECT following.root
    FROM found CROSS JOIN LATERAL (
        SELECT items.root FROM kvstore_items AS items
        WHERE items.root > found.root ORDER BY items.root LIMIT 1
    ) AS following
)
SELECT roots.root, state.watched_until, state.changes_begin, state.index
FROM kvstore_state AS state
CROSS JOIN (
    SELECT root FROM found
    UNION SELECT left(path, strpos(path, E'\t')) COLLATE "C" FROM kvstore_changes
) AS roots
WHERE state.id = 1;

INSERT INTO kvstore_turns (root, era, turn, version, instant, recorded, entries, words)
WITH counted AS (
    SELECT root, count(*) AS entries, sum(length) AS words FROM kvstore_entries GROUP BY root
)
SELECT roots.root, 0, 0, state.version, 0,
    CASE WHEN state.watched_until <> 0
        OR state.version = (SELECT max(version) FROM kvstore_changes)
        THEN state.version ELSE 0 END,
    coalesce(counted.entries, 0), coalesce(counted.words, 0)
FROM kvstore_roots AS roots
CROSS JOIN kvstore_state AS state
LEFT JOIN counted ON counted.root = roots.root
WHERE state.id = 1;

-- What is left to the store as a whole: `version`, at which new roots begin; `watched_until`, while
-- somebody watches all of them; `index`, the description with which they begin.
ALTER TABLE kvstore_state DROP COLUMN turn, DROP COLUMN changes_begin;

ALTER TABLE kvstore_changes DROP CONSTRAINT "kvstore_changes_pkey";
ALTER TABLE kvstore_changes ADD COLUMN root text COLLATE "C";
UPDATE kvstore_changes SET root = left(path, strpos(path, E'\t'));
ALTER TABLE kvstore_changes ADD PRIMARY KEY (root, version);

DROP TABLE kvstore_corpus;
DROP TABLE kvstore_terms;
CREATE TABLE kvstore_terms (
    root text COLLATE "C" NOT NULL,
    term bigint NOT NULL,
    items bigint NOT NULL,              -- how many entries it is in
    PRIMARY KEY (root, term)
) WITH (fillfactor = 60);
INSERT INTO kvstore_terms (root, term, items)
SELECT entries.root, word, count(*)
FROM kvstore_entries AS entries, unnest(entries.words) AS word
GROUP BY entries.root, word;

ALTER TABLE kvstore_pending DROP COLUMN number;

-- Vectors are in a table for each length.
DO $$
DECLARE
    described json;
    place text;
    old_name text;
    new_name text;
BEGIN
    SELECT index::json INTO described FROM kvstore_state WHERE id = 1;
    IF described ->> 'dimensions' IS NULL THEN
        RETURN;
    END IF;
    SELECT relnamespace::regnamespace::text INTO place
    FROM pg_class WHERE oid = 'kvstore_state'::regclass;
    old_name := 'kvstore_vectors_' || (described ->> 'epoch');
    new_name := 'kvstore_vectors_of_' || (described ->> 'dimensions');
    EXECUTE format('ALTER TABLE %s.%I RENAME TO %I', place, old_name, new_name);
    EXECUTE format(
        'ALTER INDEX IF EXISTS %s.%I RENAME TO %I', place, old_name || '_hnsw', new_name || '_hnsw'
    );
END
$$;
UPDATE kvstore_state
SET index = (index::jsonb || '{"has_all_words": true, "has_all_vectors": true}')::text;

-- Locks a root, and takes its next turn. It gives out versions above the present one and `at_least`,
-- as many as are asked for, or up to `new_version`. No row: the root is not at the expected turn.
-- KV001: the root has no row yet. KV002: this writer's number, or one from `first_number` on, was
-- there before.
CREATE FUNCTION kvstore_advance(
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
        RAISE EXCEPTION 'kvstore: no such root' USING ERRCODE = 'KV001';
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

-- Puts without conditions, of different items under one root, in one call. The columns come as
-- texts, each value after a separator; drivers are slow at arrays. KV001: the root has no row yet.
-- KV002: this writer's number was there before. KV003: it takes more than this.
CREATE FUNCTION kvstore_put(
    the_root text, all_paths text, all_keys text, all_values text,
    expiries bigint[], ttls bigint[], indexings text[],
    puts bigint, present bigint, at_least bigint,
    the_writer bigint, first_number bigint, the_number bigint
)
RETURNS TABLE (version bigint, created_at bigint, is_watched boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    base bigint;
    until bigint;
    described text;
    moment bigint;
    has_any boolean;
    span bigint;
    paths text[] := (string_to_array(all_paths, E'\x01'))[2:];
    keys text[] := (string_to_array(all_keys, E'\x01'))[2:];
    datas text[] := (string_to_array(all_values, E'\x01'))[2:];
BEGIN
    SELECT * INTO base, moment, until, described, has_any, span
    FROM kvstore_advance(
        the_root, NULL, puts, at_least, NULL, present, false, 0, 0,
        the_writer, first_number, the_number
    );
    IF described IS NOT NULL THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
    IF has_any THEN
        PERFORM FROM kvstore_sequences AS sequences
        WHERE sequences.root = the_root AND sequences.path = ANY (paths);
        IF FOUND THEN
            RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
        END IF;
    END IF;
    IF until <> 0 THEN
        PERFORM FROM unnest(paths, keys) AS put (path, key)
        CROSS JOIN LATERAL (
            SELECT FROM kvstore_items AS items
            WHERE items.root = the_root AND items.path = put.path AND items.key = put.key
                AND items.expires_at <= present
            LIMIT 1
        ) AS items;
        IF FOUND THEN
            RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
        END IF;
        INSERT INTO kvstore_changes (root, version, kind, path, key, at)
        SELECT roots.root, base + put.nth, 'put', put.path, put.key, moment
        FROM kvstore_roots AS roots,
            unnest(paths, keys) WITH ORDINALITY AS put (path, key, nth)
        WHERE roots.root = the_root;
    END IF;
    IF span <> 0 THEN
        EXECUTE $insert$
            INSERT INTO kvstore_past (
                root, ended, ended_at, ended_by, path, key, version, created_at, updated_at, value,
                expires_at, ttl, indexing
            )
            SELECT items.root, $2 + put.nth, $3, 'put', items.path, items.key, items.version,
                items.created_at, items.updated_at, nullif(items.value, put.data),
                items.expires_at, items.ttl, items.indexing
            FROM kvstore_items AS items
            JOIN unnest($4, $5, $6) WITH ORDINALITY AS put (path, key, data, nth)
                ON items.path = put.path AND items.key = put.key
            WHERE items.root = $1
        $insert$ USING the_root, base, moment, paths, keys, datas;
    END IF;
    RETURN QUERY
    INSERT INTO kvstore_items AS items (
        root, path, key, version, created_at, updated_at, value, expires_at, ttl, indexing
    )
    SELECT roots.root, put.path, put.key, base + put.nth, present, present, put.data,
        put.expires_at, put.ttl, put.indexing
    FROM kvstore_roots AS roots, unnest(paths, keys, datas, expiries, ttls, indexings)
        WITH ORDINALITY AS put (path, key, data, expires_at, ttl, indexing, nth)
    WHERE roots.root = the_root
    ON CONFLICT (root, path, key) DO UPDATE SET
        version = excluded.version,
        created_at = CASE WHEN items.expires_at <= excluded.updated_at THEN excluded.created_at
            ELSE items.created_at END,
        updated_at = excluded.updated_at,
        value = excluded.value,
        expires_at = excluded.expires_at,
        ttl = excluded.ttl,
        indexing = excluded.indexing
    RETURNING items.version, items.created_at, until <> 0;
END
$$;

-- What is in EXECUTE is planned each time, here and below: of a session that plans a statement once
-- (kvstore/postgres/engine.py) it would have a plan for a root of middling size, and go through a
-- large one from end to end.

-- What was decided about items under one root, in one call: it takes effect if the root is at the
-- expected turn, and returns whether it is. KV002 as above. The arrays are of rows to write, kind
-- 0, to delete, 1, and of which the lifetime alone changes, 2; then changes for the feed; then
-- what the index is to hold: entries that go, entries that come (each one's words and their counts
-- up to where the next one's begin), facts that go and come, marks that come and go, and for each
-- word of the entries that come in how many of them it is.
CREATE FUNCTION kvstore_write(
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
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    moment bigint;
    less_entries bigint := 0;
    less_words bigint := 0;
    less_terms bigint[];
    less_numbers bigint[];
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
        EXECUTE $delete$
            DELETE FROM kvstore_entries AS entries USING unnest($2, $3) AS gone (path, key)
            WHERE entries.root = $1 AND entries.path = gone.path AND entries.key = gone.key
        $delete$ USING the_root, gone_paths, gone_keys;
    END IF;
    IF 1 = ANY (kinds) THEN
        EXECUTE $delete$
            DELETE FROM kvstore_items AS items USING unnest($2, $3, $4) AS gone (kind, path, key)
            WHERE items.root = $1 AND gone.kind = 1
                AND items.path = gone.path AND items.key = gone.key
        $delete$ USING the_root, kinds, paths, keys;
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
        EXECUTE $update$
            UPDATE kvstore_items AS items SET expires_at = touched.expires_at, ttl = touched.ttl
            FROM unnest($2, $3, $4, $5, $6) AS touched (kind, path, key, expires_at, ttl)
            WHERE items.root = $1 AND touched.kind = 2
                AND items.path = touched.path AND items.key = touched.key
        $update$ USING the_root, kinds, paths, keys, expiries, ttls;
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
        EXECUTE $delete$
            DELETE FROM kvstore_facts AS facts USING unnest($2, $3) AS gone (path, key)
            WHERE facts.root = $1 AND facts.path = gone.path AND facts.key = gone.key
        $delete$ USING the_root, gone_fact_paths, gone_fact_keys;
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
        EXECUTE $delete$
            DELETE FROM kvstore_pending AS pending USING unnest($2, $3) AS unmarked (path, key)
            WHERE pending.root = $1
                AND pending.path = unmarked.path AND pending.key = unmarked.key
        $delete$ USING the_root, unmarked_paths, unmarked_keys;
    END IF;
    RETURN true;
END
$$;

-- Have changes under a root recorded until an instant; answers its version, and after which one
-- the feed holds all. No row: there is no such root.
CREATE FUNCTION kvstore_record(the_root text, until bigint)
RETURNS TABLE (version bigint, changes_begin bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    newest bigint;
    told bigint;
    present bigint;
BEGIN
    PERFORM FROM kvstore_roots AS roots WHERE roots.root = the_root FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT turns.version, turns.recorded, turns.instant INTO newest, told, present
    FROM kvstore_roots AS roots
    JOIN kvstore_turns AS turns ON turns.root = the_root AND turns.era = roots.era
    WHERE roots.root = the_root;
    PERFORM FROM kvstore_advance(
        the_root, NULL, NULL, NULL, newest, present, true, 0, 0, NULL, NULL, NULL
    );
    RETURN QUERY
    UPDATE kvstore_roots AS roots SET
        watched_until = greatest(roots.watched_until, until),
        changes_begin = CASE WHEN roots.watched_until = 0 AND told <> newest
            THEN newest ELSE roots.changes_begin END
    WHERE roots.root = the_root
    RETURNING newest, roots.changes_begin;
END
$$;

-- As kvstore_put_one, of an item under a root with an index of words: what the index holds of the
-- item is found here, and not by a look before. `the_index` is the description by which its words were
-- made; `new_texts`, NULL of an item that has none, and all after it are as in kvstore_entries. KV003:
-- the root has another index by now, or the put takes more than this.
CREATE FUNCTION kvstore_put_words(
    the_root text, the_path text, the_key text, the_value text,
    expiry bigint, lifetime bigint, the_indexing text,
    present bigint, at_least bigint, the_writer bigint, first_number bigint, the_number bigint,
    the_index text, new_texts bytea, new_length bigint, new_words bigint[], new_counts smallint[]
)
RETURNS bigint[]
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    root record;
    old record;
    is_more boolean;
    is_same boolean;
    more_entries bigint := 0;
    more_words bigint := 0;
    newest bigint;
    moment bigint;
    began bigint;
BEGIN
    SELECT roots.era, roots.watched_until <> 0 AS is_watched, roots.history <> 0 AS keeps_past,
        roots.has_sequences, roots.index = the_index AS is_known
    INTO root
    FROM kvstore_roots AS roots
    WHERE roots.root = the_root FOR NO KEY UPDATE;
    SELECT entries.texts, entries.length, entries.words INTO old
    FROM kvstore_entries AS entries
    WHERE entries.root = the_root AND entries.path = the_path AND entries.key = the_key;
    is_same := old.texts IS NOT DISTINCT FROM new_texts;
    PERFORM FROM kvstore_pending AS pending
    WHERE pending.root = the_root AND pending.path = the_path AND pending.key = the_key;
    is_more := FOUND OR root.is_known IS NOT TRUE;
    IF root.has_sequences AND NOT is_more THEN
        PERFORM FROM kvstore_sequences AS sequences
        WHERE sequences.root = the_root AND sequences.path = the_path;
        is_more := FOUND;
    END IF;
    IF root.is_watched AND NOT is_more THEN
        PERFORM FROM kvstore_items AS items
        WHERE items.root = the_root AND items.path = the_path AND items.key = the_key
            AND items.expires_at <= present;
        is_more := FOUND;
    END IF;
    IF is_more THEN
        RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
    END IF;
    IF NOT is_same THEN
        more_entries := (new_texts IS NOT NULL)::integer - (old.texts IS NOT NULL)::integer;
        more_words := coalesce(new_length, 0) - coalesce(old.length, 0);
    END IF;
    UPDATE kvstore_turns AS turns SET
        turn = turns.turn + 1,
        version = greatest(turns.version, at_least) + 1,
        instant = greatest(turns.instant, present),
        recorded = CASE WHEN root.is_watched THEN greatest(turns.version, at_least) + 1
            ELSE turns.recorded END,
        entries = turns.entries + more_entries,
        words = turns.words + more_words,
        numbers[cardinality(turns.numbers)] = the_number,
        bases[cardinality(turns.bases)] = greatest(turns.version, at_least)
    WHERE turns.root = the_root AND turns.era = root.era
        AND (turns.turn + 1) / 256 = root.era
        AND turns.writers[cardinality(turns.writers)] = the_writer
        AND turns.numbers[cardinality(turns.numbers)] < first_number
    RETURNING turns.version, turns.instant INTO newest, moment;
    IF newest IS NULL THEN
        SELECT advanced.base + 1, advanced.moment INTO newest, moment
        FROM kvstore_advance(
            the_root, NULL, 1, at_least, NULL, present, false, more_entries, more_words,
            the_writer, first_number, the_number
        ) AS advanced;
    END IF;
    IF root.keeps_past THEN
        INSERT INTO kvstore_past AS past (
            root, ended, ended_at, ended_by, path, key, version, created_at, updated_at, value,
            expires_at, ttl, indexing
        )
        SELECT items.root, newest, moment, 'put', items.path, items.key, items.version,
            items.created_at, items.updated_at, nullif(items.value, the_value), items.expires_at,
            items.ttl, items.indexing
        FROM kvstore_items AS items
        WHERE items.root = the_root AND items.path = the_path AND items.key = the_key
        RETURNING past.expires_at <= present INTO is_more;
        IF is_more THEN
            RAISE EXCEPTION 'kvstore: not plain' USING ERRCODE = 'KV003';
        END IF;
    END IF;
    IF root.is_watched THEN
        INSERT INTO kvstore_changes (root, version, kind, path, key, at)
        VALUES (the_root, newest, 'put', the_path, the_key, moment);
    END IF;
    INSERT INTO kvstore_items AS items (
        root, path, key, version, created_at, updated_at, value, expires_at, ttl, indexing
    )
    VALUES (
        the_root, the_path, the_key, newest, present, present, the_value, expiry, lifetime,
        the_indexing
    )
    ON CONFLICT (root, path, key) DO UPDATE SET
        version = excluded.version,
        created_at = CASE WHEN items.expires_at <= excluded.updated_at THEN excluded.created_at
            ELSE items.created_at END,
        updated_at = excluded.updated_at,
        value = excluded.value,
        expires_at = excluded.expires_at,
        ttl = excluded.ttl,
        indexing = excluded.indexing
    RETURNING items.created_at INTO began;
    IF is_same THEN
        RETURN ARRAY[newest, began, root.is_watched::integer];
    END IF;
    IF new_texts IS NOT NULL THEN
        INSERT INTO kvstore_entries AS entries (root, path, key, texts, length, words, counts)
        VALUES (the_root, the_path, the_key, new_texts, new_length, new_words, new_counts)
        ON CONFLICT (root, path, key) DO UPDATE SET
            texts = excluded.texts,
            length = excluded.length,
            words = excluded.words,
            counts = excluded.counts;
    ELSE
        DELETE FROM kvstore_entries AS entries
        WHERE entries.root = the_root AND entries.path = the_path AND entries.key = the_key;
    END IF;
    INSERT INTO kvstore_terms AS terms (root, term, items)
    SELECT roots.root, delta.term, delta.number
    FROM kvstore_roots AS roots, (
        SELECT each.term, sum(each.number) AS number
        FROM (
            SELECT more.term, 1 AS number FROM unnest(new_words) AS more (term)
            UNION ALL
            SELECT less.term, -1 AS number FROM unnest(old.words) AS less (term)
        ) AS each
        GROUP BY each.term HAVING sum(each.number) <> 0
    ) AS delta
    WHERE roots.root = the_root
    ON CONFLICT (root, term) DO UPDATE SET items = terms.items + excluded.items;
    IF old.words IS NOT NULL THEN
        DELETE FROM kvstore_terms AS terms
        WHERE terms.root = the_root AND terms.term = ANY (old.words) AND terms.items <= 0;
    END IF;
    RETURN ARRAY[newest, began, root.is_watched::integer];
END
$$;

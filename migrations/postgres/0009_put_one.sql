-- As kvstore_put, of one item: the version, when the item was created, and 1 if somebody watches. What
-- most puts are is done by few statements: under a root without an index, logs or queues, by the writer
-- that was the last one there. All else is left to kvstore_put.
CREATE FUNCTION kvstore_put_one(
    the_root text, the_path text, the_key text, the_value text,
    expiry bigint, lifetime bigint, the_indexing text,
    present bigint, at_least bigint, the_writer bigint, first_number bigint, the_number bigint
)
RETURNS bigint[]
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    root record;
    is_over boolean;
    newest bigint;
    moment bigint;
    began bigint;
BEGIN
    SELECT roots.era, roots.watched_until <> 0 AS is_watched, roots.history <> 0 AS keeps_past,
        roots.index IS NULL AND NOT roots.has_sequences AS is_plain
    INTO root
    FROM kvstore_roots AS roots
    WHERE roots.root = the_root FOR NO KEY UPDATE;
    IF root.is_plain AND root.is_watched AND NOT root.keeps_past THEN
        PERFORM FROM kvstore_items AS items
        WHERE items.root = the_root AND items.path = the_path AND items.key = the_key
            AND items.expires_at <= present;
        is_over := FOUND;
    END IF;
    IF root.is_plain AND is_over IS NOT TRUE THEN
        UPDATE kvstore_turns AS turns SET
            turn = turns.turn + 1,
            version = greatest(turns.version, at_least) + 1,
            instant = greatest(turns.instant, present),
            recorded = CASE WHEN root.is_watched THEN greatest(turns.version, at_least) + 1
                ELSE turns.recorded END,
            numbers[cardinality(turns.numbers)] = the_number,
            bases[cardinality(turns.bases)] = greatest(turns.version, at_least)
        WHERE turns.root = the_root AND turns.era = root.era
            AND (turns.turn + 1) / 256 = root.era
            AND turns.writers[cardinality(turns.writers)] = the_writer
            AND turns.numbers[cardinality(turns.numbers)] < first_number
        RETURNING turns.version, turns.instant INTO newest, moment;
    END IF;
    IF newest IS NULL THEN
        RETURN (
            SELECT ARRAY[done.version, done.created_at, done.is_watched::integer]
            FROM kvstore_put(
                the_root, E'\x01' || the_path, E'\x01' || the_key, E'\x01' || the_value,
                ARRAY[expiry], ARRAY[lifetime], ARRAY[the_indexing],
                1, present, at_least, the_writer, first_number, the_number
            ) AS done
        );
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
        RETURNING past.expires_at <= present INTO is_over;
        IF is_over THEN
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
    RETURN ARRAY[newest, began, root.is_watched::integer];
END
$$;

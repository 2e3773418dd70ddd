-- As kvstore_put, of one item: the version, when the item was created, and 1 if somebody watches. What
-- most puts are is done by few statements: under a root without an index, logs, queues or a past, by
-- the writer that was the last one there. All else is left to kvstore_put.
CREATE FUNCTION kvstore_put_one(
    the_root text, the_path text, the_key text, the_value text,
    expiry bigint, lifetime bigint, the_indexing text,
    present bigint, at_least bigint, the_writer bigint, first_number bigint, the_number bigint
)
RETURNS bigint[]
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    the_era bigint;
    is_plain boolean;
    is_watched boolean;
    newest bigint;
    moment bigint;
    began bigint;
BEGIN
    SELECT roots.era, roots.watched_until <> 0,
        roots.index IS NULL AND NOT roots.has_sequences AND roots.history = 0
    INTO the_era, is_watched, is_plain
    FROM kvstore_roots AS roots
    WHERE roots.root = the_root FOR NO KEY UPDATE;
    IF is_plain AND is_watched THEN
        PERFORM FROM kvstore_items AS items
        WHERE items.root = the_root AND items.path = the_path AND items.key = the_key
            AND items.expires_at <= present;
        is_plain := NOT FOUND;
    END IF;
    IF is_plain THEN
        UPDATE kvstore_turns AS turns SET
            turn = turns.turn + 1,
            version = greatest(turns.version, at_least) + 1,
            instant = greatest(turns.instant, present),
            recorded = CASE WHEN is_watched THEN greatest(turns.version, at_least) + 1
                ELSE turns.recorded END,
            numbers[cardinality(turns.numbers)] = the_number,
            bases[cardinality(turns.bases)] = greatest(turns.version, at_least)
        WHERE turns.root = the_root AND turns.era = the_era
            AND (turns.turn + 1) / 256 = the_era
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
    IF is_watched THEN
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
    RETURN ARRAY[newest, began, is_watched::integer];
END
$$;

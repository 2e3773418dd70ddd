-- The past: what was replaced, deleted or expired, while a store asks for its history.

CREATE TABLE kvstore_past (
    root text COLLATE "C" NOT NULL,
    ended bigint NOT NULL,              -- the root's version with which it ceased to be
    ended_at bigint NOT NULL,           -- the instant of that, in microseconds since the epoch
    ended_by text NOT NULL CHECK (ended_by IN ('put', 'delete', 'expire')),
    path text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,            -- from here on as in kvstore_items
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    value text,                         -- NULL: that of the version after it; '': forgotten
    expires_at bigint,
    ttl bigint,
    indexing text,
    PRIMARY KEY (root, ended)
);

CREATE INDEX kvstore_past_versions ON kvstore_past (root, path, key, version);

-- For how long the past is kept, in microseconds; 0: it is not. Until when that holds, unless a
-- store asks for it again. And every state from a version on can be told, and the instant of that.
-- New roots begin as the store's own row says.
ALTER TABLE kvstore_roots
    ADD COLUMN history_until bigint NOT NULL DEFAULT 0,
    ADD COLUMN history_begin bigint NOT NULL DEFAULT 0,
    ADD COLUMN history_begin_at bigint NOT NULL DEFAULT 0;
ALTER TABLE kvstore_state
    ADD COLUMN history bigint NOT NULL DEFAULT 0,
    ADD COLUMN history_until bigint NOT NULL DEFAULT 0,
    ADD COLUMN history_begin bigint NOT NULL DEFAULT 0,
    ADD COLUMN history_begin_at bigint NOT NULL DEFAULT 0;

-- Keep what is about to end under a root, which is locked if it is at the expected turn; returns
-- whether it is. Of each item: the version that ends it, how, and what comes after it. What the
-- same transaction has written itself is told in full, as it is in no table; of it, a value that is
-- not told is still that of the table.
CREATE FUNCTION kvstore_keep_past(
    the_root text, expected_turn bigint, present bigint,
    ends bigint[], kinds text[], paths text[], keys text[], afters text[],
    are_told boolean[], versions bigint[], created bigint[], updated bigint[], datas text[],
    expiries bigint[], ttls bigint[], indexings text[]
)
RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    moment bigint;
BEGIN
    PERFORM FROM kvstore_roots AS roots WHERE roots.root = the_root FOR NO KEY UPDATE;
    SELECT greatest(turns.instant, present) INTO moment
    FROM kvstore_roots AS roots
    JOIN kvstore_turns AS turns ON turns.root = the_root AND turns.era = roots.era
    WHERE roots.root = the_root AND turns.turn = expected_turn;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE $insert$
        INSERT INTO kvstore_past (
            root, ended, ended_at, ended_by, path, key, version, created_at, updated_at, value,
            expires_at, ttl, indexing
        )
        SELECT roots.root, gone.ended, $2, gone.kind, gone.path, gone.key,
            CASE WHEN gone.is_told THEN gone.version ELSE items.version END,
            CASE WHEN gone.is_told THEN gone.created_at ELSE items.created_at END,
            CASE WHEN gone.is_told THEN gone.updated_at ELSE items.updated_at END,
            nullif(coalesce(gone.data, items.value), gone.after),
            CASE WHEN gone.is_told THEN gone.expires_at ELSE items.expires_at END,
            CASE WHEN gone.is_told THEN gone.ttl ELSE items.ttl END,
            CASE WHEN gone.is_told THEN gone.indexing ELSE items.indexing END
        FROM kvstore_roots AS roots
        CROSS JOIN unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) AS gone (
            ended, kind, path, key, after, is_told, version, created_at, updated_at, data,
            expires_at, ttl, indexing
        )
        LEFT JOIN kvstore_items AS items
            ON items.root = $1 AND items.path = gone.path AND items.key = gone.key
        WHERE roots.root = $1 AND (gone.is_told OR items.version IS NOT NULL)
    $insert$ USING the_root, moment, ends, kinds, paths, keys, afters, are_told, versions, created,
        updated, datas, expiries, ttls, indexings;
    RETURN true;
END
$$;

-- The last version under a root whose instant is not later: instants grow with versions.
CREATE FUNCTION kvstore_version_at(the_root text, moment bigint)
RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    low bigint;
    high bigint;
    middle bigint;
    found_version bigint;
    found_at bigint;
BEGIN
    SELECT roots.history_begin, turns.version INTO low, high
    FROM kvstore_roots AS roots
    JOIN kvstore_turns AS turns ON turns.root = the_root AND turns.era = roots.era
    WHERE roots.root = the_root;
    WHILE low < high LOOP  -- `low` is not later, all above `high` are
        middle := low + (high - low + 1) / 2;
        SELECT changes.version, changes.at INTO found_version, found_at
        FROM kvstore_changes AS changes
        WHERE changes.root = the_root AND changes.version <= middle
        ORDER BY changes.version DESC LIMIT 1;
        IF NOT FOUND OR found_version <= low THEN
            low := middle;
        ELSIF found_at <= moment THEN
            low := middle;
        ELSE
            high := found_version - 1;
        END IF;
    END LOOP;
    RETURN low;
END
$$;

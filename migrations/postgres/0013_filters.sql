-- Declared filters: the scalars at some paths of each value, in order. See
-- kvstore/postgres/declared.py, which makes the triggers once a path is declared.

CREATE TABLE kvstore_filters (
    field text COLLATE "C" PRIMARY KEY,         -- four hexadecimal digits
    name text COLLATE "C" NOT NULL UNIQUE,      -- of the path, as it is declared
    place jsonpath NOT NULL,
    is_list boolean NOT NULL,                   -- it is the elements of a list that count
    is_built boolean NOT NULL DEFAULT false     -- the entries of all items are there
);

CREATE TABLE kvstore_scalars (
    root text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    scalar text COLLATE "C" NOT NULL            -- kvstore_filters.field, and what kvstore_scalar gives
);

-- Hashes of the path and the key, as an entry of a B-tree may have 2.7 kB
CREATE INDEX kvstore_scalars_in_order ON kvstore_scalars (
    hashtextextended(path, 0), scalar, hashtextextended(key, 0)
);

-- A value's place in an order: texts that are equal or in order where values are, at least. `text_of`
-- in kvstore/postgres/declared.py is the same. Numbers are as double precision has them, whose bits
-- are in order (https://en.wikipedia.org/wiki/IEEE_754#Total-ordering_predicate).
CREATE FUNCTION kvstore_scalar(found jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE jsonb_typeof(found)
        WHEN 'null' THEN '0'
        WHEN 'boolean' THEN CASE WHEN found::boolean THEN '1t' ELSE '1f' END
        WHEN 'number' THEN CASE WHEN found::float8 < 0
            THEN '2n' || translate(
                encode(float8send(found::float8), 'hex'), '0123456789abcdef', 'fedcba9876543210'
            )
            ELSE '2p' || encode(float8send(found::float8), 'hex')
        END
        WHEN 'string' THEN '3' || left(found #>> '{}', 100)
        WHEN 'array' THEN '4'
        WHEN 'object' THEN '4'
    END
$$;

-- The entries that an item with a value should have. A value with an escaped NUL, which no jsonb
-- can hold, has one that says that it has to be asked.
CREATE FUNCTION kvstore_scalars_of(the_value text) RETURNS text[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    parsed jsonb := CASE WHEN strpos(the_value, '\u0000') = 0 THEN the_value::jsonb END;
    filter record;
    found jsonb;
    made text[] := '{}';
BEGIN
    FOR filter IN SELECT * FROM kvstore_filters LOOP
        found := jsonb_path_query_first(parsed, filter.place, '{}', true);
        IF parsed IS NULL THEN
            made := made || (filter.field || '5');
        ELSIF NOT filter.is_list THEN
            IF found IS NOT NULL THEN
                made := made || (filter.field || kvstore_scalar(found));
            END IF;
        ELSIF jsonb_typeof(found) = 'array' THEN
            made := made || ARRAY(
                SELECT DISTINCT filter.field || kvstore_scalar(elements.element)
                FROM jsonb_array_elements(found) AS elements (element)
            );
        ELSIF jsonb_typeof(found) = 'string' THEN
            made := made || (filter.field || '6');  -- any part of it is contained
        END IF;
    END LOOP;
    RETURN made;
END
$$;

-- The triggers' functions write what follows from rows that the caller was allowed to write, and
-- nothing else. Whatever the planner believes the tables to hold, entries are found by their index.
CREATE FUNCTION kvstore_add_scalars() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO kvstore_scalars (root, path, key, scalar)
    SELECT news.root, news.path, news.key, unnest(kvstore_scalars_of(news.value)) FROM news;
    RETURN NULL;
END
$$;

CREATE FUNCTION kvstore_take_scalars() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM kvstore_scalars AS scalars WHERE scalars.ctid = ANY (ARRAY(
        SELECT found.ctid
        FROM olds CROSS JOIN LATERAL unnest(kvstore_scalars_of(olds.value)) AS gone (scalar)
        CROSS JOIN LATERAL (
            SELECT there.ctid FROM kvstore_scalars AS there
            WHERE hashtextextended(there.path, 0) = hashtextextended(olds.path, 0)
                AND there.scalar = gone.scalar
                AND hashtextextended(there.key, 0) = hashtextextended(olds.key, 0)
                AND there.path = olds.path AND there.key = olds.key
            OFFSET 0  -- one by one: the entries of an item may be thousands
        ) AS found
    ));
    RETURN NULL;
END
$$;

-- For each row, where the value has changed
CREATE FUNCTION kvstore_change_scalars() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    olds text[] := kvstore_scalars_of(old.value);
    news text[] := kvstore_scalars_of(new.value);
BEGIN
    IF olds <> news THEN
        DELETE FROM kvstore_scalars AS scalars WHERE scalars.ctid = ANY (ARRAY(
            SELECT found.ctid
            FROM (SELECT unnest(olds) EXCEPT SELECT unnest(news)) AS gone (scalar)
            CROSS JOIN LATERAL (
                SELECT there.ctid FROM kvstore_scalars AS there
                WHERE hashtextextended(there.path, 0) = hashtextextended(old.path, 0)
                    AND there.scalar = gone.scalar
                    AND hashtextextended(there.key, 0) = hashtextextended(old.key, 0)
                    AND there.path = old.path AND there.key = old.key
                OFFSET 0
            ) AS found
        ));
        INSERT INTO kvstore_scalars (root, path, key, scalar)
        SELECT new.root, new.path, new.key, added.scalar
        FROM (SELECT unnest(news) EXCEPT SELECT unnest(olds)) AS added (scalar);
    END IF;
    RETURN NULL;
END
$$;

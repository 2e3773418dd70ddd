-- The search index. The tables of its vectors are made with the first vector: `kvstore_vectors_N`,
-- where N is the `epoch` of the description in kvstore_state.index. See
-- kvstore/postgres/indexing.py.

-- What is indexed of an item, and its words: their hashes, because words may be of any length.
CREATE TABLE kvstore_entries (
    root text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    texts bytea NOT NULL,               -- 16 bytes for each text: its hash
    words bigint[] NOT NULL,            -- each once; after them, the namespace and those above
    counts smallint[] NOT NULL,         -- how often each word is there
    length bigint NOT NULL,             -- of all texts, in words
    PRIMARY KEY (root, path, key)
);

CREATE INDEX kvstore_entries_words ON kvstore_entries USING gin (words)
    WITH (gin_pending_list_limit = 512);  -- kB; a search looks through it

-- How many entries each word is in, for BM25; of namespaces, how many entries they have.
CREATE TABLE kvstore_terms (
    term bigint PRIMARY KEY,
    items bigint NOT NULL
) WITH (fillfactor = 60);

-- One row: the size of all entries, for BM25.
CREATE TABLE kvstore_corpus (
    id smallint PRIMARY KEY CHECK (id = 1),
    items bigint NOT NULL,
    words bigint NOT NULL
) WITH (fillfactor = 10);

INSERT INTO kvstore_corpus (id, items, words) VALUES (1, 0, 0);

-- The scalars in the values of the items that have entries, as hashes of path and scalar: an
-- index for filters by equality, in searches by meaning.
CREATE TABLE kvstore_facts (
    root text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    facts bigint[] NOT NULL,
    PRIMARY KEY (root, path, key)
);

CREATE INDEX kvstore_facts_facts ON kvstore_facts USING gin (facts)
    WITH (gin_pending_list_limit = 512);

-- Items of which the index does not hold everything that it should.
CREATE TABLE kvstore_pending (
    root text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    PRIMARY KEY (root, path, key)
);

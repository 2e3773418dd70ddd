-- A store as programs that know steps 1 to 3 have left it, in the schema kv, with a model of 8 numbers.
CREATE TABLE kv.kvstore_changes (
    version bigint NOT NULL,
    kind text NOT NULL,
    path text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    at bigint NOT NULL,
    CONSTRAINT kvstore_changes_kind_check CHECK ((kind = ANY (ARRAY['put'::text, 'delete'::text, 'expire'::text])))
);
CREATE TABLE kv.kvstore_corpus (
    id smallint NOT NULL,
    items bigint NOT NULL,
    words bigint NOT NULL,
    CONSTRAINT kvstore_corpus_id_check CHECK ((id = 1))
)
WITH (fillfactor='10');
CREATE TABLE kv.kvstore_entries (
    root text NOT NULL COLLATE pg_catalog."C",
    path text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    texts bytea NOT NULL,
    words bigint[] NOT NULL,
    counts smallint[] NOT NULL,
    length bigint NOT NULL
);
CREATE TABLE kv.kvstore_facts (
    root text NOT NULL COLLATE pg_catalog."C",
    path text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    facts bigint[] NOT NULL
);
CREATE TABLE kv.kvstore_items (
    root text NOT NULL COLLATE pg_catalog."C",
    path text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    expires_at bigint,
    ttl bigint,
    indexing text,
    value text NOT NULL
)
WITH (fillfactor='80');
CREATE TABLE kv.kvstore_pending (
    root text NOT NULL COLLATE pg_catalog."C",
    path text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    number bigint NOT NULL
);
ALTER TABLE kv.kvstore_pending ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME kv.kvstore_pending_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE kv.kvstore_schema (
    number integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    needs integer DEFAULT 0 NOT NULL
);
CREATE TABLE kv.kvstore_state (
    id smallint NOT NULL,
    version bigint NOT NULL,
    turn bigint NOT NULL,
    watched_until bigint NOT NULL,
    changes_begin bigint NOT NULL,
    index text,
    CONSTRAINT kvstore_state_id_check CHECK ((id = 1))
)
WITH (fillfactor='10');
CREATE TABLE kv.kvstore_terms (
    term bigint NOT NULL,
    items bigint NOT NULL
)
WITH (fillfactor='60');
CREATE TABLE kv.kvstore_vectors_1 (
    root text NOT NULL COLLATE pg_catalog."C",
    path text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    text bytea NOT NULL,
    embedding public.vector(8) NOT NULL
);
INSERT INTO kv.kvstore_changes VALUES (8, 'put', 'acme	notes	', 'seen', 1700000000000000);
INSERT INTO kv.kvstore_changes VALUES (9, 'put', 'globex	', 'lasting', 1700000000000000);
INSERT INTO kv.kvstore_changes VALUES (10, 'delete', 'globex	', 'lasting', 1700000000000000);
INSERT INTO kv.kvstore_corpus VALUES (1, 6, 31);
INSERT INTO kv.kvstore_entries VALUES ('acme	', 'acme	notes	', 'tea', '\xca465d3abb4254054fe9cc7c5d5cec4d', '{5543481364968137448,-5015453343862700912,3412981375060820771,1195650553492112633,3041085770052355376,125077211273071175,-4534714838197968301,212517951105573158,4141437804949595006}', '{1,1,1,1,1}', 8);
INSERT INTO kv.kvstore_entries VALUES ('acme	', 'acme	notes	', 'coffee', '\x34c026a1598ecc8bc9ff6253dc2613f5', '{-8717217376560231613,-2234358584711336084,-649571662916077706,125077211273071175,-4534714838197968301,212517951105573158,4141437804949595006}', '{1,1,1}', 6);
INSERT INTO kv.kvstore_entries VALUES ('globex	', 'globex	', 'blob', '\x9871a38915cecb8978e634ef04ac40e4', '{-5015453343862700912,2371658415451963965,-725548565580347645,-4822055984343004022,-4534714838197968301,-3722253531389964213}', '{1,1,1}', 5);
INSERT INTO kv.kvstore_entries VALUES ('', '', 'top', '\xd5369350e2b0d76ede421f5eab5b064b', '{-649571662916077706,2014268979504181100,-7051202129513837055,-6769845219665134517,-4534714838197968301}', '{1,1,1}', 4);
INSERT INTO kv.kvstore_entries VALUES ('tab
Ihere	', 'tab
Ihere	', 'key
@', '\x72bb2edb0dc3f163f84bd00814e106f0', '{5967516945382908589,-5463504195417060620,-4534714838197968301,4755915954733182497}', '{1}', 3);
INSERT INTO kv.kvstore_entries VALUES ('acme	', 'acme	notes	', 'seen', '\x446ae088ca721a418e5f042e66e0e095', '{4403437414891477646,-3131608061460763063,125077211273071175,-4534714838197968301,212517951105573158,4141437804949595006}', '{1,1}', 5);
INSERT INTO kv.kvstore_facts VALUES ('acme	', 'acme	notes	', 'tea', '{}');
INSERT INTO kv.kvstore_facts VALUES ('acme	', 'acme	notes	', 'coffee', '{865774445466396306,2979339292845399272}');
INSERT INTO kv.kvstore_facts VALUES ('globex	', 'globex	', 'blob', '{-711026966952369150}');
INSERT INTO kv.kvstore_facts VALUES ('', '', 'top', '{}');
INSERT INTO kv.kvstore_facts VALUES ('tab
Ihere	', 'tab
Ihere	', 'key
@', '{}');
INSERT INTO kv.kvstore_facts VALUES ('acme	', 'acme	notes	', 'seen', '{}');
INSERT INTO kv.kvstore_items VALUES ('acme	', 'acme	notes	', 'tea', 1, 1700000000000000, 1700000000000000, NULL, NULL, NULL, '"green tea and long walks"');
INSERT INTO kv.kvstore_items VALUES ('acme	', 'acme	notes	', 'coffee', 2, 1700000000000000, 1700000000000000, NULL, NULL, NULL, '{"text":"black coffee","n":1}');
INSERT INTO kv.kvstore_items VALUES ('globex	', 'globex	', 'blob', 3, 1700000000000000, 1700000000000000, NULL, NULL, NULL, '{"data":{"$bytes":"AP8="},"text":"tea for two"}');
INSERT INTO kv.kvstore_items VALUES ('', '', 'top', 4, 1700000000000000, 1700000000000000, NULL, NULL, NULL, '[1,2,3]');
INSERT INTO kv.kvstore_items VALUES ('tab
Ihere	', 'tab
Ihere	', 'key
@', 5, 1700000000000000, 1700000000000000, NULL, NULL, NULL, '"odd"');
INSERT INTO kv.kvstore_items VALUES ('acme	', 'acme	notes	', 'seen', 8, 1700000000000000, 1700000000000000, NULL, NULL, NULL, '"while watched"');
INSERT INTO kv.kvstore_schema VALUES (1, '0001_items.sql', '2026-11-28 09:49:02.126943+00', 0);
INSERT INTO kv.kvstore_schema VALUES (2, '0002_changes.sql', '2026-11-28 09:49:02.126943+00', 0);
INSERT INTO kv.kvstore_schema VALUES (3, '0003_index.sql', '2026-11-28 09:49:02.126943+00', 0);
INSERT INTO kv.kvstore_state VALUES (1, 10, 15, 1700003600000000, 7, '{"fields":["$"],"model":"HashingEmbeddings:hashing-8-2","dimensions":8,"has_all_words":true,"has_all_vectors":true,"epoch":1,"words":2}');
INSERT INTO kv.kvstore_terms VALUES (5543481364968137448, 1);
INSERT INTO kv.kvstore_terms VALUES (3412981375060820771, 1);
INSERT INTO kv.kvstore_terms VALUES (1195650553492112633, 1);
INSERT INTO kv.kvstore_terms VALUES (3041085770052355376, 1);
INSERT INTO kv.kvstore_terms VALUES (-8717217376560231613, 1);
INSERT INTO kv.kvstore_terms VALUES (-2234358584711336084, 1);
INSERT INTO kv.kvstore_terms VALUES (-5015453343862700912, 2);
INSERT INTO kv.kvstore_terms VALUES (2371658415451963965, 1);
INSERT INTO kv.kvstore_terms VALUES (-725548565580347645, 1);
INSERT INTO kv.kvstore_terms VALUES (2014268979504181100, 1);
INSERT INTO kv.kvstore_terms VALUES (-7051202129513837055, 1);
INSERT INTO kv.kvstore_terms VALUES (-6769845219665134517, 1);
INSERT INTO kv.kvstore_terms VALUES (5967516945382908589, 1);
INSERT INTO kv.kvstore_terms VALUES (-5463504195417060620, 1);
INSERT INTO kv.kvstore_terms VALUES (4755915954733182497, 1);
INSERT INTO kv.kvstore_terms VALUES (4403437414891477646, 1);
INSERT INTO kv.kvstore_terms VALUES (-3131608061460763063, 1);
INSERT INTO kv.kvstore_terms VALUES (125077211273071175, 3);
INSERT INTO kv.kvstore_terms VALUES (212517951105573158, 3);
INSERT INTO kv.kvstore_terms VALUES (4141437804949595006, 3);
INSERT INTO kv.kvstore_terms VALUES (-649571662916077706, 2);
INSERT INTO kv.kvstore_terms VALUES (-4822055984343004022, 1);
INSERT INTO kv.kvstore_terms VALUES (-4534714838197968301, 6);
INSERT INTO kv.kvstore_terms VALUES (-3722253531389964213, 1);
INSERT INTO kv.kvstore_vectors_1 VALUES ('acme	', 'acme	notes	', 'tea', '\xca465d3abb4254054fe9cc7c5d5cec4d', '[0,0.07924817,-0.05603692,-0.89427257,0.21840662,0.3720813,0.039624084,0.05603692]');
INSERT INTO kv.kvstore_vectors_1 VALUES ('acme	', 'acme	notes	', 'coffee', '\x34c026a1598ecc8bc9ff6253dc2613f5', '[-0.08703883,0.08703883,-0.58025885,-0.58025885,0,-0.26111647,0,0.49322003]');
INSERT INTO kv.kvstore_vectors_1 VALUES ('globex	', 'globex	', 'blob', '\x9871a38915cecb8978e634ef04ac40e4', '[0.108678535,0.5123155,0,0,0.5123155,0.108678535,0.5123155,0.43471414]');
INSERT INTO kv.kvstore_vectors_1 VALUES ('', '', 'top', '\xd5369350e2b0d76ede421f5eab5b064b', '[0,0,-0.57735026,0,-0.57735026,0,0,-0.57735026]');
INSERT INTO kv.kvstore_vectors_1 VALUES ('tab
Ihere	', 'tab
Ihere	', 'key
@', '\x72bb2edb0dc3f163f84bd00814e106f0', '[0,0.20318563,-0.20318563,-0.95782626,0,0,0,0]');
INSERT INTO kv.kvstore_vectors_1 VALUES ('acme	', 'acme	notes	', 'seen', '\x446ae088ca721a418e5f042e66e0e095', '[0.59222305,-0.10450995,-0.10450995,-0.2090199,0,-0.696733,0.31352985,0]');
ALTER TABLE ONLY kv.kvstore_changes
    ADD CONSTRAINT kvstore_changes_pkey PRIMARY KEY (version);
ALTER TABLE ONLY kv.kvstore_corpus
    ADD CONSTRAINT kvstore_corpus_pkey PRIMARY KEY (id);
ALTER TABLE ONLY kv.kvstore_entries
    ADD CONSTRAINT kvstore_entries_pkey PRIMARY KEY (root, path, key);
ALTER TABLE ONLY kv.kvstore_facts
    ADD CONSTRAINT kvstore_facts_pkey PRIMARY KEY (root, path, key);
ALTER TABLE ONLY kv.kvstore_items
    ADD CONSTRAINT kvstore_items_pkey PRIMARY KEY (root, path, key);
ALTER TABLE ONLY kv.kvstore_pending
    ADD CONSTRAINT kvstore_pending_number_key UNIQUE (number);
ALTER TABLE ONLY kv.kvstore_pending
    ADD CONSTRAINT kvstore_pending_pkey PRIMARY KEY (root, path, key);
ALTER TABLE ONLY kv.kvstore_schema
    ADD CONSTRAINT kvstore_schema_pkey PRIMARY KEY (number);
ALTER TABLE ONLY kv.kvstore_state
    ADD CONSTRAINT kvstore_state_pkey PRIMARY KEY (id);
ALTER TABLE ONLY kv.kvstore_terms
    ADD CONSTRAINT kvstore_terms_pkey PRIMARY KEY (term);
ALTER TABLE ONLY kv.kvstore_vectors_1
    ADD CONSTRAINT kvstore_vectors_1_pkey PRIMARY KEY (root, path, key, text);
CREATE INDEX kvstore_entries_words ON kv.kvstore_entries USING gin (words) WITH (gin_pending_list_limit='512');
CREATE INDEX kvstore_facts_facts ON kv.kvstore_facts USING gin (facts) WITH (gin_pending_list_limit='512');
CREATE INDEX kvstore_items_expiry ON kv.kvstore_items USING btree (expires_at) WHERE (expires_at IS NOT NULL);
CREATE INDEX kvstore_vectors_1_hnsw ON kv.kvstore_vectors_1 USING hnsw (embedding public.vector_ip_ops);

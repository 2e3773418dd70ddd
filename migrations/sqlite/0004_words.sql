-- How often an item holds each of its words (5 bytes of the word's hash, and a byte for the count),
-- and how many words it has. See kvstore/sqlite/words.py.
ALTER TABLE index_entries ADD COLUMN words BLOB NOT NULL DEFAULT x'';
ALTER TABLE index_entries ADD COLUMN length INTEGER NOT NULL DEFAULT 0;

-- How many entries there are, and how many words in all of them.
INSERT INTO meta (name, value) SELECT 'index_items', count(*) FROM index_entries;
INSERT INTO meta (name, value) VALUES ('index_length', 0);

-- How many entries the search index has under each root, and how many words in all of them: a search
-- below a root goes by its numbers alone. A root is the first label of a path, with its end.
CREATE TABLE index_roots (
    root TEXT PRIMARY KEY,
    items INTEGER NOT NULL,
    length INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO index_roots (root, items, length)
SELECT substr(items.path, 1, instr(items.path, char(9))), count(*), sum(index_entries.length)
FROM index_entries JOIN items ON items.id = index_entries.item
GROUP BY 1;

DELETE FROM meta WHERE name IN ('index_items', 'index_length');

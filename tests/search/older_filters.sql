-- Triggers of declared filters as they were made at first: of `status`, and of `tags[*]`.

CREATE TRIGGER filters_0_put AFTER INSERT ON items BEGIN INSERT INTO filter_scalars (field,
path, scalar, item) SELECT 0, new.path, found.scalar, new.id FROM (SELECT CASE
json_type(new.value, '$."status"') WHEN 'null' THEN x'01' WHEN 'false' THEN x'02' WHEN 'true'
THEN x'03' WHEN 'array' THEN x'04' WHEN 'object' THEN x'04' ELSE json_extract(new.value,
'$."status"') END AS scalar WHERE TRUE UNION ALL SELECT x'06' AS scalar WHERE new.value GLOB
'*\u0000*') AS found WHERE found.scalar IS NOT NULL ON CONFLICT DO NOTHING; END;

CREATE TRIGGER filters_0_change AFTER UPDATE OF value ON items WHEN NOT json_valid(old.value) OR
old.value GLOB '*\u0000*' OR new.value GLOB '*\u0000*' OR json_extract(old.value, '$."status"')
IS NOT json_extract(new.value, '$."status"') OR json_type(old.value, '$."status"') IS NOT
json_type(new.value, '$."status"') BEGIN DELETE FROM filter_scalars WHERE field = 0 AND path =
old.path AND item = old.id AND scalar IN (SELECT found.scalar FROM (SELECT CASE json_type(CASE
WHEN json_valid(old.value) THEN old.value END, '$."status"') WHEN 'null' THEN x'01' WHEN 'false'
THEN x'02' WHEN 'true' THEN x'03' WHEN 'array' THEN x'04' WHEN 'object' THEN x'04' ELSE
json_extract(CASE WHEN json_valid(old.value) THEN old.value END, '$."status"') END AS scalar
WHERE TRUE UNION ALL SELECT x'06' AS scalar WHERE CASE WHEN json_valid(old.value) THEN old.value
END GLOB '*\u0000*') AS found); INSERT INTO filter_scalars (field, path, scalar, item) SELECT 0,
new.path, found.scalar, new.id FROM (SELECT CASE json_type(new.value, '$."status"') WHEN 'null'
THEN x'01' WHEN 'false' THEN x'02' WHEN 'true' THEN x'03' WHEN 'array' THEN x'04' WHEN 'object'
THEN x'04' ELSE json_extract(new.value, '$."status"') END AS scalar WHERE TRUE UNION ALL SELECT
x'06' AS scalar WHERE new.value GLOB '*\u0000*') AS found WHERE found.scalar IS NOT NULL ON
CONFLICT DO NOTHING; END;

CREATE TRIGGER filters_0_drop AFTER DELETE ON items BEGIN DELETE FROM filter_scalars WHERE field
= 0 AND path = old.path AND item = old.id AND scalar IN (SELECT found.scalar FROM (SELECT CASE
json_type(CASE WHEN json_valid(old.value) THEN old.value END, '$."status"') WHEN 'null' THEN
x'01' WHEN 'false' THEN x'02' WHEN 'true' THEN x'03' WHEN 'array' THEN x'04' WHEN 'object' THEN
x'04' ELSE json_extract(CASE WHEN json_valid(old.value) THEN old.value END, '$."status"') END AS
scalar WHERE TRUE UNION ALL SELECT x'06' AS scalar WHERE CASE WHEN json_valid(old.value) THEN
old.value END GLOB '*\u0000*') AS found); END;

CREATE TRIGGER filters_1_put AFTER INSERT ON items BEGIN INSERT INTO filter_scalars (field,
path, scalar, item) SELECT 1, new.path, found.scalar, new.id FROM (SELECT CASE element.type WHEN
'null' THEN x'01' WHEN 'false' THEN x'02' WHEN 'true' THEN x'03' WHEN 'array' THEN x'04' WHEN
'object' THEN x'04' ELSE element.value END AS scalar FROM json_each(new.value, '$."tags"') AS
element WHERE json_type(new.value, '$."tags"') = 'array' UNION ALL SELECT x'05' AS scalar WHERE
json_type(new.value, '$."tags"') = 'text' UNION ALL SELECT x'06' AS scalar WHERE new.value GLOB
'*\u0000*') AS found WHERE found.scalar IS NOT NULL ON CONFLICT DO NOTHING; END;

CREATE TRIGGER filters_1_change AFTER UPDATE OF value ON items WHEN NOT json_valid(old.value) OR
old.value GLOB '*\u0000*' OR new.value GLOB '*\u0000*' OR json_extract(old.value, '$."tags"') IS
NOT json_extract(new.value, '$."tags"') OR json_type(old.value, '$."tags"') IS NOT
json_type(new.value, '$."tags"') BEGIN DELETE FROM filter_scalars WHERE field = 1 AND path =
old.path AND item = old.id AND scalar IN (SELECT found.scalar FROM (SELECT CASE element.type
WHEN 'null' THEN x'01' WHEN 'false' THEN x'02' WHEN 'true' THEN x'03' WHEN 'array' THEN x'04'
WHEN 'object' THEN x'04' ELSE element.value END AS scalar FROM json_each(CASE WHEN
json_valid(old.value) THEN old.value END, '$."tags"') AS element WHERE json_type(CASE WHEN
json_valid(old.value) THEN old.value END, '$."tags"') = 'array' UNION ALL SELECT x'05' AS scalar
WHERE json_type(CASE WHEN json_valid(old.value) THEN old.value END, '$."tags"') = 'text' UNION
ALL SELECT x'06' AS scalar WHERE CASE WHEN json_valid(old.value) THEN old.value END GLOB
'*\u0000*') AS found); INSERT INTO filter_scalars (field, path, scalar, item) SELECT 1,
new.path, found.scalar, new.id FROM (SELECT CASE element.type WHEN 'null' THEN x'01' WHEN
'false' THEN x'02' WHEN 'true' THEN x'03' WHEN 'array' THEN x'04' WHEN 'object' THEN x'04' ELSE
element.value END AS scalar FROM json_each(new.value, '$."tags"') AS element WHERE
json_type(new.value, '$."tags"') = 'array' UNION ALL SELECT x'05' AS scalar WHERE
json_type(new.value, '$."tags"') = 'text' UNION ALL SELECT x'06' AS scalar WHERE new.value GLOB
'*\u0000*') AS found WHERE found.scalar IS NOT NULL ON CONFLICT DO NOTHING; END;

CREATE TRIGGER filters_1_drop AFTER DELETE ON items BEGIN DELETE FROM filter_scalars WHERE field
= 1 AND path = old.path AND item = old.id AND scalar IN (SELECT found.scalar FROM (SELECT CASE
element.type WHEN 'null' THEN x'01' WHEN 'false' THEN x'02' WHEN 'true' THEN x'03' WHEN 'array'
THEN x'04' WHEN 'object' THEN x'04' ELSE element.value END AS scalar FROM json_each(CASE WHEN
json_valid(old.value) THEN old.value END, '$."tags"') AS element WHERE json_type(CASE WHEN
json_valid(old.value) THEN old.value END, '$."tags"') = 'array' UNION ALL SELECT x'05' AS scalar
WHERE json_type(CASE WHEN json_valid(old.value) THEN old.value END, '$."tags"') = 'text' UNION
ALL SELECT x'06' AS scalar WHERE CASE WHEN json_valid(old.value) THEN old.value END GLOB
'*\u0000*') AS found); END;

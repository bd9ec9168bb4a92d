-- From a file to what was made from it, and from a selected record back to its file. What belongs here:
-- following the inputs of the lineage. What does not: why a document was picked (macros_why.sql).
--
-- DuckDB puts the text of an argument where its name stands. So arguments stand only in a subquery `asked` without
-- tables, where nothing else can be meant, and every column has its table's name before it.

-- An output's name, as the inputs of others call it.
CREATE OR REPLACE MACRO output_name(asset, partition) AS
    asset || CASE partition WHEN '' THEN '' ELSE '[' || partition || ']' END;

-- Whether a file is meant: by its whole URI, by the end of it (whole names), or by a LIKE pattern.
CREATE OR REPLACE MACRO is_file(file, wanted) AS
    file = wanted OR ends_with(file, '/' || wanted) OR (contains(wanted, '%') AND file LIKE wanted);

-- dependents(uri): the outputs that were made from this file, directly or not; newest materializations.
-- Shards are known by where they are now and by where they were read; groups of files and targets by where they were
-- read.
CREATE OR REPLACE MACRO dependents(uri) AS TABLE
WITH RECURSIVE asked AS (
    SELECT uri AS uri
), outputs AS (
    SELECT output_name(l.asset, l.partition) AS name, l.* FROM latest AS l
), needs AS (
    SELECT o.name, unnest(map_keys(o.inputs)) AS input FROM outputs AS o
), affected(name) AS (
    SELECT o.name
    FROM asked
    CROSS JOIN outputs AS o
    LEFT JOIN shards AS s ON o.asset = 'raw_counts' AND s.shard = o.partition
    WHERE is_file(s.uri, asked.uri)
       OR (o.asset = 'raw_counts' AND o.partition IN (SELECT f.shard FROM files AS f WHERE is_file(f.uri, asked.uri)))
       OR len(list_filter(string_split(o.metadata->>'file', chr(10)), lambda file: is_file(file, asked.uri))) > 0
    UNION
    SELECT n.name FROM needs AS n JOIN affected AS a ON n.input = a.name
)
SELECT o.asset, o.partition, o.fingerprint, o.run_id, o.finished_at
FROM outputs AS o SEMI JOIN affected AS a ON a.name = o.name
ORDER BY o.sequence, o.asset, o.partition;

-- chain(version, shard): how a selected record came to be, from its `_dsir` object alone: every output between
-- the selection and the shard's file, by fingerprint, so that it works for old versions too. Step 1 is
-- the selection. Of the pool only this shard is followed; of an output that was materialized twice under one
-- fingerprint the last run is shown.
CREATE OR REPLACE MACRO chain(version, shard) AS TABLE
WITH RECURSIVE asked AS (
    SELECT version AS version, shard AS shard
), made AS (
    SELECT output_name(l.asset, l.partition) AS name, l.*
    FROM lineage AS l, asked
    WHERE l.asset NOT IN ('raw_counts', 'weights') OR l.partition = asked.shard
    QUALIFY row_number() OVER (
        PARTITION BY l.asset, l.partition, l.fingerprint ORDER BY l.sequence DESC, l.finished_at DESC
    ) = 1
), steps(step, name, fingerprint, inputs) AS (
    SELECT 1, m.name, m.fingerprint, m.inputs FROM made AS m, asked
    WHERE m.asset = 'selections' AND m.fingerprint = asked.version
    UNION ALL
    SELECT s.step + 1, m.name, m.fingerprint, m.inputs
    FROM steps AS s JOIN made AS m ON s.inputs[m.name] = m.fingerprint
)
SELECT
    max(s.step) AS step, m.asset, m.partition, m.fingerprint, m.run_id, m.started_at, m.finished_at,
    -- where the file is now, if it is still the same one; else where it was read; of a group: the first file
    any_value(
        coalesce(f.uri, m.metadata->>'file')
        || coalesce(format(' and {} more', nullif((m.metadata->>'files')::BIGINT - 1, 0)), '')
    ) AS uri,
    any_value(CASE m.asset WHEN 'raw_counts' THEN m.inputs['file'] END) AS sha256
FROM steps AS s
JOIN made AS m ON m.name = s.name AND m.fingerprint = s.fingerprint
LEFT JOIN shards AS f ON m.asset = 'raw_counts' AND f.shard = m.partition AND f.stamp = m.inputs['file']
GROUP BY m.asset, m.partition, m.fingerprint, m.run_id, m.started_at, m.finished_at
ORDER BY step, m.asset, m.partition;

-- Views over the Parquet files of the store, and over the lineage. What belongs here: rows as they are.
-- What does not: answers that need an argument (macros_*.sql), tables (schema.sql).
--
-- DuckDB cannot bind a parameter in CREATE VIEW, so the catalog replaces $where by an expression, here and nowhere
-- else: the variable `dsir_home` where it is set, as this project's own connections do, else where the files were
-- when the views were made: DSIR_HOME, or an object store. $files is the same, to be followed by a pattern.
--
-- Every column has its table's name before it: in a macro that uses a view, a bare one would clash with an
-- argument of that name.
--
-- The files of a shard that vanished stay until `dsir prune`; the views leave them out at once.

CREATE OR REPLACE VIEW documents AS
SELECT d.shard, d."row", d.record, d.begin_byte, d.end_byte, d.doc_id, d.source, d.n_tokens, d.n_ngrams, d.n_bytes,
       d.content_hash, d.most_frequent_word, d.informative_words, d.single_digits
-- By name: older files have fewer columns, which are read as NULL.
FROM read_parquet($files || '/documents/*.parquet', union_by_name = true) AS d
WHERE d.shard NOT IN (SELECT s.shard FROM shards AS s WHERE s.vanished_at IS NOT NULL);

-- The files of shards that are groups, as they were when they were counted. A file's first row in the shard is its row 0.
CREATE OR REPLACE VIEW files AS
SELECT f.shard, f.name, f.uri, f.first_row, f."rows", f.size, f.stamp
FROM read_parquet($files || '/files/*.parquet') AS f
WHERE f.shard NOT IN (SELECT s.shard FROM shards AS s WHERE s.vanished_at IS NOT NULL);

CREATE OR REPLACE VIEW quarantine AS
SELECT q.shard, q."row", q.reason, q.excerpt, coalesce(f.uri, s.uri) AS uri,
       q."row" - coalesce(f.first_row, 0) AS row_in_file
FROM read_parquet($files || '/quarantine/*.parquet') AS q
LEFT JOIN shards AS s ON s.shard = q.shard
LEFT JOIN files AS f ON f.shard = q.shard AND q."row" >= f.first_row AND q."row" < f.first_row + f."rows"
WHERE q.shard NOT IN (SELECT s.shard FROM shards AS s WHERE s.vanished_at IS NOT NULL);

CREATE OR REPLACE VIEW raw_counts AS
SELECT c.shard, c.bucket, c.count
FROM read_parquet($files || '/raw_counts/*.parquet') AS c
WHERE c.shard NOT IN (SELECT s.shard FROM shards AS s WHERE s.vanished_at IS NOT NULL);

CREATE OR REPLACE VIEW target_counts AS
SELECT c.target, c.bucket, c.count
FROM read_parquet($files || '/target_counts/*.parquet') AS c;

CREATE OR REPLACE VIEW log_ratios AS
SELECT r.target, r.bucket, r.log_ratio
FROM read_parquet($files || '/importance_estimator/*.parquet') AS r;

CREATE OR REPLACE VIEW weights AS
SELECT w.shard, w."row", w.target, w.log_weight
FROM read_parquet($files || '/weights/*/*.parquet', hive_partitioning = true, hive_types = {target: VARCHAR}) AS w
WHERE w.shard NOT IN (SELECT s.shard FROM shards AS s WHERE s.vanished_at IS NOT NULL);

-- Every version of every selection whose files are there.
CREATE OR REPLACE VIEW picks AS
SELECT p.selection, p.shard, p."row", p.record, p.begin_byte, p.end_byte, p.doc_id, p.source, p.target, p.log_weight,
       p.key, p.rank, coalesce(p.epoch, 1) AS epoch, p.n_tokens, p.version
FROM read_parquet($files || '/selections/*/*/picks.parquet', union_by_name = true) AS p;

-- Only the version that was materialized last.
CREATE OR REPLACE VIEW selections AS
SELECT p.* FROM picks AS p
JOIN latest AS l
  ON l.asset = 'selections' AND l.partition = p.selection AND l.fingerprint = p.version;

-- One row a version, however often it was materialized: of these, the last is shown. Versions are numbered
-- in the order in which they were first made. Lineage keeps a version after its files are gone.
CREATE OR REPLACE VIEW selection_versions AS
WITH made AS (
    SELECT l.*, l.inputs['configuration'] AS configuration,
           min(l.sequence) OVER (PARTITION BY l.partition, l.fingerprint) AS first_sequence
    FROM lineage AS l
    WHERE l.asset = 'selections'
    QUALIFY row_number() OVER (
        PARTITION BY l.partition, l.fingerprint ORDER BY l.sequence DESC, l.finished_at DESC
    ) = 1
), files AS (
    SELECT string_split(g.file, '/')[-3] AS selection, string_split(g.file, '/')[-2] AS version
    FROM glob($files || '/selections/*/*/picks.parquet') AS g
)
SELECT
    m.partition                                                                 AS selection,
    row_number() OVER (PARTITION BY m.partition ORDER BY m.first_sequence)      AS number,
    m.fingerprint                                                               AS version,
    m.run_id,
    m.sequence,
    m.finished_at,
    m.why,
    (m.metadata->>'documents')::BIGINT                                          AS documents,
    (m.metadata->>'tokens')::BIGINT                                             AS tokens,
    (m.metadata->>'threshold')::DOUBLE                                          AS threshold,
    $where || '/' || (m.metadata->>'folder')                                     AS folder,
    CASE WHEN f.version IS NOT NULL AND m.metadata->>'output' <> 'none'
         THEN folder || '/records-*.' || (m.metadata->>'output') END             AS records,
    l.fingerprint IS NOT NULL                                                   AS current,
    m.configuration::JSON                                                       AS configuration,
    f.version IS NOT NULL                                                       AS on_disk,
    m.pruned_at
FROM made AS m
LEFT JOIN files AS f ON f.selection = m.partition AND f.version = m.fingerprint
LEFT JOIN latest AS l
  ON l.asset = 'selections' AND l.partition = m.partition AND l.fingerprint = m.fingerprint;

-- The distributions of the pool that estimators are pinned to, by name.
CREATE OR REPLACE VIEW raw_distributions AS
SELECT d.name, d.bucket, d.count
FROM read_parquet($files || '/raw_distribution/*.parquet') AS d;

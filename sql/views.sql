-- Views over the Parquet files of the store. DuckDB can not bind a parameter in CREATE VIEW, so the
-- catalog replaces $home by the quoted path of DSIR_HOME, here and nowhere else.

CREATE OR REPLACE VIEW documents AS
SELECT shard, "row", doc_id, source, n_tokens, n_ngrams, n_bytes, content_hash
FROM read_parquet($home || '/documents/*.parquet');

CREATE OR REPLACE VIEW quarantine AS
SELECT shard, "row", reason, excerpt
FROM read_parquet($home || '/quarantine/*.parquet');

CREATE OR REPLACE VIEW raw_counts AS
SELECT shard, bucket, count
FROM read_parquet($home || '/raw_counts/*.parquet');

CREATE OR REPLACE VIEW target_counts AS
SELECT target, bucket, count
FROM read_parquet($home || '/target_counts/*.parquet');

CREATE OR REPLACE VIEW log_ratios AS
SELECT target, bucket, log_ratio
FROM read_parquet($home || '/importance_estimator/*.parquet');

CREATE OR REPLACE VIEW weights AS
SELECT shard, "row", target, log_weight
FROM read_parquet($home || '/weights/*.parquet');

-- Only the version that the lineage names: an older one stays on disk and is not seen here.
CREATE OR REPLACE VIEW selections AS
SELECT p.selection, p.shard, p."row", p.doc_id, p.source, p.target, p.log_weight, p.key, p.rank,
       p.n_tokens, p.version
FROM read_parquet($home || '/selections/*/*/picks.parquet') AS p
JOIN latest AS l
  ON l.asset = 'selections' AND l.partition = p.selection AND l.fingerprint = p.version;

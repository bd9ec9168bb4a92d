-- Tables of the catalog: small rows only. Bulk rows are Parquet files behind the views of views.sql.

CREATE TABLE IF NOT EXISTS shards (
    shard    VARCHAR PRIMARY KEY,   -- partition key
    source   VARCHAR NOT NULL,      -- name of the entry under `raw:`
    uri      VARCHAR NOT NULL,
    size     BIGINT NOT NULL,       -- bytes of the file
    modified DOUBLE NOT NULL,       -- seconds since the epoch, as the file system says
    stamp    VARCHAR NOT NULL,      -- SHA-256 of the file's bytes
    seen_at  TIMESTAMPTZ NOT NULL,  -- when the file was last read
    vanished_at TIMESTAMPTZ         -- when it was first not found any more; NULL while it is there
);

CREATE TABLE IF NOT EXISTS lineage (
    asset       VARCHAR NOT NULL,
    partition   VARCHAR NOT NULL,   -- '' for an asset without partitions
    fingerprint VARCHAR NOT NULL,   -- of the inputs, the configuration and the code that made it
    run_id      VARCHAR NOT NULL,   -- Dagster's
    inputs      MAP(VARCHAR, VARCHAR) NOT NULL,  -- 'asset[partition]', 'file', 'configuration', … -> fingerprint or text
    started_at  TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ NOT NULL,
    rows        BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,    -- written
    files       MAP(VARCHAR, VARCHAR) NOT NULL,  -- path below DSIR_HOME -> SHA-256
    metadata    JSON NOT NULL,      -- the figures that Dagster shows for the materialization
    pruned_at   TIMESTAMPTZ         -- when `dsir prune` removed the files; the row stays, as history
);

CREATE TABLE IF NOT EXISTS evaluations (
    selection VARCHAR NOT NULL,
    version   VARCHAR NOT NULL,     -- fingerprint of the selection that was measured
    target    VARCHAR NOT NULL,     -- '' where the metric does not belong to one target
    metric    VARCHAR NOT NULL,
    source    VARCHAR NOT NULL,     -- '' where the metric does not belong to one source
    value     DOUBLE
);

-- The newest materialization of every partition of every asset, but for those that were pruned.
CREATE OR REPLACE VIEW latest AS
SELECT * EXCLUDE (pruned_at) FROM lineage
WHERE pruned_at IS NULL
QUALIFY row_number() OVER (PARTITION BY asset, partition ORDER BY finished_at DESC, started_at DESC) = 1;

-- Fingerprint of the text of views.sql that the views were made of: they are made again when it changes.
CREATE TABLE IF NOT EXISTS view_version (fingerprint VARCHAR NOT NULL);

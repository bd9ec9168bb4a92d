-- Tables of the catalog: small rows only. Bulk rows are Parquet files behind the views of views.sql. To change a
-- column, raise `VERSION` in resources/catalog.py and convert old rows in upgrade_lineage.sql.

CREATE TABLE about (                -- one row
    version INTEGER NOT NULL,       -- of these tables
    commits BIGINT NOT NULL,        -- transactions recorded so far
    views   VARCHAR NOT NULL        -- fingerprint of the text of views and macros, which are made again when it changes
);

CREATE TABLE shards (
    shard    VARCHAR PRIMARY KEY,   -- partition key
    source   VARCHAR NOT NULL,      -- name of the entry under `raw:`
    uri      VARCHAR NOT NULL,
    size     BIGINT NOT NULL,       -- bytes of the file
    modified DOUBLE NOT NULL,       -- seconds since the epoch, as the file system says
    stamp    VARCHAR NOT NULL,      -- SHA-256 of the file's bytes
    seen_at  TIMESTAMPTZ NOT NULL,  -- when the file was last read
    vanished_at TIMESTAMPTZ         -- when it was first missing; NULL while it is there
);

CREATE TABLE materializations (
    sequence    BIGINT NOT NULL,    -- number of the transaction that recorded it: the newest has the largest
    asset       VARCHAR NOT NULL,
    partition   VARCHAR NOT NULL,   -- '' for an asset without partitions
    fingerprint VARCHAR NOT NULL,   -- of the inputs, the configuration and the code that made it
    run_id      VARCHAR NOT NULL,   -- Dagster's
    inputs      MAP(VARCHAR, VARCHAR) NOT NULL,  -- 'asset[partition]', 'file', 'configuration', … -> fingerprint or text
    list        VARCHAR,            -- digest of more inputs, which it shares with others; NULL if there are none
    started_at  TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ NOT NULL,
    rows        BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,    -- written
    files       MAP(VARCHAR, VARCHAR) NOT NULL,  -- path below DSIR_HOME -> SHA-256
    modified    MAP(VARCHAR, BIGINT) NOT NULL,   -- path -> when the file was written, as the file system says: ns
    metadata    JSON NOT NULL,      -- the figures that Dagster shows for the materialization
    pruned_at   TIMESTAMPTZ         -- when `dsir prune` removed the files; the row stays, as history
);

CREATE TABLE evaluations (
    selection VARCHAR NOT NULL,
    version   VARCHAR NOT NULL,     -- fingerprint of the selection that was measured
    target    VARCHAR NOT NULL,     -- '' where the metric does not belong to one target
    metric    VARCHAR NOT NULL,
    pick      VARCHAR NOT NULL,     -- 'selection', 'pool', 'random', a method's name, or 'seed': the selection with another seed
    statistic VARCHAR NOT NULL,     -- 'value', 'low', 'high' or 'sd'
    source    VARCHAR NOT NULL,     -- '' where the metric does not belong to one source
    value     DOUBLE
);

-- Outputs with unusable input: the last attempt, until one succeeds.
CREATE TABLE failures (
    asset       VARCHAR NOT NULL,
    partition   VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,   -- of its inputs: with others it has not been tried
    run_id      VARCHAR NOT NULL,   -- Dagster's
    failed_at   TIMESTAMPTZ NOT NULL,
    error       VARCHAR NOT NULL,
    PRIMARY KEY (asset, partition)
);

-- Inputs that several outputs share: outputs of an asset for every shard, which may be many.
CREATE TABLE input_lists (
    digest VARCHAR NOT NULL,        -- SHA-256
    inputs MAP(VARCHAR, VARCHAR) NOT NULL  -- 'asset[partition]' -> fingerprint, in order of names
);

-- Every materialization, with all its inputs.
CREATE VIEW lineage AS
SELECT m.* EXCLUDE (list)
       REPLACE (CASE WHEN m.list IS NULL THEN m.inputs ELSE map_concat(l.inputs, m.inputs) END AS inputs)
FROM materializations AS m LEFT JOIN input_lists AS l ON l.digest = m.list;

-- The newest materialization of every partition of every asset, but for those that were pruned.
CREATE VIEW latest AS
SELECT * EXCLUDE (pruned_at) FROM lineage
WHERE pruned_at IS NULL
QUALIFY row_number() OVER (PARTITION BY asset, partition ORDER BY sequence DESC, finished_at DESC) = 1;

-- Tables of the catalog: small rows only. Bulk rows are Parquet files behind the views of views.sql. What tables and
-- columns mean is in comments.sql. To change a column, raise `VERSION` in resources/catalog.py and convert old rows in
-- upgrade_*.sql. Times are in UTC: a plain TIMESTAMP is what every client can read.

CREATE TABLE about (
    version INTEGER NOT NULL,
    commits BIGINT NOT NULL,
    views   VARCHAR NOT NULL
);

CREATE TABLE shards (
    shard    VARCHAR PRIMARY KEY,
    source   VARCHAR NOT NULL,
    uri      VARCHAR NOT NULL,
    size     BIGINT NOT NULL,
    mtime    DOUBLE NOT NULL,
    stamp    VARCHAR NOT NULL,
    seen_at  TIMESTAMP NOT NULL,
    vanished_at TIMESTAMP,
    modified TIMESTAMP GENERATED ALWAYS AS (make_timestamp((nullif(mtime, 0) * 1e6)::BIGINT)) VIRTUAL
);

CREATE TABLE materializations (
    sequence    BIGINT NOT NULL,
    asset       VARCHAR NOT NULL,
    partition   VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    run_id      VARCHAR NOT NULL,
    why         VARCHAR,
    inputs      MAP(VARCHAR, VARCHAR) NOT NULL,
    list        VARCHAR,
    started_at  TIMESTAMP NOT NULL,
    finished_at TIMESTAMP NOT NULL,
    rows        BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    files       MAP(VARCHAR, VARCHAR) NOT NULL,
    modified    MAP(VARCHAR, BIGINT) NOT NULL,
    metadata    JSON NOT NULL,
    pruned_at   TIMESTAMP
);

CREATE TABLE evaluations (
    selection VARCHAR NOT NULL,
    version   VARCHAR NOT NULL,
    target    VARCHAR NOT NULL,
    metric    VARCHAR NOT NULL,
    pick      VARCHAR NOT NULL,
    statistic VARCHAR NOT NULL,
    source    VARCHAR NOT NULL,
    value     DOUBLE
);

CREATE TABLE failures (
    asset       VARCHAR NOT NULL,
    partition   VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    run_id      VARCHAR NOT NULL,
    failed_at   TIMESTAMP NOT NULL,
    error       VARCHAR NOT NULL,
    PRIMARY KEY (asset, partition)
);

CREATE TABLE input_lists (
    digest VARCHAR NOT NULL,
    inputs MAP(VARCHAR, VARCHAR) NOT NULL
);

CREATE VIEW lineage AS
SELECT m.* EXCLUDE (list) REPLACE (
    CASE WHEN m.list IS NULL THEN m.inputs ELSE map_concat(l.inputs, m.inputs) END AS inputs,
    map(map_keys(m.modified), list_transform(map_values(m.modified), lambda t: make_timestamp(t // 1000))) AS modified
)
FROM materializations AS m LEFT JOIN input_lists AS l ON l.digest = m.list;

CREATE VIEW latest AS
SELECT * EXCLUDE (pruned_at) FROM lineage
WHERE pruned_at IS NULL
QUALIFY row_number() OVER (PARTITION BY asset, partition ORDER BY sequence DESC, finished_at DESC) = 1;

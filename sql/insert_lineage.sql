INSERT INTO materializations BY NAME
SELECT "sequence", asset, partition, fingerprint, run_id, CAST(inputs::JSON AS MAP(VARCHAR, VARCHAR)) AS inputs, list,
       started_at AT TIME ZONE 'UTC' AS started_at,
       finished_at AT TIME ZONE 'UTC' AS finished_at, "rows", bytes, CAST(files::JSON AS MAP(VARCHAR, VARCHAR)) AS files,
       CAST(modified::JSON AS MAP(VARCHAR, BIGINT)) AS modified, nullif(why, '') AS why, metadata::JSON AS metadata
FROM "rows";

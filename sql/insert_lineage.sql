INSERT INTO lineage
SELECT asset, partition, fingerprint, run_id, CAST(inputs::JSON AS MAP(VARCHAR, VARCHAR)), started_at,
       finished_at, "rows", bytes, CAST(files::JSON AS MAP(VARCHAR, VARCHAR)), metadata::JSON, NULL
FROM "rows";

INSERT INTO lineage
SELECT asset, partition, fingerprint, run_id, CAST(inputs::JSON AS MAP(VARCHAR, VARCHAR)), started_at,
       finished_at, "rows", bytes, metadata::JSON
FROM "rows";

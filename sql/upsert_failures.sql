INSERT OR REPLACE INTO failures BY NAME
SELECT asset, partition, fingerprint, run_id, now() AS failed_at, error FROM "rows";

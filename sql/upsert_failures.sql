INSERT OR REPLACE INTO failures BY NAME
SELECT asset, partition, fingerprint, run_id, now() AT TIME ZONE 'UTC' AS failed_at, error FROM "rows";

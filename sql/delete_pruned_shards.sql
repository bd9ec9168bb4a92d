-- Vanished shards without any files left.
DELETE FROM shards
WHERE vanished_at IS NOT NULL AND list_contains($names, 'raw_counts/' || shard || '.parquet');

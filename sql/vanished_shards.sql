SELECT shard, uri, vanished_at AT TIME ZONE 'UTC' AS vanished_at FROM shards
WHERE vanished_at IS NOT NULL AND list_contains($sources, source) ORDER BY shard;

SELECT shard, source, uri, size, mtime AS modified, stamp, seen_at AT TIME ZONE 'UTC' AS seen_at,
       vanished_at IS NOT NULL AS vanished
FROM shards;

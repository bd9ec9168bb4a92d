INSERT OR REPLACE INTO shards
SELECT shard, source, uri, size, modified AS mtime, stamp, now() AT TIME ZONE 'UTC', NULL FROM found;

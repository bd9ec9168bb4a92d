INSERT OR REPLACE INTO shards
SELECT shard, source, uri, size, modified, stamp, now() FROM found;

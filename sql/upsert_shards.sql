INSERT OR REPLACE INTO shards
SELECT shard, source, uri, size, modified, stamp, now(), NULL FROM found;

SELECT shard, source, uri, size, modified, stamp, vanished_at IS NOT NULL AS vanished FROM shards;

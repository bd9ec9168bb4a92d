SELECT shard, source, uri, size, modified, stamp, seen_at, vanished_at IS NOT NULL AS vanished FROM shards;

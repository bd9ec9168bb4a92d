SELECT shard, source, uri, size, modified, stamp FROM shards;

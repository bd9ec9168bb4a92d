-- Shards of a catalog before version 5, which had the file system's seconds as `modified`.
SELECT * EXCLUDE (modified), modified AS mtime FROM shards;

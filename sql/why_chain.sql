-- From the shard's file to the selection.
SELECT * REPLACE (finished_at AT TIME ZONE 'UTC' AS finished_at) FROM chain($version, $shard)
ORDER BY step DESC, asset, partition;

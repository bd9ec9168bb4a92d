-- From the shard's file to the selection.
FROM chain($version, $shard) ORDER BY step DESC, asset, partition;

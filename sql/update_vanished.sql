-- Shards whose files are not found any more, and shards whose files are there again.
UPDATE shards SET vanished_at = CASE WHEN list_contains($gone, shard) THEN now() END
WHERE list_contains($gone, shard) OR list_contains($back, shard);

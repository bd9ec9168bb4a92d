-- Shards whose files are gone, and shards whose files are back.
UPDATE shards SET vanished_at = CASE WHEN list_contains($gone, shard) THEN now() AT TIME ZONE 'UTC' END
WHERE list_contains($gone, shard) OR list_contains($back, shard);

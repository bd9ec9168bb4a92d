-- Documents whose text another one has too, all but the first of each text: the first by id, then by shard and row,
-- so that the choice does not depend on how the pool is cut into shards. A row for each shard.
-- documents: rows of documents as read by the store, which checks them; DuckDB would not. Not a view, so that the
-- catalog is free while a large pool is sorted.
SELECT shard, list("row" ORDER BY "row") AS rows
FROM (
    SELECT d.shard, d."row"
    FROM documents AS d
    QUALIFY row_number() OVER (PARTITION BY d.content_hash ORDER BY d.doc_id, d.shard, d."row") > 1
)
GROUP BY shard;

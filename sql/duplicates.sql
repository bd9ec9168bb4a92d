-- Documents whose text is also that of another one, all but the first of each text: the first by id, then by shard
-- and row, so that which one stays does not depend on how the pool is cut into shards. A row for each shard.
-- documents: rows of documents, as the store reads them: it checks them, DuckDB would not. No view, so that the
-- catalog is free while a large pool is sorted.
SELECT shard, list("row" ORDER BY "row") AS rows
FROM (
    SELECT d.shard, d."row"
    FROM documents AS d
    QUALIFY row_number() OVER (PARTITION BY d.content_hash ORDER BY d.doc_id, d.shard, d."row") > 1
)
GROUP BY shard;

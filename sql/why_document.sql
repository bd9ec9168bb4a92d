-- A document by its id, with its log weight under a target and its place in a selection, if it has one.
SELECT d.shard, d."row", d.doc_id, d.source, d.n_tokens, d.content_hash, w.target, w.log_weight,
       s.rank, s.target AS picked_for
FROM documents AS d
JOIN weights AS w USING (shard, "row")
LEFT JOIN selections AS s ON s.selection = $selection AND s.shard = d.shard AND s."row" = d."row"
WHERE d.doc_id = $doc_id AND list_contains($targets, w.target)
ORDER BY d.shard, d."row", list_position($targets, w.target);

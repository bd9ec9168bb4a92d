-- The documents that a record was cut into, the first ones, and how many there are and are picked; those picked first.
SELECT d.doc_id, d.n_tokens, min(s.rank) AS rank, count(*) OVER () AS pieces, count(min(s.rank)) OVER () AS picked
FROM documents AS d
LEFT JOIN selections AS s ON s.selection = $selection AND s.shard = d.shard AND s."row" = d."row"
WHERE d.record IS NOT NULL AND starts_with(d.doc_id, $doc_id || '#')
  AND regexp_full_match(substr(d.doc_id, length($doc_id) + 2), '\d+')
GROUP BY d.shard, d."row", d.doc_id, d.n_tokens
ORDER BY rank IS NULL, d.shard, d."row"
LIMIT $shown;

-- The documents that a record was cut into: the first ones, picked ones before others, and their number.
WITH pieces AS (
    SELECT d.doc_id, d.shard, d."row", d.n_tokens, min(s.rank) AS rank
    FROM documents AS d
    LEFT JOIN selections AS s ON s.selection = $selection AND s.shard = d.shard AND s."row" = d."row"
    WHERE d.record IS NOT NULL AND starts_with(d.doc_id, $doc_id || '#')
      AND regexp_full_match(substr(d.doc_id, length($doc_id) + 2), '\d+')
    GROUP BY ALL
)
SELECT p.doc_id, p.n_tokens, p.rank, count(*) OVER () AS pieces, count(p.rank) OVER () AS picked
FROM pieces AS p
ORDER BY p.rank, p.shard, p."row"
LIMIT $shown;

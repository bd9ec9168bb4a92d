-- The best-ranked documents of each side.
FROM selection_changes($selection, $old, $new)
QUALIFY row_number() OVER (PARTITION BY change ORDER BY rank, target) <= $shown
ORDER BY change, rank, target;

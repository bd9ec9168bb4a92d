SELECT change, why, count(*) AS documents
FROM selection_changes($selection, $old, $new)
GROUP BY ALL
ORDER BY change, documents DESC, why;

-- Share of each source in the pool and in a version of a selection.
SELECT
    source,
    max(value) FILTER (pick = 'pool')       AS pool_share,
    max(value) FILTER (pick = 'selection')  AS selection_share
FROM evaluations
WHERE selection = $selection AND version = $version AND metric = 'share'
GROUP BY source
ORDER BY selection_share DESC, source;

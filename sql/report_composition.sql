-- Share of each source in the pool and in a version of a selection.
SELECT
    source,
    max(value) FILTER (metric = 'pool_share')       AS pool_share,
    max(value) FILTER (metric = 'selection_share')  AS selection_share
FROM evaluations
WHERE selection = $selection AND version = $version AND metric IN ('pool_share', 'selection_share')
GROUP BY source
ORDER BY selection_share DESC, source;

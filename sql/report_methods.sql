-- Versions of selections, each followed by the picks it is compared with, one row each: the means over its targets.
-- `pick` is NULL for the selection itself.
SELECT
    e.selection,
    nullif(e.pick, 'selection')                                                             AS pick,
    max(e.value) FILTER (e.metric = 'tokens')                                               AS tokens,
    max(e.value) FILTER (e.metric = 'mean_tokens')                                          AS mean_tokens,
    max(e.value) FILTER (e.metric = 'over_random' AND e.statistic = 'value')                AS over_random,
    max(e.value) FILTER (e.metric = 'over_random' AND e.statistic = 'low')                  AS low,
    max(e.value) FILTER (e.metric = 'over_random' AND e.statistic = 'high')                 AS high,
    max(e.value) FILTER (e.metric = 'over_random_unhashed' AND e.statistic = 'value')       AS over_random_unhashed,
    max(e.value) FILTER (e.metric = 'kl_reduction' AND e.statistic = 'value')               AS kl_reduction,
    max(e.value) FILTER (e.metric = 'distinct_ngrams')                                      AS distinct_ngrams,
    max(e.value) FILTER (e.metric = 'agreement')                                            AS agreement,
    -- How far the selection is ahead of this pick.
    max(e.value) FILTER (e.metric = 'ahead' AND e.statistic = 'value')                      AS ahead,
    max(e.value) FILTER (e.metric = 'ahead' AND e.statistic = 'low')                        AS ahead_low,
    max(e.value) FILTER (e.metric = 'ahead' AND e.statistic = 'high')                       AS ahead_high
FROM evaluations AS e
JOIN (SELECT unnest($selections) AS selection, unnest($versions) AS version) AS a
  ON a.selection = e.selection AND a.version = e.version
WHERE e.target = '' AND e.source = '' AND e.pick NOT LIKE 'selection x%'  -- nor its other sizes
GROUP BY e.selection, e.pick
HAVING over_random IS NOT NULL
ORDER BY list_position($selections, e.selection), e.pick <> 'selection', e.pick = 'random', over_random DESC, e.pick;

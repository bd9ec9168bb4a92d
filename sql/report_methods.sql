-- Versions of selections, each beside the picks that it is compared with, one row each, itself first: the means over its targets.
-- `pick` is NULL for the selection itself. The figures of `over_random` are those of a sample.
WITH measured AS (
    SELECT e.selection, map_from_entries(list((e.metric, e.value))) AS value
    FROM evaluations AS e
    JOIN (SELECT unnest($selections) AS selection, unnest($versions) AS version) AS a
      ON a.selection = e.selection AND a.version = e.version
    WHERE e.target = '' AND e.source = ''
    GROUP BY e.selection
), picks AS (
    SELECT m.selection, m.value, nullif(regexp_extract(k.metric, '^kl_reduction_?(.*)$', 1), '') AS pick
    FROM measured AS m, (SELECT unnest(map_keys(m.value)) AS metric) AS k
    WHERE k.metric LIKE 'kl_reduction%' AND NOT regexp_matches(k.metric, '_(low|high|sd)$')
), named AS (
    SELECT p.*, coalesce('_' || p.pick, '') AS suffix, coalesce(p.pick, 'selection') AS prefix FROM picks AS p
)
SELECT
    n.selection, n.pick,
    n.value[n.prefix || '_tokens']                              AS tokens,
    n.value[n.prefix || '_mean_tokens']                         AS mean_tokens,
    n.value['kl_reduction' || n.suffix]                         AS kl_reduction,
    n.value['kl_reduction' || n.suffix || '_low']               AS low,
    n.value['kl_reduction' || n.suffix || '_high']              AS high,
    n.value['over_random_independent_hash' || n.suffix]         AS independent_hash,
    n.value['over_random_unhashed' || n.suffix]                 AS unhashed,
    n.value[n.prefix || '_distinct_ngrams']                     AS distinct_ngrams,
    n.value[n.pick || '_agreement']                             AS agreement
FROM named AS n
ORDER BY list_position($selections, n.selection), n.pick IS NOT NULL, n.pick = 'random', kl_reduction DESC, n.pick;

-- One row a selection: its size, and the KL reduction beside that of random picks and of top-k.
WITH measured AS (
    SELECT
        l.partition                             AS selection,
        l.metadata->>'method'                   AS method,
        (l.metadata->>'documents')::BIGINT      AS documents,
        (l.metadata->>'tokens')::BIGINT         AS tokens,
        l.metadata->>'folder'                   AS folder,
        max(e.value) FILTER (e.metric = 'kl_reduction')            AS kl_reduction,
        max(e.value) FILTER (e.metric = 'kl_reduction_random')     AS kl_reduction_random,
        max(e.value) FILTER (e.metric = 'kl_reduction_random_sd')  AS kl_reduction_random_sd,
        max(e.value) FILTER (e.metric = 'kl_reduction_top_k')      AS kl_reduction_top_k,
        max(e.value) FILTER (e.metric = 'effective_sample_size')   AS effective_sample_size,
        max(e.value) FILTER (e.metric = 'top_k_agreement')         AS top_k_agreement
    FROM latest AS l
    LEFT JOIN evaluations AS e ON e.selection = l.partition AND e.version = l.fingerprint AND e.target = ''
    WHERE l.asset = 'selections' AND list_contains($selections, l.partition)
    GROUP BY ALL
)
SELECT * FROM measured ORDER BY list_position($selections, selection);

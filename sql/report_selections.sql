-- One row a selection: its size, where it is, the effective sample size of its weights.
WITH measured AS (
    SELECT
        l.partition                             AS selection,
        l.metadata->>'method'                   AS method,
        (l.metadata->>'documents')::BIGINT      AS documents,
        (l.metadata->>'tokens')::BIGINT         AS tokens,
        getvariable('dsir_home') || '/' || (l.metadata->>'folder') AS folder,
        getvariable('dsir_home') || '/' || (v.metadata->>'report') AS report,
        max(e.value) FILTER (e.metric = 'effective_sample_size')   AS effective_sample_size
    FROM latest AS l
    LEFT JOIN evaluations AS e ON e.selection = l.partition AND e.version = l.fingerprint AND e.target = ''
    LEFT JOIN latest AS v
      ON v.asset = 'evaluations' AND v.partition = l.partition AND v.metadata->>'selection_version' = l.fingerprint
    WHERE l.asset = 'selections' AND list_contains($selections, l.partition)
    GROUP BY ALL
)
SELECT * FROM measured ORDER BY list_position($selections, selection);

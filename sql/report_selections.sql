-- One row for each selection that was made: of the version that its configuration asks for, if that is one of them and
-- the launchpad did not ask for another one since; else of the one made last. `current`: it is the one made last.
WITH asked AS (
    SELECT unnest($selections) AS selection, unnest($wanted) AS wanted
), wanted AS (
    SELECT l.* FROM asked AS a
    JOIN lineage AS l ON l.asset = 'selections' AND l.partition = a.selection AND l.fingerprint = a.wanted
    JOIN latest AS n ON n.asset = 'selections' AND n.partition = a.selection
    WHERE l.pruned_at IS NULL AND (n.metadata->'launchpad') IS NULL
    QUALIFY row_number() OVER (PARTITION BY l.partition ORDER BY l.sequence DESC) = 1
), shown AS (
    SELECT a.selection, coalesce(w.fingerprint, l.fingerprint) AS version, version = l.fingerprint AS current,
           coalesce(w.metadata, l.metadata) AS metadata, coalesce(w.inputs, l.inputs) AS inputs
    FROM asked AS a
    JOIN latest AS l ON l.asset = 'selections' AND l.partition = a.selection
    LEFT JOIN wanted AS w ON w.partition = a.selection
), reports AS (
    SELECT l.partition AS selection, l.metadata->>'selection_version' AS version, l.metadata->>'report' AS report,
           l.metadata->>'verdict' AS verdict, l.metadata->>'verdict_level' AS verdict_level,
           l.metadata->>'measured_on' AS measured_on
    FROM lineage AS l
    WHERE l.asset = 'evaluations' AND l.pruned_at IS NULL
    QUALIFY row_number() OVER (PARTITION BY selection, version ORDER BY l.sequence DESC) = 1
)
SELECT
    s.selection, s.version, s.current,
    s.metadata->>'method'                  AS method,
    (s.metadata->>'documents')::BIGINT     AS documents,
    (s.metadata->>'tokens')::BIGINT        AS tokens,
    getvariable('dsir_home') || '/' || (s.metadata->>'folder')  AS folder,
    $home || '/' || r.report                                   AS report,
    r.verdict, r.verdict_level, r.measured_on,
    (s.metadata->'launchpad') IS NOT NULL  AS overridden,
    s.inputs['configuration']              AS configuration,
    map_keys(s.inputs)                     AS inputs,
    (SELECT max(e.value) FROM evaluations AS e
     WHERE e.selection = s.selection AND e.version = s.version AND e.target = '' AND e.metric = 'effective_sample_size')
                                           AS effective_sample_size
FROM shown AS s LEFT JOIN reports AS r ON r.selection = s.selection AND r.version = s.version
ORDER BY list_position($selections, s.selection);

-- What was read and how fast, over the newest materialization of each of these shards.
SELECT
    count(*)                                      AS shards,
    sum((metadata->>'documents')::BIGINT)         AS documents,
    sum((metadata->>'tokens')::BIGINT)            AS tokens,
    sum((metadata->>'text_bytes')::BIGINT) / 1e6  AS megabytes,
    sum((metadata->>'quarantined_rows')::BIGINT)  AS quarantined,
    megabytes / greatest(epoch(max(finished_at) - min(started_at)), 1e-3) AS megabytes_per_second
FROM latest
WHERE asset = 'raw_counts' AND list_contains($shards, partition);

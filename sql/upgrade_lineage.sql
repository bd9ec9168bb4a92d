-- Rows of a catalog of version 1, which had no `about`: the newest was what was finished last, and of files in the
-- home the whole path was recorded, wherever the home is now.
SELECT
    row_number() OVER (ORDER BY finished_at, started_at) AS "sequence",
    * EXCLUDE (metadata),
    MAP {}::MAP(VARCHAR, BIGINT) AS modified,
    json_merge_patch(metadata, CASE
        WHEN asset = 'selections' THEN json_object('folder', 'selections/' || partition || '/' || fingerprint)
        WHEN asset = 'evaluations' AND metadata->>'report' IS NOT NULL
        THEN json_object('report', 'evaluations/' || partition || '/' || fingerprint || '/report.html')
        ELSE '{}'::JSON END) AS metadata
FROM lineage;

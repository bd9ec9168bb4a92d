-- Rows of a catalog of version 1, which had no `about`: the newest row was the one finished last, and files in the home
-- were recorded with their whole path at the time.
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

SELECT * REPLACE (finished_at AT TIME ZONE 'UTC' AS finished_at, pruned_at AT TIME ZONE 'UTC' AS pruned_at)
FROM selection_versions ORDER BY selection, number;

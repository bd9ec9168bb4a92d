-- Outputs whose files are among these paths or in folders that are, and evaluations of these selections.
UPDATE materializations SET pruned_at = now() AT TIME ZONE 'UTC'
WHERE pruned_at IS NULL AND (
    len(list_filter(map_keys(files), lambda file: list_contains($names, file)
                    OR list_contains($names, parse_dirpath(file)))) > 0
    OR (asset = 'evaluations' AND list_contains($selections, partition))
)
RETURNING asset, partition, fingerprint;

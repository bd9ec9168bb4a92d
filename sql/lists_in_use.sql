-- The lists of inputs that lineage files refer to: those of the newest outputs and of every kept version of $versioned.
SELECT DISTINCT list FROM materializations
WHERE pruned_at IS NULL
QUALIFY list IS NOT NULL AND (
    list_contains($versioned, asset)
    OR row_number() OVER (PARTITION BY asset, partition ORDER BY sequence DESC, finished_at DESC) = 1
);

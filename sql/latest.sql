-- The newest lineage of every output, for the plan and for `dsir status`: the view `latest`, without the lists that
-- outputs share, which are read when someone asks for them. By row number, since a window over whole rows would hold
-- all of them.
SELECT m.asset, m.partition, m.fingerprint, m.run_id, to_json(m.inputs)::VARCHAR AS inputs, m.list,
       m.started_at AT TIME ZONE 'UTC' AS started_at, m.finished_at AT TIME ZONE 'UTC' AS finished_at, m.rows, m.bytes, coalesce(m.why, '') AS why,
       to_json(m.files)::VARCHAR AS files, to_json(m.modified)::VARCHAR AS modified, m.metadata::VARCHAR AS metadata
FROM materializations AS m
WHERE m.rowid IN (
    SELECT arg_max(n.rowid, (n.sequence, n.finished_at)) FROM materializations AS n
    WHERE n.pruned_at IS NULL GROUP BY n.asset, n.partition
);

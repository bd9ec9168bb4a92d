-- The newest lineage of every output, for the plan and for `dsir status`.
SELECT asset, partition, fingerprint, run_id, to_json(inputs)::VARCHAR AS inputs, started_at,
       finished_at, rows, bytes,
       to_json(files)::VARCHAR AS files, to_json(modified)::VARCHAR AS modified, metadata::VARCHAR AS metadata
FROM latest;

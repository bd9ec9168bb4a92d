-- The columns of a catalog without a version.
SELECT column_name FROM duckdb_columns()
WHERE database_name = current_database() AND table_name IN ('lineage', 'shards');

-- The columns of a catalog that does not say what version it is.
SELECT column_name FROM duckdb_columns()
WHERE database_name = current_database() AND table_name IN ('lineage', 'shards');

-- Of a database of Dagster's, in SQLite.
SELECT name FROM sqlite_master WHERE type = 'table';

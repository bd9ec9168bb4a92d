-- The tables of a SQLite database of Dagster's.
SELECT name FROM sqlite_master WHERE type = 'table';

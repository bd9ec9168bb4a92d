-- The versions of a SQLite database of Dagster's: more than one if two processes made it at once.
SELECT version_num FROM alembic_version ORDER BY 1;

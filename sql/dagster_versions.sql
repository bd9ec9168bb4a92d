-- Of a database of Dagster's, in SQLite: more than one, where two processes made it at once.
SELECT version_num FROM alembic_version ORDER BY 1;

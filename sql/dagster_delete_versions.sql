-- Of a database of Dagster's, in SQLite: all versions but this one.
DELETE FROM alembic_version WHERE version_num <> $version;

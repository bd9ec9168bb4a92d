-- A SQLite database of Dagster's: delete all versions but this one.
DELETE FROM alembic_version WHERE version_num <> $version;

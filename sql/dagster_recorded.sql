-- Of a database of Dagster's, in SQLite: whether anything is in a table. SQLite cannot bind its name, $table.
SELECT 1 FROM $table LIMIT 1;

-- A SQLite database of Dagster's: whether a table has rows. SQLite cannot bind the table's name, $table.
SELECT 1 FROM $table LIMIT 1;

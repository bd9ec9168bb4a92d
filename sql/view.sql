-- The rows of a kind of files that has no view in views.sql, as of an asset that was added. $view is its name; the rest
-- as there.
CREATE OR REPLACE VIEW $view AS FROM read_parquet($files || '/$view/*.parquet');

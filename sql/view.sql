-- The rows of a kind of files without a view in views.sql, such as an added asset's. $view is its name; the rest is as
-- there.
CREATE OR REPLACE VIEW $view AS FROM read_parquet($files || '/$view/*.parquet');

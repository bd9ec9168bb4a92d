-- The number of documents, and of different texts. $files: Parquet files of documents.
SELECT count(*) AS documents, count(DISTINCT content_hash) AS texts FROM read_parquet($files);

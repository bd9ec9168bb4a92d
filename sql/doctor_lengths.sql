-- Documents by length. $files: Parquet files of documents.
SELECT n_tokens, count(*) AS documents FROM read_parquet($files) GROUP BY n_tokens ORDER BY n_tokens;

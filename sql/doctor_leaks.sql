-- The given texts that the pool has, how often, and one document of each. $files: Parquet files of documents;
-- $hashes: content hashes.
SELECT d.content_hash, count(*) AS documents, min(d.doc_id) AS doc_id
FROM read_parquet($files) AS d
WHERE d.content_hash IN (SELECT unnest($hashes::UBIGINT[]))
GROUP BY d.content_hash;

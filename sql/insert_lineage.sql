INSERT INTO lineage
VALUES ($asset, $partition, $fingerprint, $run_id, CAST($inputs::JSON AS MAP(VARCHAR, VARCHAR)),
        $started_at, $finished_at, $rows, $bytes, $metadata::JSON);

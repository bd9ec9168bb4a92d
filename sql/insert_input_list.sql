INSERT INTO input_lists VALUES ($digest, CAST($inputs::JSON AS MAP(VARCHAR, VARCHAR)));

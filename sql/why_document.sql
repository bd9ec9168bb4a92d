FROM why($doc_id, $selection);

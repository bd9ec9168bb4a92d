INSERT INTO input_lists BY NAME FROM "rows";

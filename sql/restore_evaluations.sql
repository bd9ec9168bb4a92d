INSERT INTO evaluations BY NAME FROM "rows";

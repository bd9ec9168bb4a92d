INSERT INTO shards BY NAME FROM "rows";

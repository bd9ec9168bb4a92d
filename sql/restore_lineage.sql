INSERT INTO lineage BY NAME FROM "rows";

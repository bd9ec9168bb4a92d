INSERT INTO materializations BY NAME FROM "rows";

INSERT INTO evaluations BY NAME
SELECT $selection AS selection, $version AS version, target, metric, pick, statistic, source, value FROM metrics;

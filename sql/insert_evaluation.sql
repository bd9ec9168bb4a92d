INSERT INTO evaluations SELECT selection, version, target, metric, source, value FROM metrics;

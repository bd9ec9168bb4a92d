-- Failures of outputs that are made now.
DELETE FROM failures AS f USING "rows" AS r WHERE f.asset = r.asset AND f.partition = r.partition;

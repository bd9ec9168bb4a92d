-- The smallest key that was picked for each target of a selection.
SELECT target, min(key) AS threshold, count(*) AS documents FROM selections
WHERE selection = $selection GROUP BY target;

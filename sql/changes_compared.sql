-- The two compared versions, the old one first; `configured`: how the new one's configuration differs.
SELECT *, keys_changed(lag(configuration) OVER (ORDER BY side DESC), configuration) AS configured
FROM compared_versions($selection, $old, $new)
ORDER BY side DESC;

-- The two versions that are compared, the old one first; `configured` is what is configured otherwise in the new.
SELECT *, keys_changed(lag(configuration) OVER (ORDER BY side DESC), configuration) AS configured
FROM compared_versions($selection, $old, $new)
ORDER BY side DESC;

FROM selection_versions ORDER BY selection, number;

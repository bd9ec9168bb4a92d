-- A new catalog: the version of its tables, the transactions recorded so far, no views yet.
INSERT INTO about VALUES ($version, $commits, '');

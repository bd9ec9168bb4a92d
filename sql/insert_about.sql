-- What a new catalog says of itself: the version of its tables, the transactions recorded so far, no views yet.
INSERT INTO about VALUES ($version, $commits, '');

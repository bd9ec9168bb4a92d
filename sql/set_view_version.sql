DELETE FROM view_version;
INSERT INTO view_version VALUES ($fingerprint);

SELECT fingerprint FROM view_version;

-- Times are in UTC, or, of a catalog before version 5, with a time zone.
INSERT INTO shards BY NAME
SELECT * REPLACE (make_timestamp(epoch_us(seen_at)) AS seen_at, make_timestamp(epoch_us(vanished_at)) AS vanished_at)
FROM "rows";

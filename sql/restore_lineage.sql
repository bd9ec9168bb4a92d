-- Times are in UTC, or, of a catalog before version 5, with a time zone.
INSERT INTO materializations BY NAME
SELECT * REPLACE (
    make_timestamp(epoch_us(started_at)) AS started_at,
    make_timestamp(epoch_us(finished_at)) AS finished_at,
    make_timestamp(epoch_us(pruned_at)) AS pruned_at
) FROM "rows";

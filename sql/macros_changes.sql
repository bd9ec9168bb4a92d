-- What changed between two versions of a selection, and why. What belongs here: comparing two versions by
-- their picks and their lineage. What does not: one document of the current version (macros_why.sql).
--
-- Arguments stand in the subquery `asked` only; macros_lineage.sql says why.

-- The first three names of a list, and how many more there are; NULL of an empty list.
CREATE OR REPLACE MACRO shortened(names) AS
    array_to_string(names[:3], ', ') || CASE WHEN len(names) > 3 THEN ' and ' || (len(names) - 3) || ' more'
                                             WHEN len(names) > 0 THEN '' END;

-- A value of a piece of configuration as text, without what is not set in it, without quotes and braces.
CREATE OR REPLACE MACRO configured(configuration, key) AS regexp_replace(
    coalesce(json_extract(configuration, key)::VARCHAR, 'null'), ',"\w+":null|"\w+":null,|["{}]', '', 'g'
);

-- What differs between two pieces of configuration: 'seed 0 -> 1, size documents:20 -> tokens:9'.
CREATE OR REPLACE MACRO keys_changed(before, now) AS array_to_string(list_transform(
    list_filter(
        list_sort(list_distinct(json_keys(before) || json_keys(now))),
        lambda k: configured(before, k) <> configured(now, k)
    ),
    lambda k: k || ' ' || configured(before, k) || ' -> ' || configured(now, k)
), ', ');

-- An input that changed: its name, and of a piece of configuration the keys and values that did.
CREATE OR REPLACE MACRO input_changed(name, before, now) AS
    name || CASE WHEN before LIKE '{%' AND now LIKE '{%'
                 THEN ' (' || keys_changed(before::JSON, now::JSON) || ')' ELSE '' END;

-- What differs between the inputs of two versions of an output; '' if nothing.
-- (DuckDB substitutes text: a lambda's variable must not be called like one of a macro that it calls.)
CREATE OR REPLACE MACRO inputs_changed(before, now) AS concat_ws('; ',
    'changed: ' || shortened(list_transform(
        list_filter(list_sort(map_keys(now)), lambda input: before[input] <> now[input]),
        lambda input: input_changed(input, before[input], now[input])
    )),
    'new: ' || shortened(list_filter(list_sort(map_keys(now)), lambda input: before[input] IS NULL)),
    'gone: ' || shortened(list_filter(list_sort(map_keys(before)), lambda input: now[input] IS NULL))
);

-- compared_versions(selection, old, new): the two versions that are meant, one row each. A version is named by
-- its number or its fingerprint. Without `new` it is the one made last, without `old` the one made before
-- `new`, of those whose files are there.
CREATE OR REPLACE MACRO compared_versions(selection, old := NULL, new := NULL) AS TABLE
WITH asked AS (
    SELECT selection AS selection, CAST(old AS VARCHAR) AS old, CAST(new AS VARCHAR) AS new
), newer AS (
    SELECT v.* FROM selection_versions AS v, asked
    WHERE v.selection = asked.selection
      AND CASE WHEN asked.new IS NULL THEN v.on_disk
               ELSE asked.new IN (v.version, CAST(v.number AS VARCHAR)) END
    ORDER BY v.sequence DESC LIMIT 1
), older AS (
    SELECT v.* FROM selection_versions AS v, newer AS n, asked
    WHERE v.selection = asked.selection
      AND CASE WHEN asked.old IS NULL THEN v.on_disk AND v.sequence < n.sequence
               ELSE asked.old IN (v.version, CAST(v.number AS VARCHAR)) END
    ORDER BY v.sequence DESC LIMIT 1
)
SELECT 'old' AS side, o.* FROM older AS o UNION ALL SELECT 'new', n.* FROM newer AS n;

-- selection_changes(selection, old, new): the documents that entered or left between two versions, and why.
-- No rows if the files of one of them are gone. The same document on both sides is the same row of its shard,
-- or, in a file that changed, the same id.
--
-- A key on the side where the document was not picked is NULL where it cannot be known any more: the view
-- `weights` has only the newest weights (still the same ones for a target that did not change), and the noise is that
-- of the other side if the seed is the same.
--
-- Where new weights were computed, ranks tell who was displaced and who fell behind, since all weights move
-- together when the pool's distribution does: of the documents that were there on both sides, those of the old
-- version that would have had no place in the new one, had they kept their order, are displaced. What is left,
-- left because the order changed. Likewise for those that entered. Where the budget is a share of the eligible documents
-- and came out larger or smaller, the last of those that so got or lost a place owe that to the pool's size.
CREATE OR REPLACE MACRO selection_changes(selection, old := NULL, new := NULL) AS TABLE
WITH asked AS (
    SELECT selection AS selection, old AS old, new AS new
), sides AS (
    SELECT DISTINCT ON (v.side) v.side, v.selection, v.version, v.configuration, l.inputs,
           (l.metadata->>'key_rule')::JSON AS rule
    FROM asked, compared_versions(asked.selection, old := asked.old, new := asked.new) AS v
    JOIN lineage AS l ON l.asset = 'selections' AND l.partition = v.selection AND l.fingerprint = v.version
    WHERE v.on_disk
), inputs AS (
    SELECT s.side, unnest(map_entries(s.inputs)) AS input FROM sides AS s
), weighed AS (
    SELECT DISTINCT i.side, regexp_extract(i.input.key, '^weights\[(.*)\]$', 1) AS shard,
           w.metadata->>'log_weights' AS weights,  -- by target
           w.inputs[output_name('raw_counts', w.partition)] AS counts,
           w.inputs['importance_estimator'] AS estimator
    FROM inputs AS i
    LEFT JOIN lineage AS w  -- it lacks old rows where the catalog was made again without a copy
      ON w.asset = 'weights' AND w.fingerprint = i.input.value
     AND output_name(w.asset, w.partition) = i.input.key
    WHERE starts_with(i.input.key, 'weights[')
), pairs AS (  -- the shards: what each was on either side; NULL where it took no part
    SELECT w.shard,
           any_value(w.counts)  FILTER (w.side = 'old') AS old_counts,
           any_value(w.counts)  FILTER (w.side = 'new') AS new_counts,
           any_value(w.weights) FILTER (w.side = 'old') AS old_weights,
           any_value(w.weights) FILTER (w.side = 'new') AS new_weights,
           bool_or(w.counts IS NULL)                    AS lost,
           coalesce(old_counts = new_counts, false) AS stayed
    FROM weighed AS w GROUP BY w.shard
), reread AS (  -- shards that were counted again, and why
    SELECT DISTINCT p.shard,
           CASE WHEN o.inputs['file'] <> n.inputs['file'] THEN 'its file changed'
                ELSE 'its shard was read differently: ' || inputs_changed(o.inputs, n.inputs) END AS why
    FROM pairs AS p
    JOIN lineage AS o ON o.asset = 'raw_counts' AND o.partition = p.shard AND o.fingerprint = p.old_counts
    JOIN lineage AS n ON n.asset = 'raw_counts' AND n.partition = p.shard AND n.fingerprint = p.new_counts
    WHERE p.old_counts <> p.new_counts
), estimators AS (
    SELECT DISTINCT w.side, e.fingerprint, e.inputs
    FROM weighed AS w JOIN lineage AS e ON e.asset = 'importance_estimator' AND e.fingerprint = w.estimator
), circumstances AS (  -- one row: what else is different
    SELECT
        CASE WHEN eo.fingerprint = en.fingerprint THEN ''
             ELSE coalesce(' (importance_estimator ' || inputs_changed(eo.inputs, en.inputs) || ')', '') END AS estimator,
        concat_ws(', ',
            nullif(keys_changed(json_merge_patch(o.configuration, '{"output": null}'),
                                json_merge_patch(n.configuration, '{"output": null}')), ''),
            CASE WHEN o.inputs['code'] <> n.inputs['code'] THEN 'code' END
        ) AS configured,
        configured(o.configuration, 'seed') = configured(n.configuration, 'seed')
            AND configured(o.configuration, 'method') = configured(n.configuration, 'method')
            AND coalesce(o.rule = n.rule AND (n.rule->>'log_weight')::BOOLEAN, false)
            AND coalesce(n.rule->'length', o.configuration->'temperature', o.configuration->'length', o.configuration->'epochs',
                         n.configuration->'temperature', n.configuration->'length', n.configuration->'epochs'
                ) IS NULL AS same_noise,
        -- what order follows from: the rule of keys of both versions, NULL where one of them has none
        CASE WHEN o.rule = n.rule THEN n.rule END AS rule,
        coalesce((n.rule->>'log_weight')::BOOLEAN, false) AS by_weight,
        (o.configuration->>'$.size.fraction') IS NOT NULL
            AND (n.configuration->>'$.size.fraction') IS NOT NULL AS a_share
    FROM sides AS o
    JOIN sides AS n ON o.side = 'old' AND n.side = 'new'
    LEFT JOIN estimators AS eo ON eo.side = 'old'
    LEFT JOIN estimators AS en ON en.side = 'new'
), picked AS (
    SELECT s.side, p.*, h.* EXCLUDE (shard, old_weights, new_weights),
           h.old_weights->>p.target AS old_weights, h.new_weights->>p.target AS new_weights,
           CASE WHEN h.old_counts <> h.new_counts
                THEN p.doc_id || ' ' || row_number() OVER (PARTITION BY s.side, p.epoch, p.shard, p.doc_id ORDER BY p."row")
                ELSE CAST(p."row" AS VARCHAR) END AS document,
           row_number() OVER (PARTITION BY s.side, p.epoch, p.target, h.stayed ORDER BY p.rank) AS place
    FROM sides AS s
    JOIN picks AS p ON p.selection = s.selection AND p.version = s.version
    JOIN pairs AS h ON h.shard = p.shard
), targets AS (  -- the thresholds, and the places of documents of shards that stayed
    SELECT p.target, p.epoch,
           min(p.key) FILTER (p.side = 'old')               AS old_threshold,
           min(p.key) FILTER (p.side = 'new')               AS new_threshold,
           count(*)   FILTER (p.side = 'old' AND p.stayed)  AS old_places,
           count(*)   FILTER (p.side = 'new' AND p.stayed)  AS new_places,
           count(*)   FILTER (p.side = 'old')               AS old_picked,
           count(*)   FILTER (p.side = 'new')               AS new_picked
    FROM picked AS p GROUP BY p.target, p.epoch
), moved AS (
    SELECT p.* FROM picked AS p QUALIFY count(*) OVER (PARTITION BY p.epoch, p.shard, p.document) = 1
), weighed_there AS (  -- the log weight on the side where it was not picked
    SELECT m.*,
           CASE WHEN NOT m.stayed THEN NULL
                WHEN m.old_weights = m.new_weights THEN m.log_weight
                WHEN (l.metadata->>'log_weights')->>m.target
                     = CASE m.side WHEN 'old' THEN m.new_weights ELSE m.old_weights END
                THEN w.log_weight END AS log_weight_there
    FROM moved AS m
    LEFT JOIN latest AS l ON l.asset = 'weights' AND l.partition = m.shard
    LEFT JOIN weights AS w ON w.shard = m.shard AND w."row" = m."row" AND w.target = m.target
), keyed AS (
    SELECT w.*, CASE WHEN NOT c.same_noise THEN NULL
                     WHEN w.log_weight_there = w.log_weight THEN w.key
                     ELSE w.key - w.log_weight + w.log_weight_there END AS key_there
    FROM weighed_there AS w, circumstances AS c
)
SELECT
    CASE k.side WHEN 'old' THEN 'left' ELSE 'entered' END                   AS change,
    k.shard, k."row", k.doc_id, k.source, k.target, k.rank,
    CASE k.side WHEN 'old' THEN k.log_weight ELSE k.log_weight_there END    AS old_log_weight,
    CASE k.side WHEN 'new' THEN k.log_weight ELSE k.log_weight_there END    AS new_log_weight,
    CASE k.side WHEN 'old' THEN k.key ELSE k.key_there END                  AS old_key,
    CASE k.side WHEN 'new' THEN k.key ELSE k.key_there END                  AS new_key,
    t.old_threshold,
    t.new_threshold,
    CASE
        WHEN k.lost THEN 'not known: how its shard was weighed is not in the catalog any more'
        WHEN k.old_counts IS NULL THEN 'new shard'
        WHEN k.new_counts IS NULL AND s.vanished_at IS NOT NULL THEN 'the shard is gone'
        WHEN k.new_counts IS NULL THEN 'the shard is not counted any more'
        WHEN r.why IS NOT NULL THEN r.why
        WHEN c.configured <> '' THEN 'the configuration of the selection changed: ' || c.configured || c.estimator
        WHEN k.side = 'old' AND c.a_share AND k.place > greatest(t.new_places, t.old_places - (t.old_picked - t.new_picked))
            THEN 'the pool shrank, and the budget with it'
        WHEN k.side = 'new' AND c.a_share AND k.place > greatest(t.old_places, t.new_places - (t.new_picked - t.old_picked))
            THEN 'the pool grew, and the budget with it'
        WHEN c.rule IS NULL
            THEN 'not known: a version was made before rules of keys were kept'
        WHEN (c.rule->>'besides') IS NOT NULL THEN 'not known: keys do not decide alone; ' || (c.rule->>'besides')
        WHEN (c.rule->>'picked_only') IS NOT NULL THEN 'not known: keys of the method are kept of picked documents only'
        WHEN k.side = 'old' AND (NOT c.by_weight OR k.old_weights = k.new_weights OR k.place > t.new_places)
            THEN 'displaced by better documents'
        WHEN k.side = 'new' AND (NOT c.by_weight OR k.old_weights = k.new_weights OR k.place > t.old_places)
            THEN 'moved up: a place came free'
        WHEN k.side = 'old' THEN 'fell behind: its weight changed' || c.estimator
        ELSE 'moved ahead: its weight changed' || c.estimator
    END AS why
FROM keyed AS k
CROSS JOIN circumstances AS c
JOIN targets AS t ON t.target = k.target AND t.epoch = k.epoch
LEFT JOIN reread AS r ON r.shard = k.shard
LEFT JOIN shards AS s ON s.shard = k.shard
ORDER BY change, k.target, k.epoch, k.rank;

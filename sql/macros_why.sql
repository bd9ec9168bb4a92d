-- Why a document is in the current version of a selection, or is not. What belongs here: its key, the threshold
-- and the verdict. What does not: its n-grams, which are no rows (dsir/explain.py), other versions
-- (macros_changes.sql).
--
-- Arguments stand in the subquery `asked` only; macros_lineage.sql says why.

-- quality_failed(quality, ...): the first criterion of a selection's `quality` that a document with these counts of
-- words fails, with its value and bounds; NULL if there is none. `failing` in dsir/quality.py is the same.
CREATE OR REPLACE MACRO quality_failed(quality, n_tokens, most_frequent_word, informative_words, single_digits) AS
list_filter(
    list_transform(
        [
            {'name': 'words', 'value': n_tokens::DOUBLE},
            {'name': 'most_frequent_word', 'value': most_frequent_word / greatest(n_tokens, 1)},
            {'name': 'informative_words', 'value': informative_words / greatest(n_tokens, 1)},
            {'name': 'not_digits', 'value': (n_tokens - single_digits) / greatest(n_tokens, 1)}
        ],
        lambda c: {
            'name': c.name, 'value': c.value,
            'low': json_extract_string(json_extract(quality, c.name), 0)::DOUBLE, 'high': json_extract_string(json_extract(quality, c.name), 1)::DOUBLE
        }
    ),
    lambda c: NOT (coalesce(c.value > c.low, true) AND coalesce(c.value < c.high, true))
)[1];

-- corrected_log_weight(...): a log weight as a selection's `length` corrects it; `correct_for_length` in
-- dsir/importance.py is the same. The means are tokens of a document: of the target, of the pool.
CREATE OR REPLACE MACRO corrected_log_weight(log_weight, length, n_ngrams, n_tokens, target_mean, pool_mean) AS
CASE coalesce(length, 'none')
    WHEN 'none' THEN log_weight
    WHEN 'per_ngram' THEN CASE WHEN n_ngrams > 0 THEN log_weight / n_ngrams ELSE ln(1e-8) END
    WHEN 'sqrt' THEN log_weight / sqrt(greatest(n_ngrams, 1))
    WHEN 'poisson' THEN log_weight + (n_tokens * ln(target_mean / pool_mean) - (target_mean - pool_mean))
END;

-- why(doc_id, selection): one row for every document of this id, every target and every epoch of the selection. `rank`
-- is the rank among the picks of `picked_for`; `margin` is key - threshold. What is unknown is NULL: the views
-- `documents` and `weights` have what is newest, which may be newer than the selection while a run is under way or has
-- failed, and methods whose keys follow from more than log weights and noise keep keys of picked documents only. The
-- rule is recorded with the selection (`KeyRule` in resources/settings/methods.py); older versions have none.
CREATE OR REPLACE MACRO why(doc_id, selection) AS TABLE
WITH asked AS (
    SELECT doc_id AS doc_id, selection AS selection
), chosen AS (
    SELECT d.* FROM asked JOIN documents AS d ON d.doc_id = asked.doc_id
), weighed AS (  -- an inner join, since it reads of the files only what it needs
    SELECT w.* FROM chosen AS d JOIN weights AS w ON w.shard = d.shard AND w."row" = d."row"
), current AS (
    SELECT l.partition AS selection, l.fingerprint AS version, l.inputs, l.metadata,
           l.inputs['configuration']::JSON AS configuration, (l.metadata->>'key_rule')::JSON AS rule
    FROM asked JOIN latest AS l ON l.asset = 'selections' AND l.partition = asked.selection
), targets AS (
    SELECT unnest(range(1, len(n.names) + 1)) AS number, unnest(n.names) AS target
    FROM (SELECT from_json(c.configuration->'targets', '["VARCHAR"]') AS names FROM current AS c) AS n
), epochs AS (
    SELECT unnest(range(1, coalesce((c.configuration->>'epochs')::BIGINT, 1) + 1)) AS epoch FROM current AS c
), thresholds AS (
    SELECT s.target, s.epoch, min(s.key) AS threshold
    FROM current AS c JOIN selections AS s ON s.selection = c.selection GROUP BY s.target, s.epoch
), twins AS (  -- where duplicates are collapsed: the document of the same text that stays
    SELECT d.shard, d."row", min_by(t.doc_id, (t.doc_id, t.shard, t."row")) AS twin
    FROM chosen AS d
    JOIN current AS c ON c.configuration->>'collapse_duplicates' = 'true'
    JOIN documents AS t ON t.content_hash = d.content_hash AND (t.doc_id, t.shard, t."row") < (d.doc_id, d.shard, d."row")
    GROUP BY d.shard, d."row"
), weighed_then AS (  -- what the log weights were made of that the selection saw
    SELECT l.partition AS shard, any_value(l.metadata->>'log_weights') AS log_weights
    FROM current AS c JOIN lineage AS l
      ON l.asset = 'weights' AND l.fingerprint = c.inputs[output_name('weights', l.partition)]
    WHERE l.partition IN (SELECT d.shard FROM chosen AS d)
    GROUP BY l.partition
), found AS (
    SELECT d.*, t.number, t.target, e.epoch, c.version, w.log_weight AS log_weight_now,
           p.target AS picked_for, p.rank, p.key AS picked_key, p.log_weight AS picked_log_weight,
           c.configuration->>'method' AS method, c.configuration->>'source_caps' IS NOT NULL AS capped,
           c.configuration->>'near_duplicates' IS NOT NULL AS deduplicated,
           c.rule,
           CASE WHEN (c.rule->>'noise')::BOOLEAN
                THEN gumbel_noise(d.content_hash, (c.metadata->>'noise_keys')
                                  ->>(t.target || CASE WHEN e.epoch > 1 THEN '#' || e.epoch ELSE '' END))
                WHEN (c.rule->>'log_weight')::BOOLEAN THEN 0.0 END AS noise,
           corrected_log_weight(
               w.log_weight, coalesce(c.rule->>'length', c.configuration->>'length'), d.n_ngrams, d.n_tokens,
               ((c.metadata->>'mean_tokens')->>t.target)::DOUBLE, (c.metadata->>'pool_mean_tokens')::DOUBLE
           ) / coalesce(((c.metadata->>'temperatures')->>t.target)::DOUBLE, 1) AS corrected,
           (c.configuration->>'min_tokens')::BIGINT AS min_tokens,
           quality_failed(c.configuration->'quality', d.n_tokens, d.most_frequent_word, d.informative_words,
                          d.single_digits) AS failed,
           twins.twin,
           c.inputs[output_name('weights', d.shard)] AS weights,
           (lw.fingerprint = weights OR (lw.metadata->>'log_weights')->>t.target = a.log_weights->>t.target)
               AND lr.fingerprint = lw.inputs[output_name('raw_counts', d.shard)] AS same,
           lw.inputs['importance_estimator'] AS estimator
    FROM chosen AS d
    CROSS JOIN current AS c
    CROSS JOIN targets AS t
    CROSS JOIN epochs AS e
    LEFT JOIN weighed AS w ON w.shard = d.shard AND w."row" = d."row" AND w.target = t.target
    LEFT JOIN selections AS p
      ON p.selection = c.selection AND p.shard = d.shard AND p."row" = d."row" AND p.epoch = e.epoch
    LEFT JOIN twins ON twins.shard = d.shard AND twins."row" = d."row"
    LEFT JOIN weighed_then AS a ON a.shard = d.shard
    LEFT JOIN latest AS lw ON lw.asset = 'weights' AND lw.partition = d.shard
    LEFT JOIN latest AS lr ON lr.asset = 'raw_counts' AND lr.partition = d.shard
), keyed AS (
    SELECT f.*, t.threshold,
           CASE WHEN f.picked_for = f.target THEN f.picked_log_weight
                WHEN f.same THEN f.log_weight_now END AS log_weight,
           CASE WHEN f.picked_for = f.target THEN f.picked_key
                WHEN (f.rule->>'log_weight')::BOOLEAN THEN CASE WHEN f.same THEN f.corrected + f.noise END
                ELSE f.noise END AS key,
           key - t.threshold AS margin,
           f.n_tokens >= f.min_tokens AND f.failed IS NULL AND f.twin IS NULL AS eligible
    FROM found AS f LEFT JOIN thresholds AS t ON t.target = f.target AND t.epoch = f.epoch
)
SELECT
    k.shard, k."row", k.record, k.begin_byte, k.end_byte, k.doc_id, coalesce(f.uri, s.uri) AS uri,
    coalesce(k.record, k."row") - coalesce(f.first_row, 0) AS row_in_file, k.source, k.n_tokens, k.eligible, k.target,
    k.epoch, k.log_weight, k.noise, k.key, k.rank, k.picked_for, k.threshold, k.margin, k.version, k.estimator,
    CASE
        WHEN k.picked_for = k.target
            THEN format('picked, rank {:,}; above the threshold {:,.3f} by {:,.3f}', k.rank, k.threshold, k.margin)
        WHEN k.weights IS NULL THEN 'not picked; its shard was not counted when the selection was made'
        WHEN NOT k.same OR k.same IS NULL
            THEN 'not known: its shard was counted or weighed again since the selection was made'
        WHEN k.n_tokens < k.min_tokens
            THEN format('not eligible: it has {:,} tokens, min_tokens is {:,}', k.n_tokens, k.min_tokens)
        WHEN k.failed IS NOT NULL
            THEN format('not eligible: its quality.{} is {:.4g}, which has to be {}', k.failed.name, k.failed.value,
                        concat_ws(' and ', 'above ' || k.failed.low, 'below ' || k.failed.high))
        WHEN k.twin IS NOT NULL THEN format('not eligible: its text is also that of {}', k.twin)
        WHEN k.threshold IS NULL THEN 'nothing was picked for this target'
        WHEN k.picked_for IS NOT NULL
            THEN format('not picked for this target, since picked for {} (rank {:,})', k.picked_for, k.rank)
        WHEN k.rule IS NULL
            THEN 'not picked; its key is not known: the selection was made before rules of keys were kept'
        WHEN (k.rule->>'besides') IS NOT NULL THEN 'not picked; ' || (k.rule->>'besides')
        WHEN (k.rule->>'picked_only')::BOOLEAN
            THEN format('not picked; keys of method {} are kept of picked documents only', k.method)
        WHEN k.deduplicated AND k.margin >= 0
            THEN format('not picked; a better-ranked document is nearly the same{}, or it would be above the threshold '
                        '{:,.3f} by {:,.3f}', CASE WHEN k.capped THEN ' or its source has its share' ELSE '' END,
                        k.threshold, k.margin)
        WHEN k.capped AND k.margin >= 0
            THEN format('not picked; its source has its share, or it would be above the threshold {:,.3f} by {:,.3f}',
                        k.threshold, k.margin)
        ELSE format('not picked; below the threshold {:,.3f} by {:,.3f}', k.threshold, -k.margin)
    END AS verdict
FROM keyed AS k
LEFT JOIN shards AS s ON s.shard = k.shard
LEFT JOIN files AS f  -- of a group: the one that has the record
  ON f.shard = k.shard AND coalesce(k.record, k."row") >= f.first_row
 AND coalesce(k.record, k."row") < f.first_row + f."rows"
ORDER BY k.shard, k."row", k.number, k.epoch;

-- What tables, views, columns and questions mean, for whoever opens the catalog: `FROM duckdb_columns()` in any
-- shell shows it. What belongs here: all of it, and no statement beside COMMENT ON. Made together with the views,
-- since a view that is made again has lost its comments.

COMMENT ON TABLE about IS 'One row about the catalog itself.';
COMMENT ON COLUMN about.version IS 'Version of the tables.';
COMMENT ON COLUMN about.commits IS 'Transactions recorded so far.';
COMMENT ON COLUMN about.views IS 'Fingerprint of the text of views, macros and comments, which are made again when it changes.';

COMMENT ON TABLE shards IS 'The files of the pool; a group of files is one shard.';
COMMENT ON COLUMN shards.shard IS 'Partition key.';
COMMENT ON COLUMN shards.source IS 'Name of the entry under `raw`.';
COMMENT ON COLUMN shards.uri IS 'Where the file is.';
COMMENT ON COLUMN shards.size IS 'Bytes of the file.';
COMMENT ON COLUMN shards.mtime IS 'When the file was modified, in seconds since 1970 and to the last bit as the file system says it; 0 if it does not.';
COMMENT ON COLUMN shards.stamp IS 'SHA-256 of the file''s bytes.';
COMMENT ON COLUMN shards.seen_at IS 'When the file was last read (UTC).';
COMMENT ON COLUMN shards.vanished_at IS 'When it was first missing (UTC); NULL while it is there.';
COMMENT ON COLUMN shards.modified IS 'When the file was modified (UTC), to the microsecond; NULL if its file system does not say.';

COMMENT ON VIEW lineage IS 'Every output that was ever made, with all it was made of.';
COMMENT ON COLUMN lineage.sequence IS 'Number of the transaction that recorded it: the newest has the largest, whatever the clock said.';
COMMENT ON COLUMN lineage.asset IS 'Name of the asset.';
COMMENT ON COLUMN lineage.partition IS 'Its partition; '''' for an asset without partitions.';
COMMENT ON COLUMN lineage.fingerprint IS 'Of the inputs, the configuration and the code that made it.';
COMMENT ON COLUMN lineage.run_id IS 'Dagster''s run.';
COMMENT ON COLUMN lineage.why IS 'Why it was made, as `dsir status` said before; NULL if it was recorded without.';
COMMENT ON COLUMN lineage.inputs IS 'What it was made of: asset[partition], file, configuration, … to a fingerprint or a text.';
COMMENT ON COLUMN lineage.started_at IS 'When work on it began (UTC).';
COMMENT ON COLUMN lineage.finished_at IS 'When it was done (UTC).';
COMMENT ON COLUMN lineage."rows" IS 'Rows of the output.';
COMMENT ON COLUMN lineage.bytes IS 'Bytes written.';
COMMENT ON COLUMN lineage.files IS 'Its files, by path below DSIR_HOME, to their checksum: xxh3: and XXH3-128; of earlier versions, SHA-256.';
COMMENT ON COLUMN lineage.modified IS 'Its files, by path, to when they were written (UTC), as the file system says.';
COMMENT ON COLUMN lineage.metadata IS 'The figures that Dagster shows, as JSON.';
COMMENT ON COLUMN lineage.pruned_at IS 'When `dsir prune` removed its files (UTC); the row stays, as history.';

COMMENT ON VIEW latest IS 'The newest of every output, but for those that were pruned.';
COMMENT ON COLUMN latest.sequence IS 'Number of the transaction that recorded it: the newest has the largest, whatever the clock said.';
COMMENT ON COLUMN latest.asset IS 'Name of the asset.';
COMMENT ON COLUMN latest.partition IS 'Its partition; '''' for an asset without partitions.';
COMMENT ON COLUMN latest.fingerprint IS 'Of the inputs, the configuration and the code that made it.';
COMMENT ON COLUMN latest.run_id IS 'Dagster''s run.';
COMMENT ON COLUMN latest.why IS 'Why it was made, as `dsir status` said before; NULL if it was recorded without.';
COMMENT ON COLUMN latest.inputs IS 'What it was made of: asset[partition], file, configuration, … to a fingerprint or a text.';
COMMENT ON COLUMN latest.started_at IS 'When work on it began (UTC).';
COMMENT ON COLUMN latest.finished_at IS 'When it was done (UTC).';
COMMENT ON COLUMN latest."rows" IS 'Rows of the output.';
COMMENT ON COLUMN latest.bytes IS 'Bytes written.';
COMMENT ON COLUMN latest.files IS 'Its files, by path below DSIR_HOME, to their checksum: xxh3: and XXH3-128; of earlier versions, SHA-256.';
COMMENT ON COLUMN latest.modified IS 'Its files, by path, to when they were written (UTC), as the file system says.';
COMMENT ON COLUMN latest.metadata IS 'The figures that Dagster shows, as JSON.';

COMMENT ON TABLE materializations IS 'The rows behind `lineage`, where inputs that outputs share are stored once.';
COMMENT ON COLUMN materializations.sequence IS 'Number of the transaction that recorded it: the newest has the largest, whatever the clock said.';
COMMENT ON COLUMN materializations.asset IS 'Name of the asset.';
COMMENT ON COLUMN materializations.partition IS 'Its partition; '''' for an asset without partitions.';
COMMENT ON COLUMN materializations.fingerprint IS 'Of the inputs, the configuration and the code that made it.';
COMMENT ON COLUMN materializations.run_id IS 'Dagster''s run.';
COMMENT ON COLUMN materializations.why IS 'Why it was made, as `dsir status` said before; NULL if it was recorded without.';
COMMENT ON COLUMN materializations.inputs IS 'What it alone was made of; see `list`.';
COMMENT ON COLUMN materializations.started_at IS 'When work on it began (UTC).';
COMMENT ON COLUMN materializations.finished_at IS 'When it was done (UTC).';
COMMENT ON COLUMN materializations."rows" IS 'Rows of the output.';
COMMENT ON COLUMN materializations.bytes IS 'Bytes written.';
COMMENT ON COLUMN materializations.files IS 'Its files, by path below DSIR_HOME, to their checksum: xxh3: and XXH3-128; of earlier versions, SHA-256.';
COMMENT ON COLUMN materializations.modified IS 'Its files, by path, to when they were written, as the file system says: nanoseconds since 1970.';
COMMENT ON COLUMN materializations.metadata IS 'The figures that Dagster shows, as JSON.';
COMMENT ON COLUMN materializations.pruned_at IS 'When `dsir prune` removed its files (UTC); the row stays, as history.';
COMMENT ON COLUMN materializations.list IS 'Digest of more inputs, which it shares with others (`input_lists`); NULL if there are none.';

COMMENT ON TABLE input_lists IS 'Inputs that several outputs share: outputs of an asset for every shard.';
COMMENT ON COLUMN input_lists.digest IS 'SHA-256 of the inputs.';
COMMENT ON COLUMN input_lists.inputs IS 'asset[partition] to fingerprint, in order of names.';

COMMENT ON TABLE evaluations IS 'What was measured on the newest version of each selection.';
COMMENT ON COLUMN evaluations.selection IS 'Name of the selection.';
COMMENT ON COLUMN evaluations.version IS 'Fingerprint of the selection that was measured.';
COMMENT ON COLUMN evaluations.target IS 'Target; '''' where the metric does not belong to one.';
COMMENT ON COLUMN evaluations.metric IS 'What was measured; docs/evaluation.md explains each.';
COMMENT ON COLUMN evaluations.pick IS 'On which documents: selection, pool, random, a method''s name; seed for the selection with another seed.';
COMMENT ON COLUMN evaluations.statistic IS 'value, the ends low and high of its 95 % interval, or sd, the standard deviation over seeds.';
COMMENT ON COLUMN evaluations.source IS 'Source; '''' where the metric does not belong to one.';
COMMENT ON COLUMN evaluations.value IS 'The number.';

COMMENT ON TABLE failures IS 'Outputs whose input cannot be used: the last attempt, until one succeeds.';
COMMENT ON COLUMN failures.asset IS 'Name of the asset.';
COMMENT ON COLUMN failures.partition IS 'Its partition; '''' for an asset without partitions.';
COMMENT ON COLUMN failures.fingerprint IS 'Of its inputs: with others it has not been tried.';
COMMENT ON COLUMN failures.run_id IS 'Dagster''s run.';
COMMENT ON COLUMN failures.failed_at IS 'When it failed (UTC).';
COMMENT ON COLUMN failures.error IS 'What is wrong with the input, and what to do.';

COMMENT ON VIEW documents IS 'The documents of the pool.';
COMMENT ON COLUMN documents.shard IS 'The shard it is in.';
COMMENT ON COLUMN documents."row" IS 'Its number in the shard, from 0; in JSON Lines, the line.';
COMMENT ON COLUMN documents.record IS 'Row of the record in the shard, if `chunk_words` cut it; NULL if the document is the whole record.';
COMMENT ON COLUMN documents.begin_byte IS 'First byte of the piece in the UTF-8 bytes of the record''s text; NULL of a whole record.';
COMMENT ON COLUMN documents.end_byte IS 'The byte after its last; NULL of a whole record.';
COMMENT ON COLUMN documents.doc_id IS 'Its id, from the field that the configuration names.';
COMMENT ON COLUMN documents.source IS 'Name of the entry under `raw`, or what its field `source` says.';
COMMENT ON COLUMN documents.n_tokens IS 'Words.';
COMMENT ON COLUMN documents.n_ngrams IS 'n-grams of all orders.';
COMMENT ON COLUMN documents.n_bytes IS 'Bytes of its text in UTF-8.';
COMMENT ON COLUMN documents.content_hash IS '64-bit hash of its text; equal texts have equal ones.';
COMMENT ON COLUMN documents.most_frequent_word IS 'How often its most frequent word occurs; NULL unless some selection has `quality`.';
COMMENT ON COLUMN documents.informative_words IS 'Words that are neither English stopwords nor punctuation; NULL unless some selection has `quality`.';
COMMENT ON COLUMN documents.single_digits IS 'Words that are a single digit; NULL unless some selection has `quality`.';

COMMENT ON VIEW files IS 'The files of shards that are groups, as they were when they were counted.';
COMMENT ON COLUMN files.shard IS 'The group.';
COMMENT ON COLUMN files.name IS 'Name of the file in it.';
COMMENT ON COLUMN files.uri IS 'Where the file was.';
COMMENT ON COLUMN files.first_row IS 'The shard''s row that is the file''s row 0.';
COMMENT ON COLUMN files."rows" IS 'Rows of the file.';
COMMENT ON COLUMN files.size IS 'Bytes of the file.';
COMMENT ON COLUMN files.stamp IS 'SHA-256 of the file''s bytes.';

COMMENT ON VIEW quarantine IS 'Rows of the pool that are no documents, with the reason.';
COMMENT ON COLUMN quarantine.shard IS 'The shard it is in.';
COMMENT ON COLUMN quarantine."row" IS 'Its number in the shard, from 0.';
COMMENT ON COLUMN quarantine.reason IS 'What is wrong with it.';
COMMENT ON COLUMN quarantine.excerpt IS 'Its beginning.';
COMMENT ON COLUMN quarantine.uri IS 'The file.';
COMMENT ON COLUMN quarantine.row_in_file IS 'Its number in the file, from 0.';

COMMENT ON VIEW raw_counts IS 'n-grams of the pool by shard and bucket.';
COMMENT ON COLUMN raw_counts.shard IS 'The shard.';
COMMENT ON COLUMN raw_counts.bucket IS 'Bucket of the hash.';
COMMENT ON COLUMN raw_counts.count IS 'n-grams that fall into it.';

COMMENT ON VIEW target_counts IS 'n-grams of the targets by bucket.';
COMMENT ON COLUMN target_counts.target IS 'The target.';
COMMENT ON COLUMN target_counts.bucket IS 'Bucket of the hash.';
COMMENT ON COLUMN target_counts.count IS 'n-grams that fall into it.';

COMMENT ON VIEW raw_distributions IS 'The distributions of the pool that estimators are pinned to.';
COMMENT ON COLUMN raw_distributions.name IS 'As in `estimator.fit.pinned`.';
COMMENT ON COLUMN raw_distributions.bucket IS 'Bucket of the hash.';
COMMENT ON COLUMN raw_distributions.count IS 'n-grams that fall into it.';

COMMENT ON VIEW log_ratios IS 'What an n-gram of a bucket says for a target.';
COMMENT ON COLUMN log_ratios.target IS 'The target.';
COMMENT ON COLUMN log_ratios.bucket IS 'Bucket of the hash.';
COMMENT ON COLUMN log_ratios.log_ratio IS 'Log of its probability under the target less that under the pool, in nats.';

COMMENT ON VIEW weights IS 'Log importance weights of the documents; a query for one target opens only its files.';
COMMENT ON COLUMN weights.shard IS 'The shard.';
COMMENT ON COLUMN weights."row" IS 'The document''s number in the shard.';
COMMENT ON COLUMN weights.target IS 'The target.';
COMMENT ON COLUMN weights.log_weight IS 'Sum of the log ratios of its n-grams, in nats.';

COMMENT ON VIEW picks IS 'The picked documents of all versions of the selections whose files are there.';
COMMENT ON COLUMN picks.selection IS 'Name of the selection.';
COMMENT ON COLUMN picks.shard IS 'The shard it is in.';
COMMENT ON COLUMN picks."row" IS 'Its number in the shard, from 0; in JSON Lines, the line.';
COMMENT ON COLUMN picks.record IS 'Row of the record in the shard, if `chunk_words` cut it; NULL if the document is the whole record.';
COMMENT ON COLUMN picks.begin_byte IS 'First byte of the piece in the UTF-8 bytes of the record''s text; NULL of a whole record.';
COMMENT ON COLUMN picks.end_byte IS 'The byte after its last; NULL of a whole record.';
COMMENT ON COLUMN picks.doc_id IS 'Its id, from the field that the configuration names.';
COMMENT ON COLUMN picks.source IS 'Name of the entry under `raw`, or what its field `source` says.';
COMMENT ON COLUMN picks.target IS 'The target it was picked for.';
COMMENT ON COLUMN picks.log_weight IS 'Its log weight for this target, in nats.';
COMMENT ON COLUMN picks.key IS 'What decided: the documents with the largest keys are picked.';
COMMENT ON COLUMN picks.rank IS 'Rank among the picks of its target and epoch, from 1.';
COMMENT ON COLUMN picks.epoch IS 'Epoch it was picked in, from 1.';
COMMENT ON COLUMN picks.n_tokens IS 'Words.';
COMMENT ON COLUMN picks.version IS 'Fingerprint of the selection.';

COMMENT ON VIEW selections IS 'The picked documents of the version of each selection that was made last.';
COMMENT ON COLUMN selections.selection IS 'Name of the selection.';
COMMENT ON COLUMN selections.shard IS 'The shard it is in.';
COMMENT ON COLUMN selections."row" IS 'Its number in the shard, from 0; in JSON Lines, the line.';
COMMENT ON COLUMN selections.record IS 'Row of the record in the shard, if `chunk_words` cut it; NULL if the document is the whole record.';
COMMENT ON COLUMN selections.begin_byte IS 'First byte of the piece in the UTF-8 bytes of the record''s text; NULL of a whole record.';
COMMENT ON COLUMN selections.end_byte IS 'The byte after its last; NULL of a whole record.';
COMMENT ON COLUMN selections.doc_id IS 'Its id, from the field that the configuration names.';
COMMENT ON COLUMN selections.source IS 'Name of the entry under `raw`, or what its field `source` says.';
COMMENT ON COLUMN selections.target IS 'The target it was picked for.';
COMMENT ON COLUMN selections.log_weight IS 'Its log weight for this target, in nats.';
COMMENT ON COLUMN selections.key IS 'What decided: the documents with the largest keys are picked.';
COMMENT ON COLUMN selections.rank IS 'Rank among the picks of its target and epoch, from 1.';
COMMENT ON COLUMN selections.epoch IS 'Epoch it was picked in, from 1.';
COMMENT ON COLUMN selections.n_tokens IS 'Words.';
COMMENT ON COLUMN selections.version IS 'Fingerprint of the selection.';

COMMENT ON VIEW selection_versions IS 'The versions of the selections; a version that was made twice is one row.';
COMMENT ON COLUMN selection_versions.selection IS 'Name of the selection.';
COMMENT ON COLUMN selection_versions.number IS 'Number of the version, from 1, in the order in which they were first made.';
COMMENT ON COLUMN selection_versions.version IS 'Its fingerprint.';
COMMENT ON COLUMN selection_versions.run_id IS 'Dagster''s run that made it last.';
COMMENT ON COLUMN selection_versions.sequence IS 'Number of the transaction that recorded it last.';
COMMENT ON COLUMN selection_versions.finished_at IS 'When it was made (UTC).';
COMMENT ON COLUMN selection_versions.why IS 'Why it was made; NULL if it was recorded without.';
COMMENT ON COLUMN selection_versions.documents IS 'Documents picked.';
COMMENT ON COLUMN selection_versions.tokens IS 'Their words.';
COMMENT ON COLUMN selection_versions.threshold IS 'The smallest key that was picked.';
COMMENT ON COLUMN selection_versions.folder IS 'Where its files are.';
COMMENT ON COLUMN selection_versions.records IS 'Its files of records, as a pattern; NULL if it has none.';
COMMENT ON COLUMN selection_versions.current IS 'Whether it is the one in `selections`.';
COMMENT ON COLUMN selection_versions.configuration IS 'Its configuration, as JSON.';
COMMENT ON COLUMN selection_versions.on_disk IS 'Whether its files are there.';
COMMENT ON COLUMN selection_versions.pruned_at IS 'When `dsir prune` removed them (UTC).';

COMMENT ON MACRO TABLE dependents IS 'dependents(uri): what was made from a file, named by its URI, the end of it or a LIKE pattern.';
COMMENT ON MACRO TABLE chain IS 'chain(version, shard): how a record of a selection came to be, from what its `_dsir` object says.';
COMMENT ON MACRO TABLE why IS 'why(doc_id, selection): why a document is in the newest version of a selection, or is not.';
COMMENT ON MACRO TABLE selection_changes IS 'selection_changes(selection, old, new): the documents that entered or left between two versions, and why. Without versions: the last two.';
COMMENT ON MACRO TABLE compared_versions IS 'compared_versions(selection, old, new): the two versions that selection_changes compares.';

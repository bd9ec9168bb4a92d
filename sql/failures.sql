SELECT asset, partition, fingerprint, error FROM failures;

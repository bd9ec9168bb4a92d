"""Partitions of the graph: shards are found at run time, targets and selections are configured."""

import dagster as dg

shards = dg.DynamicPartitionsDefinition(name="shards")

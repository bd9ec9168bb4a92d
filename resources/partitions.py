"""Partitions of the graph: shards are found at run time, targets and selections are configured."""

from collections.abc import Sequence

import dagster as dg

from dsir_dagster.resources.plan import Plan

SHARDS = "shards"

shards = dg.DynamicPartitionsDefinition(name=SHARDS)


def register_shards(instance: dg.DagsterInstance, plan: Plan, vanished: Sequence[str] = ()) -> list[str]:
    """Let Dagster know the shards that there are as partitions.

    Parameters
    ----------
    instance : DagsterInstance
    plan : Plan
    vanished : sequence of str
        Shards whose files are gone: their partitions go. What is known of them stays, and shows again with the file.

    Returns
    -------
    list of str
        Keys of the shards that are new.
    """
    known = set(instance.get_dynamic_partitions(SHARDS))
    for key in sorted(known.intersection(vanished)):
        instance.delete_dynamic_partition(SHARDS, key)
    new = sorted(plan.shards.keys() - known)
    if new:
        instance.add_dynamic_partitions(SHARDS, new)
    return new

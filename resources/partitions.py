"""Partitions of the graph that are found at run time: the shards.

What belongs here: telling Dagster which shards there are. What does not: finding them (``resources/discovery.py``),
targets and selections, whose partitions are configured (``dagster_project/definitions.py``).
"""

from collections.abc import Sequence

import dagster as dg

from dsir_dagster.resources.plan import Plan

SHARDS = "shards"

shards = dg.DynamicPartitionsDefinition(name=SHARDS)


def register_shards(instance: dg.DagsterInstance, plan: Plan, vanished: Sequence[str] = ()) -> list[str]:
    """Register all shards with Dagster as partitions.

    Parameters
    ----------
    instance : DagsterInstance
    plan : Plan
    vanished : sequence of str
        Shards whose files are gone: their partitions are removed. Dagster keeps their events and shows them again
        if the file returns.

    Returns
    -------
    list of str
        Keys of the new shards.
    """
    known = set(instance.get_dynamic_partitions(SHARDS))
    for key in sorted(known.intersection(vanished)):
        instance.delete_dynamic_partition(SHARDS, key)
    new = sorted(plan.shards.keys() - known)
    if new:
        instance.add_dynamic_partitions(SHARDS, new)
    return new

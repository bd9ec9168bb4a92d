"""A Ray cluster on this machine's loopback addresses.

What belongs here: starting and ending its nodes. What does not: what is tested on them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Bytes of each node's object store.
STORE = 80 * 2**20


@contextmanager
def two_nodes() -> Iterator[tuple[Any, list]]:
    """Run a head without cores and two nodes of one core each; yield Ray's cluster and the two.

    Every process of pytest-xdist has addresses of its own.
    """
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray replaces 127.0.0.1 by the host's address, and then waits for itself.
    network = 1 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    head = {"num_cpus": 0, "node_ip_address": f"127.0.{network}.2", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"object_store_memory": STORE})
    try:
        nodes = [
            cluster.add_node(
                num_cpus=1, object_store_memory=STORE, node_ip_address=f"127.0.{network}.{number}"
            )
            for number in (3, 4)
        ]
        ray.init(address=cluster.address, _node_ip_address=head["node_ip_address"], log_to_driver=False)
        yield cluster, nodes
    finally:
        ray.shutdown()
        cluster.shutdown()

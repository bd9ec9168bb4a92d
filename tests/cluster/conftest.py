"""A Ray cluster for each test that wants one; a real S3 server for all, and a proxy before it for each."""

import os

import pytest

from tests.cluster.object_server import Proxy, point_to, s3_server


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory):
    """The port of an S3 server with an empty bucket."""
    with s3_server(tmp_path_factory.mktemp("s3")) as port:
        yield port


@pytest.fixture
def proxy(s3_port, monkeypatch):
    """A proxy before the S3 server, which the environment points to."""
    proxy = Proxy(s3_port)
    point_to(proxy.endpoint, monkeypatch)
    yield proxy
    proxy.close()


os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
STORE = 80 * 2**20


@pytest.fixture
def cluster():
    """A head without cores and two nodes of one core each, on addresses of this machine's own."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    # Ray replaces 127.0.0.1 by the host's address, and then waits for itself.
    head = {"num_cpus": 0, "node_ip_address": "127.0.0.2", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"object_store_memory": STORE})
    nodes = [add_node(cluster, f"127.0.0.{number}") for number in (3, 4)]
    ray.init(address=cluster.address, _node_ip_address="127.0.0.2", log_to_driver=False)
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()


def add_node(cluster, address):
    return cluster.add_node(num_cpus=1, object_store_memory=STORE, node_ip_address=address)

"""A Ray cluster for each test that wants one; a real S3 server for all, and a proxy before it for each."""

import pytest

from tests.cluster.nodes import two_nodes
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


@pytest.fixture
def cluster():
    """Ray's cluster, and its two nodes of one core each."""
    pytest.importorskip("ray")
    with two_nodes() as started:
        yield started

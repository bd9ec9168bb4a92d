"""A real S3 server for all tests of this folder, and a proxy before it for each."""

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

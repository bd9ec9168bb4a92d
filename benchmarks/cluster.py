"""The whole graph by two threads, on two Ray nodes of one core, and in an S3 server's bucket, all on this machine.

What belongs here: what is compared and shown. What does not: timing a process (``benchmarks/pipeline.py``), the text
(``benchmarks/pool.py``), the servers (``tests/cluster/``).

    python -m benchmarks.cluster --megabytes 1100
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from benchmarks.pipeline import Pipeline
from benchmarks.pool import make_pool, require_corpus
from dsir_dagster.resources.store import Origin
from dsir_dagster.resources.workspace import Workspace
from tests.cluster.nodes import two_nodes
from tests.cluster.object_server import BUCKET, HOST, point_to, put, s3_server

NODES = 2


def main() -> int:
    """Run the graph in each way; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1100, help="bytes of text in the pool")
    megabytes = parser.parse_args().megabytes
    console, corpus = Console(highlight=False), require_corpus()
    table = Table(box=None, header_style="bold")
    for header in ("", "wall, s", "CPU, s", "wall, ratio", "peak, MB"):
        table.add_column(header, justify="right" if header else "left")
    with tempfile.TemporaryDirectory(prefix="dsir-cluster-") as name:
        folder = Path(name)
        pool = make_pool(corpus, folder / "text", int(megabytes * 1e6), int(megabytes / 16 * 1e6), {})

        def pipeline(kind: str, uri: str = f"{folder / 'text' / 'pool'}/*", **changes: object) -> Pipeline:
            return Pipeline(folder / kind, uri, corpus.target, corpus.holdout, **changes)

        pipeline("first").run()  # whatever is read or compiled once
        threads = pipeline("threads", compute={"cores": NODES})
        plain = threads.run()
        rows = [("two threads, local disk", plain)]
        with two_nodes() as (cluster, _):
            on_ray = pipeline("ray", compute={"engine": "ray", "address": cluster.address, "cores": 1})
            rows.append(("two Ray nodes of one core", on_ray.run()))
        with bucket(folder) as port:
            for shard in pool.shards:
                put(port, f"pool/{shard.name}", shard.read_bytes())
            uri, store = f"s3://{BUCKET}/pool/*", f"s3://{BUCKET}/home"
            in_bucket = pipeline("s3", uri, compute={"cores": NODES}, store=store)
            rows.append(("two threads, pool and store in S3", in_bucket.run()))
            same = {
                "files by Ray": files_of(on_ray) == files_of(threads),
                "picks in S3": picks_of(in_bucket) == picks_of(threads),
            }
        documents, n_bytes = threads.counted()
    for what, process in rows:
        ratio = process.wall / plain.wall
        table.add_row(
            what, f"{process.wall:.1f}", f"{process.cpu:.1f}", f"{ratio:.2f}", f"{process.peak:,.0f}"
        )
    console.print(f"{n_bytes / 1e6:,.0f} MB of text, {documents:,} documents, {len(pool.shards)} shards")
    console.print(table)
    console.print("CPU and memory are the leading process's.")
    for what, equal in same.items():
        console.print(f"{what}: {'the same' if equal else 'different'}")
    return 0 if all(same.values()) else 1


@contextmanager
def bucket(folder: Path) -> Iterator[int]:
    """Run an S3 server, and point this process and its children to it; yield its port."""
    (folder / "server").mkdir()
    with s3_server(folder / "server") as port, pytest.MonkeyPatch.context() as environment:
        point_to(f"http://{HOST}:{port}", environment)
        yield port


def files_of(pipeline: Pipeline) -> dict[str, str]:
    """Return the checksum of every file of outputs, but for reports, which show times and places."""
    return {
        name: checksum
        for row in pipeline.latest()
        for name, checksum in row.files.items()
        if not name.endswith("report.html")
    }


def picks_of(pipeline: Pipeline) -> list[tuple]:
    """Return the picked documents with their keys: stamps of objects differ from those of local files."""
    store = Workspace(pipeline.folder / "dsir.yaml", pipeline.home).store
    [row] = [row for row in pipeline.latest() if row.asset == "selections"]
    name = store.picks(row.partition, row.fingerprint)
    with store.open_table(name, Origin(f"selections[{row.partition}]", row.fingerprint, {})) as file:
        picks = file.read(columns=["shard", "row", "rank", "key"])
    return list(zip(*picks.to_pydict().values(), strict=True))


if __name__ == "__main__":
    sys.exit(main())

"""A reader that takes its time, so that a run lasts long enough to be killed."""

import time

import pyarrow as pa
import pyarrow.json


def slow_jsonl(uri: str):
    """Read JSON Lines, half a second a file."""
    time.sleep(0.5)
    yield from pa.json.read_json(uri).to_batches()


def stuck_after_some(uri: str):
    """Read JSON Lines; from the seventh file on, nothing comes for a minute."""
    if int(uri.rpartition("-")[2].removesuffix(".jsonl")) >= 6:
        time.sleep(60)
    yield from slow_jsonl(uri)

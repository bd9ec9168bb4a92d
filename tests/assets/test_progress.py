"""Every step tells what it does, and of all its work."""

import json

import pytest

from dsir_dagster.resources.progress import Progress
from tests.pipeline import sentences


@pytest.fixture
def steps(monkeypatch):
    """Collect what the steps of a run tell: by name, the shares that were reached and the parts."""
    shares, parts = {}, {}
    add = Progress.add

    def adding(self, **what):
        if what.get("part") is not None and self.part:
            shares.setdefault(self.name, []).append(self.share)
        add(self, **what)
        if "part" in what:
            parts.setdefault(self.name, []).append(self.part)
        shares.setdefault(self.name, []).append(self.share)

    monkeypatch.setattr(Progress, "add", adding)
    return shares, parts


def test_counting_and_weighing_tell_of_all_bytes_and_documents(pipeline, steps):
    shares, _ = steps
    pipeline.write_pool()
    rows = [json.dumps({"id": str(i), "text": "some words " * 20, "n": i}) for i in range(60_000)]
    pipeline.write_bytes("pool/large.jsonl", "\n".join(rows).encode())  # several blocks
    assert pipeline.errors() == []
    for name in ("raw_counts", "weights"):
        assert shares[name] == sorted(shares[name]) and shares[name][-1] == 1.0
    assert sum(0.1 < share < 0.9 for share in shares["raw_counts"]) >= 3


def test_a_file_that_is_cut_off_leaves_the_rest_to_be_told(pipeline, steps):
    shares, _ = steps
    pipeline.write_pool()
    pipeline.write_bytes("pool/bad.jsonl.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\3bad")
    assert len(pipeline.errors()) == 1
    assert shares["raw_counts"][-1] <= 1.0


def test_selections_and_evaluations_tell_their_parts_and_match_its_rounds(pipeline, steps):
    _, parts = steps
    pipeline.write_pool()
    pipeline.write("pool/more.jsonl", sentences("medicine", 30, seed=9))
    pipeline.config["selections"] = [
        {
            "name": "matched",
            "targets": ["medicine"],
            "method": "match",
            "size": {"documents": 20},
            "collapse_duplicates": True,
        }
    ]
    assert pipeline.errors() == []
    found = parts["selections[matched]"]
    assert found[:4] == ["equal texts", "eligible documents", "temperature", "round 1"] or found[:3] == [
        "equal texts",
        "eligible documents",
        "round 1",
    ]
    assert any(part.startswith("round 2, KL 0.") and part.endswith(" nats") for part in found)
    assert found[-3:] == ["ranking", "looking up the picks", "writing records"]
    told = parts["evaluations[matched]"]
    for part in (
        "reading the targets",
        "the pool, and random picks",
        "top_k: ranking",
        "another seed: round 1",
        "n-grams of the picks",
        "report: documents to show",
    ):
        assert part in told

"""Every step tells what it does, and of all its work."""

import json

from dsir_dagster.resources.progress import Progress
from tests.pipeline import QUICK_EVALUATION


def test_each_step_tells_of_all_its_work_and_what_it_does(pipeline, monkeypatch):
    shares, parts = {}, {}
    add = Progress.add

    def adding(self, **what):
        add(self, **what)
        shares.setdefault(self.name, []).append(self.share)
        if "part" in what:
            parts.setdefault(self.name, []).append(self.part)

    monkeypatch.setattr(Progress, "add", adding)
    pipeline.write_pool()
    rows = [json.dumps({"id": str(i), "text": "some words " * 100, "n": i}) for i in range(15_000)]
    pipeline.write_bytes("pool/large.jsonl", "\n".join(rows).encode())  # several blocks
    [selection] = pipeline.config["selections"]
    selection |= {"method": "match", "collapse_duplicates": True, "min_tokens": 0}
    pipeline.config["evaluation"] = QUICK_EVALUATION
    assert pipeline.errors() == []

    for name in ("raw_counts", "weights"):
        assert shares[name] == sorted(shares[name]) and shares[name][-1] == 1.0
    assert sum(0.1 < share < 0.9 for share in shares["raw_counts"]) >= 3

    found = parts["selections[picked]"]
    assert found[:3] == ["equal texts", "eligible documents", "round 1"]
    assert found[3].startswith("round 2, KL ") and found[3].endswith(" nats")
    assert {"features of the rounds' picks", "refining the draw"} <= set(found)
    assert found[-3:] == ["ranking", "looking up the picks", "writing records"]
    without = {"equal texts", "looking up the picks"}  # a total
    assert shares["selections[picked]"].count(1.0) >= len(set(found) - without)  # every other to its end
    evaluated = parts["evaluations[picked]"]
    for part in (
        "reading the targets",
        "the pool, and random picks",
        "top_k: ranking",
        "another seed: round 1",
        "n-grams of the picks",
        "report: documents to show",
    ):
        assert part in evaluated

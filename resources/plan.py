"""What every output should be made of, and whether it is.

What belongs here: the inputs of each output, its fingerprint, the verdict fresh / stale / missing with
the reason. Pure functions of the configuration, the files found and the lineage; nothing is read or
written. What does not: carrying it out (``assets/``, ``dagster_project/runs.py``).

A fingerprint is the hash of an output's *inputs*: the fingerprints of the outputs it reads, the stamp
of the file, the part of the configuration that shapes it, and the version of the code. Two outputs with
the same fingerprint are the same; nothing else decides what is recomputed. Paths and run ids take no
part, so a pool that moves to another folder stays fresh.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property

from dsir.features import KERNEL_VERSION
from dsir_dagster.resources.graph import Graph, Inputs, Partitions, graph
from dsir_dagster.resources.lineage import Lineage, output_name
from dsir_dagster.resources.settings import RawSource, Reader, Settings, Target
from dsir_dagster.resources.store import Origin


@dataclass(frozen=True)
class ShardFile:
    """A shard's file as it was found.

    Attributes
    ----------
    shard : str
        Partition key.
    source : str
        Name of the entry under ``raw:``.
    uri : str
    size : int
        Bytes.
    modified : float
        Seconds since the epoch.
    stamp : str
        SHA-256 of the bytes.
    """

    shard: str
    source: str
    uri: str
    size: int
    modified: float
    stamp: str


@dataclass(frozen=True)
class Output:
    """One output: an asset's partition, what it is to be made of, and what is there.

    Attributes
    ----------
    asset, partition : str
        ``partition`` is '' for an asset without partitions.
    inputs : dict of str to str
        What it has to be made of.
    features : dict
        Feature configuration, to name differences by.
    found : Lineage or None
        The newest row of lineage for this output.
    decisive : dict of str to str, optional
        What the fingerprint is the hash of, where that is less than the inputs: an input may change in a part that
        the output does not depend on.
    """

    asset: str
    partition: str
    inputs: Mapping[str, str]
    features: Mapping[str, object] = field(repr=False)
    found: Lineage | None = field(default=None, repr=False)
    decisive: Mapping[str, str] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """``asset[partition]``, or the asset's name where there are no partitions."""
        return output_name(self.asset, self.partition)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits: the hash of asset, partition and inputs."""
        inputs = self.inputs if self.decisive is None else self.decisive
        return fingerprint({"asset": self.asset, "partition": self.partition, **inputs})

    @property
    def origin(self) -> Origin:
        """What the output's files carry in their metadata."""
        return Origin(self.name, self.fingerprint, dict(self.features))

    @property
    def state(self) -> str:
        """``fresh``, ``stale`` or ``missing``."""
        if self.found is None or self.found.absent:
            return "missing"
        return "fresh" if self.found.fingerprint == self.fingerprint else "stale"

    @property
    def changes(self) -> dict[str, list[str]]:
        """Names of the inputs that are ``changed``, ``new`` or ``gone`` since it was made; sorted."""
        then = self.found.inputs
        return {
            "changed": sorted(key for key in self.inputs if key in then and then[key] != self.inputs[key]),
            "new": sorted(self.inputs.keys() - then.keys()),
            "gone": sorted(then.keys() - self.inputs.keys()),
        }

    @property
    def why(self) -> str:
        """The reason of the state, for people; '' where it is fresh."""
        if self.found is None:
            return "never materialized"
        if self.found.absent:
            aside = "damaged, or made from a damaged file, and set aside by `dsir verify`"
            return f"{aside if self.found.aside else 'its file is gone'}: {self.found.absent[0]}"
        if self.state == "fresh":
            return ""
        then = self.found.inputs
        reasons = []
        for verb, keys in self.changes.items():
            if keys:
                shown = [
                    _difference(key, then, self.inputs) if verb == "changed" else key for key in keys[:3]
                ]
                more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
                reasons.append(f"{verb}: {', '.join(shown)}{more}")
        return "; ".join(reasons)


def fingerprint(content: Mapping[str, str]) -> str:
    """Hash a mapping to sixteen hexadecimal digits, whatever the order of its keys."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:16]


class Plan:
    """All outputs of one configuration over the files that were found.

    Parameters
    ----------
    settings : Settings
    shards : list of ShardFile
    target_stamps : mapping of str to str
        Stamp of each target's files, of the holdout's too.
    latest : mapping of (asset, partition) to dict
        :meth:`dsir_dagster.resources.workspace.Workspace.latest`, with the list ``absent`` of each row's files that are
        not there.
    """

    def __init__(
        self,
        settings: Settings,
        shards: list[ShardFile],
        target_stamps: Mapping[str, str],
        latest: Mapping[tuple[str, str], Lineage],
    ) -> None:
        self.settings = settings
        self.shards = {shard.shard: shard for shard in shards}
        self.target_stamps = target_stamps
        self.graph: Graph = graph()
        self._latest = latest
        self.features = asdict(settings.features.spec())
        self._outputs: dict[tuple[str, str], Output] = {}
        self._estimators: dict[str, str] = {}
        self._readings: dict[tuple[str, str], dict[str, str]] = {}

    @cached_property
    def cause(self) -> str:
        """Fingerprint of all that outputs follow from: the files, the configuration, the code."""
        files = {shard: file.stamp for shard, file in self.shards.items()}
        targets = {f"target {name}": stamp for name, stamp in self.target_stamps.items()}
        return fingerprint(
            {**files, **targets, **self.graph.versions, "configuration": self.settings.model_dump_json()}
        )

    # --- outputs ---------------------------------------------------------------------------------------------

    def output(self, asset: str, partition: str = "") -> Output:
        """Return an output of the configuration, put together once; KeyError where a shard has no file."""
        key = asset, partition
        if key not in self._outputs:
            self._outputs[key] = self.made_of(asset, partition, self.graph[asset].inputs(self, partition))
        return self._outputs[key]

    def made_of(self, asset: str, partition: str, inputs: Inputs) -> Output:
        """Return an output that is to be made of these inputs, and of its asset's code."""
        version = self.graph[asset].version
        code = {"code": version} if version else {}
        found = self.found(asset, partition)
        return Output(asset, partition, {**inputs.inputs, **code}, self.features, found, inputs.decisive)

    def found(self, asset: str, partition: str) -> Lineage | None:
        """Return what there is of an output."""
        return self._latest.get((asset, partition))

    def outputs_of(self, asset: str) -> list[Output]:
        """Return the outputs of one asset."""
        return [self.output(asset, key) for key in self.graph[asset].partitions.keys(self)]

    def outputs(self) -> list[Output]:
        """Return every output of the configuration, upstream first."""
        return [output for asset in self.graph for output in self.outputs_of(asset.name)]

    def fresh(self, asset: str) -> list[str]:
        """Return the partitions of an asset that are fresh, sorted."""
        return sorted(each.partition for each in self.outputs_of(asset) if each.state == "fresh")

    # --- what takes part -------------------------------------------------------------------------------------

    def raw_counts(self, shard: str) -> Output:
        """Return the counts of one shard; KeyError where no file has this key."""
        return self.output("raw_counts", shard)

    def target_counts(self, target: str) -> Output:
        """Return the counts of one target."""
        return self.output("target_counts", target)

    @cached_property
    def counted(self) -> list[str]:
        """Shards whose counts are fresh, sorted: the pool that the estimator is fitted on."""
        return self.fresh("raw_counts")

    @cached_property
    def uncounted(self) -> list[str]:
        """Shards that are not counted yet, or not any more, sorted."""
        return sorted(self.shards.keys() - set(self.counted))

    @property
    def without(self) -> str:
        """Say which shards are not counted and so take no part; '' if all are."""
        if not self.uncounted:
            return ""
        more = f" and {len(self.uncounted) - 10} more" if len(self.uncounted) > 10 else ""
        return (
            f"{len(self.uncounted)} of {len(self.shards)} shards are not counted and take no part: "
            f"{', '.join(self.uncounted[:10])}{more}"
        )

    @cached_property
    def counted_targets(self) -> list[str]:
        """Targets whose counts are fresh, sorted."""
        return self.fresh("target_counts")

    @cached_property
    def raw_distribution(self) -> Output | None:
        """The pinned distribution of the pool; None where the configuration pins none."""
        return next(iter(self.outputs_of("raw_distribution")), None)

    @property
    def importance_estimator(self) -> Output:
        """The estimator over the pool, or its pinned distribution, and the targets that are counted."""
        return self.output("importance_estimator")

    @cached_property
    def fitted_pool(self) -> dict[str, str]:
        """What the estimator is made of beside the targets."""
        pinned = self.raw_distribution
        outputs = [pinned] if pinned else [self.raw_counts(shard) for shard in self.counted]
        configuration = self.settings.estimator.model_dump(exclude={"fit": {"max_drift"}})
        return {
            **{output.name: output.fingerprint for output in outputs},
            "configuration": canonical(configuration),
        }

    def weights(self, shard: str) -> Output:
        """Return the weights of one shard."""
        return self.output("weights", shard)

    def log_weights(self, shard: str, target: str) -> Origin:
        """Return the origin of a shard's log weights under one target, whose fingerprint ignores the other targets."""
        if target not in self._estimators:
            counts = self.target_counts(target)
            self._estimators[target] = fingerprint({**self.fitted_pool, counts.name: counts.fingerprint})
        made_of = {
            "counts": self.raw_counts(shard).fingerprint,
            "estimator": self._estimators[target],
            "code": self.code("importance_estimator", "weights"),
        }
        return Origin(output_name("weights", shard), fingerprint(made_of), dict(self.features))

    def code(self, *assets: str) -> str:
        """Return the versions of the code of some assets, as an input."""
        return ", ".join(self.graph[asset].version for asset in assets)

    def reading(self, reader: RawSource | Target) -> dict[str, str]:
        """Return what the counts of a source's or target's files are made of beside the files."""
        key = type(reader).__name__, reader.name
        if key not in self._readings:
            self._readings[key] = self._reading(reader)
        return self._readings[key]

    def _reading(self, reader: Reader) -> dict[str, str]:
        fields = reader.model_dump(include={"text", "id", "reader"})
        if isinstance(reader, RawSource) and reader.chunk_words is not None:
            fields["chunk_words"] = reader.chunk_words
        return {
            "reader": canonical(fields),
            "features": canonical(self.features),
            "kernel": KERNEL_VERSION,
        }


def takes_part(plan: Plan, output: Output) -> bool:
    """Whether an output can be made: of a shard whose counts are not fresh, nothing that follows from them can."""
    asset = plan.graph[output.asset]
    follows = asset.partitions is Partitions.SHARDS and bool(asset.after)
    return not follows or output.partition in plan.counted


def canonical(value: object) -> str:
    """Write a value of the configuration as JSON that does not depend on the order of its keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _difference(key: str, then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Name a changed input; of a piece of configuration, name the keys and their values."""
    try:
        old, new = json.loads(then[key]), json.loads(now[key])
    except ValueError:
        return key
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return key
    parts = [
        f"{k} {_set(old.get(k))!r} -> {_set(new.get(k))!r}"
        for k in sorted({*old, *new})
        if old.get(k) != new.get(k)
    ]
    return f"{key} ({', '.join(parts)})"


def _set(value: object) -> object:
    """Return a value of the configuration without what is not set in it."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value

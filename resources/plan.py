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

from dsir import downstream, near_duplicates, proxy
from dsir.features import KERNEL_VERSION
from dsir_dagster.resources.lineage import Lineage, output_name
from dsir_dagster.resources.settings import RawSource, Reader, Selection, Settings
from dsir_dagster.resources.store import Stamp

#: Raised when an asset's outputs change for the same inputs.
CODE_VERSIONS = {
    "raw_counts": "7",
    "target_counts": "3",
    "importance_estimator": "2",
    "weights": "5",
    "selections": "4",
    "evaluations": "3",
}
ASSETS = tuple(CODE_VERSIONS)


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
    def stamp(self) -> Stamp:
        """What the output's files carry in their metadata."""
        return Stamp(self.name, self.fingerprint, dict(self.features))

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
    return hashlib.sha256(_canonical(content).encode()).hexdigest()[:16]


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
        self._target_stamps = target_stamps
        self._latest = latest
        self.features = asdict(settings.features.spec())
        self._estimators: dict[str, str] = {}

    @cached_property
    def cause(self) -> str:
        """Fingerprint of all that outputs follow from: the files, the configuration, the code."""
        files = {shard: file.stamp for shard, file in self.shards.items()}
        targets = {f"target {name}": stamp for name, stamp in self._target_stamps.items()}
        return fingerprint(
            {**files, **targets, **CODE_VERSIONS, "configuration": self.settings.model_dump_json()}
        )

    def raw_counts(self, shard: str) -> Output:
        """Return the counts of one shard; KeyError where no file has this key."""
        return self._raw_counts[shard]

    @cached_property
    def _raw_counts(self) -> dict[str, Output]:
        """The counts of every shard: all else is made of them, so each is put together, and hashed, once."""
        reading = {source.name: self._reading(source) for source in self.settings.raw}
        outputs = {}
        for shard, file in self.shards.items():
            source = self.settings.source(file.source)
            of = {"file": file.stamp, **reading[source.name], "source": source.source or source.name}
            outputs[shard] = self._output("raw_counts", shard, of)
        return outputs

    def target_counts(self, target: str) -> Output:
        """Return the counts of one target."""
        reader = self.settings.target(target)
        return self._output(
            "target_counts", target, {"file": self._target_stamps[target], **self._reading(reader)}
        )

    @cached_property
    def counted(self) -> list[str]:
        """Shards whose counts are fresh, sorted: the pool that the estimator is fitted on."""
        return [shard for shard in sorted(self.shards) if self.raw_counts(shard).state == "fresh"]

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
        names = sorted(target.name for target in self.settings.targets)
        return [name for name in names if self.target_counts(name).state == "fresh"]

    @cached_property
    def raw_distribution(self) -> Output | None:
        """Return the pinned distribution of the pool; None where the configuration pins none.

        It is no asset of the graph: ``importance_estimator`` fits it once. From then on its inputs are those
        of then, whatever became of the pool or the code.
        """
        name = self.settings.estimator.pinned
        if name is None:
            return None
        found = self._latest.get(("raw_distribution", name))
        if found is not None:
            inputs = dict(found.inputs)
        else:
            inputs = {output.name: output.fingerprint for output in map(self.raw_counts, self.counted)}
            inputs["features"] = _canonical(self.features)
        return Output("raw_distribution", name, inputs, self.features, found)

    @cached_property
    def importance_estimator(self) -> Output:
        """Return the estimator over the pool, or its pinned distribution, and the targets that are counted."""
        outputs = [self.target_counts(target) for target in self.counted_targets]
        targets = {output.name: output.fingerprint for output in outputs}
        return self._output("importance_estimator", "", {**self._fitted_pool, **targets})

    @cached_property
    def _fitted_pool(self) -> dict[str, str]:
        """What the estimator is made of beside the targets."""
        pinned = self.raw_distribution
        outputs = [pinned] if pinned else [self.raw_counts(shard) for shard in self.counted]
        configuration = self.settings.estimator.model_dump(exclude={"fit": {"max_drift"}})
        return {
            **{output.name: output.fingerprint for output in outputs},
            "configuration": _canonical(configuration),
        }

    def weights(self, shard: str) -> Output:
        """Return the weights of one shard."""
        outputs = [self.raw_counts(shard), self.importance_estimator]
        return self._output("weights", shard, {output.name: output.fingerprint for output in outputs})

    def log_weights(self, shard: str, target: str) -> Stamp:
        """Return the stamp of a shard's log weights under one target, in whose fingerprint others take no part."""
        if target not in self._estimators:
            counts = self.target_counts(target)
            self._estimators[target] = fingerprint({**self._fitted_pool, counts.name: counts.fingerprint})
        made_of = {
            "counts": self.raw_counts(shard).fingerprint,
            "estimator": self._estimators[target],
            "code": f"{CODE_VERSIONS['importance_estimator']}, {CODE_VERSIONS['weights']}",
        }
        return Stamp(output_name("weights", shard), fingerprint(made_of), dict(self.features))

    def selections(self, selection: Selection) -> Output:
        """Return a selection from the shards that are counted; other targets than its own do not make it stale."""
        outputs = [self.weights(shard) for shard in self.counted]
        rest = {"configuration": _canonical(selection.model_dump(exclude={"name"}))}
        if selection.near_duplicates:
            rest["near_duplicates"] = near_duplicates.version()
        decisive = {
            f"{output.name} {target}": self.log_weights(output.partition, target).fingerprint
            for output in outputs
            for target in selection.targets
        }
        return self._output(
            "selections",
            selection.name,
            {**{output.name: output.fingerprint for output in outputs}, **rest},
            {**decisive, **rest, "code": ", ".join(CODE_VERSIONS[each] for each in ASSETS[2:5])},
        )

    def evaluations(self, selection: Output) -> Output:
        """Return the evaluation of one version of a selection."""
        settings = self.settings.evaluation
        return self._output(
            "evaluations",
            selection.partition,
            {
                selection.name: selection.fingerprint,
                "configuration": _canonical(settings.model_dump()),
                **({"proxy": str(proxy.VERSION)} if settings.proxy else {}),
                **({"downstream": str(downstream.VERSION)} if settings.downstream else {}),
            },
        )

    def outputs(self) -> list[Output]:
        """Return every output of the configuration, upstream first."""
        selections = [self.selections(selection) for selection in self.settings.selections]
        return [
            *(self.raw_counts(shard) for shard in sorted(self.shards)),
            *(self.target_counts(target.name) for target in self.settings.targets),
            *([self.raw_distribution] if self.raw_distribution else []),
            self.importance_estimator,
            *(self.weights(shard) for shard in sorted(self.shards)),
            *selections,
            *(self.evaluations(selection) for selection in selections),
        ]

    def _reading(self, reader: Reader) -> dict[str, str]:
        fields = reader.model_dump(include={"text", "id", "reader"})
        if isinstance(reader, RawSource) and reader.chunk_words is not None:
            fields["chunk_words"] = reader.chunk_words
        return {
            "reader": _canonical(fields),
            "features": _canonical(self.features),
            "kernel": KERNEL_VERSION,
        }

    def _output(
        self, asset: str, partition: str, inputs: dict[str, str], decisive: dict[str, str] | None = None
    ) -> Output:
        inputs = {**inputs, "code": CODE_VERSIONS[asset]}
        return Output(asset, partition, inputs, self.features, self._latest.get((asset, partition)), decisive)


def _canonical(value: object) -> str:
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

"""What every output should be made of, and whether it is.

What belongs here: an output's inputs, its fingerprint, and the verdict fresh / stale / missing with the reason. Pure
functions of the configuration, the files found and the lineage; nothing is read or written. What does not: carrying it
out (``assets/``, ``dagster_project/runs.py``).

A fingerprint is the hash of an output's *inputs*: the fingerprints of the outputs it reads, the stamp of the file, the
part of the configuration that shapes it, and the version of the code. Outputs with the same fingerprint are the same;
nothing else decides what is recomputed. Paths and run ids are not inputs, so a pool that moves to another folder stays
fresh.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

from dsir.features import KERNEL_VERSION
from dsir_dagster.resources.graph import Graph, Inputs, Partitions, graph
from dsir_dagster.resources.lineage import InputList, Lineage, canonical, divided, output_name, together
from dsir_dagster.resources.settings import RawSource, Reader, Settings, Target
from dsir_dagster.resources.store import Origin

#: Input of a shard's counts that have the words counted by which documents are filtered.
WORDS_COUNTED = "words for the quality filter"

#: Begins the stamp of a file that cannot be read.
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class ShardFile:
    """A shard's file as found, or its files, if it is a group of them (``resources/groups.py``).

    Attributes
    ----------
    shard : str
        Partition key. A group has that of its first file.
    source : str
        Name of the entry under ``raw:``.
    uri : str
        Of a group: of its first file.
    size : int
        Bytes.
    modified : float
        Seconds since the epoch. Of a group: the latest.
    stamp : str
        SHA-256 of the bytes. Of a group: of its files' names and stamps.
    files : tuple of ShardFile
        A group's files, in order, each with the key that it has as a shard of its own; else empty.
    """

    shard: str
    source: str
    uri: str
    size: int
    modified: float
    stamp: str
    files: tuple[ShardFile, ...] = field(default=(), repr=False)

    @property
    def parts(self) -> tuple[ShardFile, ...]:
        """The files that are read for the shard, in order."""
        return self.files or (self,)

    @property
    def readable(self) -> bool:
        """Whether all of it could be read when it was stamped."""
        return not self.stamp.startswith(UNREADABLE)

    @property
    def row(self) -> dict[str, str | int | float]:
        """Its row in the table ``shards``."""
        return {name: value for name, value in vars(self).items() if name != "files"}


@dataclass(frozen=True, slots=True)
class Output:
    """One output: an asset's partition, what it should be made of, and what exists.

    There may be several for each of 100,000 shards, so it holds little: what it should be made of, and what it was made
    of, is looked up when asked for.

    Attributes
    ----------
    asset, partition : str
        ``partition`` is '' for an asset without partitions.
    fingerprint : str
        Sixteen hexadecimal digits: the hash of asset, partition and inputs.
    plan : Plan
        That it belongs to.
    other : mapping of str to str, optional
        What it should be made of, if that is not what the plan says.
    """

    asset: str
    partition: str
    fingerprint: str
    plan: Plan = field(repr=False, compare=False)
    other: Mapping[str, str] | None = field(default=None, repr=False, compare=False)

    @property
    def inputs(self) -> Mapping[str, str]:
        """What it should be made of."""
        return self.plan.inputs(self.asset, self.partition).inputs if self.other is None else self.other

    @property
    def features(self) -> Mapping[str, object]:
        """Feature configuration, kept with its files to name differences."""
        return self.plan.features

    @property
    def found(self) -> Lineage | None:
        """Its newest row of lineage."""
        return self.plan.found(self.asset, self.partition)

    @property
    def name(self) -> str:
        """``asset[partition]``, or the asset's name if it has no partitions."""
        return output_name(self.asset, self.partition)

    @property
    def made(self) -> Lineage:
        """The newest row of lineage of an output that was materialized.

        Raises
        ------
        LookupError
            It was not.
        """
        found = self.found
        if found is None:
            raise LookupError(f"{self.name} was never materialized; do that first")
        return found

    @property
    def origin(self) -> Origin:
        """What its files carry in their metadata."""
        return Origin(self.name, self.fingerprint, dict(self.features))

    @property
    def usable(self) -> bool:
        """Whether others can be made of it: its files are there, and were made of what its fingerprint hashes."""
        found = self.found
        return found is not None and not found.absent and found.fingerprint == self.fingerprint

    @property
    def _needs(self) -> set[str]:
        needs = self.plan.graph[self.asset].needs
        return set(needs(self.plan)) if needs else set()

    @property
    def state(self) -> str:
        """``fresh``, ``stale`` or ``missing``."""
        found = self.found
        if found is None or found.absent:
            return "missing"
        needs = self._needs
        return "fresh" if self.usable and (not needs or needs <= found.inputs.keys()) else "stale"

    @property
    def changes(self) -> dict[str, list[str]]:
        """Names of the inputs that are ``changed``, ``new`` or ``gone`` since it was made, sorted."""
        then, now = dict(self.made.inputs), dict(self.inputs)
        if not self.usable:  # what it needs beside the fingerprint is not why it is stale
            now = {key: value for key, value in now.items() if key in then or key not in self._needs}
        return {
            "changed": sorted(key for key in now if key in then and then[key] != now[key]),
            "new": sorted(now.keys() - then.keys()),
            "gone": sorted(then.keys() - now.keys()),
        }

    @property
    def why(self) -> str:
        """The reason for the state, in words; '' if fresh."""
        found = self.found
        if found is None:
            return "never materialized"
        if found.absent:
            aside = "damaged, or made from a damaged file, and set aside by `dsir verify`"
            return f"{aside if found.aside else 'its file is gone'}: {found.absent[0]}"
        if self.state == "fresh":
            return ""
        then, now = found.inputs, self.inputs
        reasons = []
        for verb, keys in self.changes.items():
            if keys:
                shown = [_difference(key, then, now) if verb == "changed" else key for key in keys[:3]]
                more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
                reasons.append(f"{verb}: {', '.join(shown)}{more}")
        return "; ".join(reasons)


def fingerprint(content: Mapping[str, str]) -> str:
    """Hash a mapping to sixteen hexadecimal digits, independent of the order of its keys."""
    own, shared = divided(content)
    first, last = (next(ends, "") for ends in (iter(shared), reversed(shared.inputs))) if shared else ("", "")
    if shared is None or any(first < name < last for name in own):
        text = canonical(dict(content))
    else:  # the list in one piece, since it may be long
        parts = [{name: own[name] for name in own if (name < first) is before} for before in (True, False)]
        before, after = (canonical(part)[1:-1] for part in parts)
        text = "{" + ",".join(filter(None, (before, shared.text, after))) + "}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Plan:
    """All outputs of one configuration over the files found.

    Parameters
    ----------
    settings : Settings
    shards : list of ShardFile
    target_stamps : mapping of str to str
        Stamp of each target's files, including its holdout.
    latest : mapping of (asset, partition) to Lineage
        From :meth:`dsir_dagster.resources.workspace.Workspace.latest`.
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
        self._fingerprints: dict[str, dict[str, str]] = {}
        self._lists: dict[str, InputList] = {}
        self._list_of_log_weights: tuple[Sequence[str], InputList] | None = None
        self._estimators: dict[str, str] = {}
        self._readings: dict[tuple[str, str], dict[str, str]] = {}

    @cached_property
    def cause(self) -> str:
        """Fingerprint of everything that determines the outputs: files, configuration, code."""
        files = {shard: file.stamp for shard, file in self.shards.items()}
        targets = {f"target {name}": stamp for name, stamp in self.target_stamps.items()}
        return fingerprint(
            {**files, **targets, **self.graph.versions, "configuration": self.settings.model_dump_json()}
        )

    @property
    def unreadable_targets(self) -> dict[str, str]:
        """Why the files of targets cannot be read, by the target's name."""
        said = f"{UNREADABLE}: "
        return {
            name: stamp.removeprefix(said)
            for name, stamp in self.target_stamps.items()
            if stamp.startswith(said)
        }

    # --- outputs ---------------------------------------------------------------------------------------------

    def output(self, asset: str, partition: str = "") -> Output:
        """Return an output of the configuration; KeyError if a shard has no file."""
        return Output(asset, partition, self.fingerprint(asset, partition), self)

    def fingerprint(self, asset: str, partition: str) -> str:
        """Return an output's fingerprint."""
        known = self._fingerprints.setdefault(asset, {})
        if partition not in known:
            known[partition] = self.made_of(asset, partition, self.inputs(asset, partition)).fingerprint
        return known[partition]

    def inputs(self, asset: str, partition: str) -> Inputs:
        """Return what an output of the configuration should be made of, its asset's code included."""
        return self._with_code(asset, self.graph[asset].inputs(self, partition))

    def made_of(self, asset: str, partition: str, inputs: Inputs) -> Output:
        """Return an output to be made of these inputs and its asset's code."""
        inputs = self._with_code(asset, inputs)
        decisive = inputs.inputs if inputs.decisive is None else inputs.decisive
        own, shared = divided(decisive)
        made_of = together({"asset": asset, "partition": partition, **own}, shared)
        return Output(asset, partition, fingerprint(made_of), self, inputs.inputs)

    def _with_code(self, asset: str, inputs: Inputs) -> Inputs:
        version = self.graph[asset].version
        if not version:
            return inputs
        own, shared = divided(inputs.inputs)
        return Inputs(together({**own, "code": version}, shared), inputs.decisive)

    def listed(self, asset: str) -> InputList:
        """Return the outputs of an asset for every counted shard, as inputs that other outputs share."""
        if asset not in self._lists:
            self._lists[asset] = InputList(
                lambda: {output_name(asset, key): self.fingerprint(asset, key) for key in self.counted}
            )
        return self._lists[asset]

    def found(self, asset: str, partition: str) -> Lineage | None:
        """Return the newest row of lineage of an output."""
        return self._latest.get((asset, partition))

    def outputs_of(self, asset: str) -> list[Output]:
        """Return an asset's outputs."""
        return [self.output(asset, key) for key in self.graph[asset].partitions.keys(self)]

    def outputs(self) -> list[Output]:
        """Return every output of the configuration, upstream first."""
        return [output for asset in self.graph for output in self.outputs_of(asset.name)]

    def fresh(self, asset: str) -> list[str]:
        """Return an asset's fresh partitions, sorted."""
        return sorted(each.partition for each in self.outputs_of(asset) if each.state == "fresh")

    # --- what outputs are made of ----------------------------------------------------------------------------

    def raw_counts(self, shard: str) -> Output:
        """Return the counts of one shard; KeyError if no file has this key."""
        return self.output("raw_counts", shard)

    def target_counts(self, target: str) -> Output:
        """Return the counts of one target."""
        return self.output("target_counts", target)

    @cached_property
    def counted(self) -> list[str]:
        """Shards whose counts are usable, sorted: the pool that the estimator is fitted on."""
        return sorted(each.partition for each in self.outputs_of("raw_counts") if each.usable)

    @cached_property
    def uncounted(self) -> list[str]:
        """Shards not counted yet, or no longer, sorted."""
        return sorted(self.shards.keys() - set(self.counted))

    @property
    def without(self) -> str:
        """Say which shards are left out because they are not counted; '' if none."""
        if not self.uncounted:
            return ""
        more = f" and {len(self.uncounted) - 10} more" if len(self.uncounted) > 10 else ""
        are = "is" if len(self.uncounted) == 1 else "are"
        return (
            f"{len(self.uncounted)} of {len(self.shards)} shards {are} not counted and {are} left out: "
            f"{', '.join(self.uncounted[:10])}{more}"
        )

    @cached_property
    def counted_targets(self) -> list[str]:
        """Targets whose counts are fresh, sorted."""
        return self.fresh("target_counts")

    @cached_property
    def raw_distribution(self) -> Output | None:
        """The pinned distribution of the pool; None if the configuration pins none."""
        return next(iter(self.outputs_of("raw_distribution")), None)

    @property
    def importance_estimator(self) -> Output:
        """The estimator over the pool, or its pinned distribution, and the counted targets."""
        return self.output("importance_estimator")

    @cached_property
    def fitted_pool(self) -> Mapping[str, str]:
        """What the estimator is made of besides the targets."""
        pinned = self.raw_distribution
        configuration = self.settings.estimator.model_dump(exclude={"fit": {"max_drift"}})
        own = {"configuration": canonical(configuration)}
        if pinned:
            return {pinned.name: pinned.fingerprint, **own}
        return together(own, self.listed("raw_counts"))

    def weights(self, shard: str) -> Output:
        """Return the weights of one shard."""
        return self.output("weights", shard)

    def log_weights(self, shard: str, target: str) -> Origin:
        """Return the origin of a shard's log weights under one target, whose fingerprint ignores the other targets."""
        of_target = self._fingerprint_of_log_weights(shard, target)
        return Origin(output_name("weights", shard), of_target, dict(self.features))

    def _fingerprint_of_log_weights(self, shard: str, target: str) -> str:
        if target not in self._estimators:
            counts = self.target_counts(target)
            own, shared = divided(self.fitted_pool)
            self._estimators[target] = fingerprint(together({**own, counts.name: counts.fingerprint}, shared))
        made_of = {
            "counts": self.fingerprint("raw_counts", shard),
            "estimator": self._estimators[target],
            "code": self._code_of_log_weights,
        }
        return fingerprint(made_of)

    @cached_property
    def _code_of_log_weights(self) -> str:
        return self.code("importance_estimator", "weights")

    def listed_log_weights(self, targets: Sequence[str]) -> InputList:
        """Return the log weights of every counted shard under some targets, as inputs that other outputs share."""
        # Only the last ones are kept: every list is as long as the pool has shards.
        if self._list_of_log_weights is None or self._list_of_log_weights[0] != targets:
            made_of = InputList(
                lambda: {
                    f"{output_name('weights', shard)} {target}": self._fingerprint_of_log_weights(
                        shard, target
                    )
                    for shard in self.counted
                    for target in targets
                }
            )
            self._list_of_log_weights = targets, made_of
        return self._list_of_log_weights[1]

    def code(self, *assets: str) -> str:
        """Return the versions of some assets' code, as an input."""
        return ", ".join(self.graph[asset].version for asset in assets)

    def reading(self, reader: RawSource | Target) -> dict[str, str]:
        """Return what the counts of a source or target are made of besides its files."""
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
    """Whether an output can be made: nothing downstream of a shard's counts can until these are fresh."""
    return not follows_counts(plan, output) or output.partition in plan.counted


def follows_counts(plan: Plan, output: Output) -> bool:
    """Whether an output is made of a shard's counts."""
    asset = plan.graph[output.asset]
    return asset.partitions is Partitions.SHARDS and bool(asset.after)


def _difference(key: str, then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Name a changed input; for a part of the configuration, its changed keys and their values."""
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
    """Return a configuration value without its unset keys."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value

"""The numbers of an evaluation that a verdict is drawn from.

What belongs here: differences of two picks, and which numbers a verdict looks at. What does not: measuring them
(``assets/measuring/``), what they mean in words (``verdict.py``).

A difference of two picks is real if its 95% interval excludes 0.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

from dsir_dagster.resources.borders import several
from dsir_dagster.resources.settings import Selection
from dsir_dagster.resources.settings.evaluation import RANDOM, TOP_K, size_name
from dsir_dagster.resources.table import written

#: Differences below this many nats, up or down, are called none: they change sign with the seed.
NONE = 0.005


@dataclass(frozen=True)
class Difference:
    """How much closer to the target the selection is than another pick or the pool: nats, with 95% interval.

    Attributes
    ----------
    value, low, high : float
    """

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 if the selection is better, -1 if it is worse, 0 if this cannot be told."""
        return int(self.low > 0) - int(self.high < 0)

    @property
    def nats(self) -> str:
        """The size of the difference with its interval, in words."""
        value, low, high = self.value, self.low, self.high
        if self.sign < 0:
            value, low, high = -value, -high, -low
        return f"{written(value, 'nats')} nats (95% interval {written((low, high), 'range')})"

    @property
    def beyond_noise(self) -> int:
        """`sign`, but 0 for a difference that is too small to mean anything."""
        return 0 if abs(self.value) < NONE else self.sign


@dataclass(frozen=True)
class OfTarget:
    """What was measured for a target, or for the mean of all of them.

    Attributes
    ----------
    name : str
        '' for the mean.
    held_out : bool
        Whether it has a holdout, on which it was measured.
    over_pool : Difference
        Its KL reduction as in the paper: how much closer to the target than the pool it is.
    of_random : float
        That of random picks, in nats.
    effective_sample_size : float
        Of the eligible documents' weights.
    over_random, over_top_k : Difference, optional
        None where there was no such pick.
    plain_over_random, plain_over_top_k : Difference, optional
        The same on n-grams that are not hashed.
    """

    name: str
    held_out: bool
    over_pool: Difference
    of_random: float
    effective_sample_size: float
    over_random: Difference | None = None
    over_top_k: Difference | None = None
    plain_over_random: Difference | None = None
    plain_over_top_k: Difference | None = None


@dataclass(frozen=True)
class OfSize:
    """What the selection's method picks at another size, or at its own; means over the targets.

    Attributes
    ----------
    factor : float
        Of the selection's size.
    documents : int
    over_random : Difference
        KL reduction over random picks of the selection's size.
    lead : Difference
        The selection's over this; 0 for itself.
    bits_per_byte : float
        Of held-out text; NaN where that was not asked for.
    """

    factor: float
    documents: int
    over_random: Difference
    lead: Difference = Difference(0.0, 0.0, 0.0)
    bits_per_byte: float = nan

    @property
    def name(self) -> str:
        """In words."""
        return f"{several(self.documents, 'document')} ({self.factor:g} times the size)"


@dataclass(frozen=True)
class Numbers:
    """What a verdict is drawn from.

    Attributes
    ----------
    method : str
    plain_weights : bool
        Whether documents are ranked by their log weights with or without noise, and nothing else.
    documents, eligible : int
        Picked in an epoch; to pick from.
    mean : OfTarget
        The mean of the targets.
    targets : sequence of OfTarget
    same_as_top_k : float, optional
        Share of the documents that top-k picks too.
    of_random_tokens, of_top_k_tokens : float
        Tokens of an epoch, as a share of those of random picks and of top-k's.
    duplicates : int
        Picked documents whose text another picked one has.
    near_copies : float
        Share of a sample of the picked documents that nearly repeat another one of it.
    near_duplicates : float, optional
        The similarity from which on near-copies were passed over.
    in_target, in_holdout, pool_in_target, pool_in_holdout : int
        Documents of the selection and of the pool whose text is in a target or in its holdout.
    not_measured : sequence of str
        What was asked for and could not be measured, and why.
    tokens : int
        Picked in an epoch.
    median_tokens, median_eligible : float
        Tokens of a picked document, and of one of the pool that is long enough to be picked.
    sizes : sequence of OfSize
        Ascending, the selection's own among them; empty without `evaluation.budgets`.
    bits_of_chance : float
        Standard deviation of random picks' bits per byte; 0 where there are none.
    """

    method: str
    plain_weights: bool
    documents: int
    eligible: int
    mean: OfTarget
    targets: Sequence[OfTarget]
    same_as_top_k: float | None = None
    of_random_tokens: float = 1.0
    of_top_k_tokens: float = 1.0
    duplicates: int = 0
    near_copies: float = 0.0
    near_duplicates: float | None = None
    in_target: int = 0
    in_holdout: int = 0
    pool_in_target: int = 0
    pool_in_holdout: int = 0
    not_measured: Sequence[str] = ()
    tokens: int = 0
    median_tokens: float = 0.0
    median_eligible: float = 0.0
    sizes: Sequence[OfSize] = ()
    bits_of_chance: float = 0.0


def numbers_of(
    selection: Selection,
    made: Mapping[str, Any],
    holdouts: Mapping[str, bool],
    get: Callable[..., float | None],
    not_measured: Sequence[str] = (),
    factors: Sequence[float] = (),
) -> Numbers:
    """Collect the numbers of a verdict.

    Parameters
    ----------
    selection : Selection
    made : mapping
        Metadata of the selection in the lineage.
    holdouts : mapping of str to bool
        By target: whether it has a holdout.
    get : callable
        From metric, pick, target, statistic to the number, None if it was not measured.
    not_measured : sequence of str
        What was asked for and could not be measured, and why.
    factors : sequence of float
        Sizes that were asked for, ascending; those without a number are left out.
    """

    def difference(metric: str, pick: str, target: str) -> Difference | None:
        value, low, high = (get(metric, pick, target, each) for each in ("value", "low", "high"))
        return None if value is None or low is None or high is None else Difference(value, low, high)

    def of_target(name: str, held_out: bool) -> OfTarget:
        return OfTarget(
            name,
            held_out,
            Difference(
                *(get("kl_reduction", "selection", name, each) or 0.0 for each in ("value", "low", "high"))
            ),
            get("kl_reduction", RANDOM, name, "value") or 0.0,
            get("effective_sample_size", "pool", name, "value") or 0.0,
            *(
                difference(metric, pick, name)
                for metric in ("ahead", "ahead_unhashed")
                for pick in (RANDOM, TOP_K)
            ),
        )

    def of_sizes() -> Iterator[OfSize]:
        for factor in factors:
            name = size_name(factor)
            if over_random := difference("over_random", name, ""):
                lead = difference("ahead", name, "") or OfSize.lead
                bits = get("bits_per_byte", name, "", "value")
                yield OfSize(
                    factor, count("documents", name), over_random, lead, nan if bits is None else bits
                )

    def count(metric: str, pick: str = "selection") -> int:
        return int(get(metric, pick, "", "value") or 0)

    def tokens_beside(pick: str) -> float:
        mine, theirs = get("tokens", "selection", "", "value"), get("tokens", pick, "", "value")
        return mine / selection.epochs / theirs if mine and theirs else 1.0

    return Numbers(
        method=selection.method,
        plain_weights=selection.keys_are_log_weights,
        documents=-(-made["documents"] // selection.epochs),
        eligible=made["eligible_documents"],
        mean=of_target("", all(holdouts.values())),
        targets=[of_target(*each) for each in holdouts.items()],
        same_as_top_k=get("agreement", TOP_K, "", "value"),
        of_random_tokens=tokens_beside(RANDOM),
        of_top_k_tokens=tokens_beside(TOP_K),
        duplicates=count("duplicates"),
        near_copies=get("near_copies", "selection", "", "value") or 0.0,
        near_duplicates=selection.near_duplicates,
        in_target=count("in_target"),
        in_holdout=count("in_holdout"),
        pool_in_target=count("in_target", "pool"),
        pool_in_holdout=count("in_holdout", "pool"),
        not_measured=not_measured,
        tokens=count("tokens") // selection.epochs,
        median_tokens=get("median_tokens", "selection", "", "value") or 0.0,
        median_eligible=get("median_tokens", "eligible", "", "value") or 0.0,
        sizes=list(of_sizes()),
        bits_of_chance=get("bits_per_byte", RANDOM, "", "sd") or 0.0,
    )

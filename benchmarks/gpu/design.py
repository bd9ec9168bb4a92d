"""The experiment's sizes, and the rule that scales them to the time there is.

What belongs here: numbers of tokens, sizes of models, what is dropped first. What does not: text, training. Standard
library alone.

What the full experiment costs
------------------------------
Training on a token costs six floating-point operations for each parameter in a matrix product (39.3 M in layers, 5.2 M
in the output) and 16 M for attention: 283 MFLOP with the largest model, 127 with the second, 49 with the third. For
each of two seeds, 40 M tokens are trained on for the base and 4 M for each of 37 forks (four methods on nine targets,
and random once for all): 376 M tokens. At most 200,000 held-out tokens of nine targets are measured under six models
each, forward only, which is worth another 7 M. Together: 383 M tokens, 108 PFLOP.

Of ten minutes, 12 s are kept back, about 50 s go to the start, timing and compilation, and a tenth of the rest is for
what the timing did not see: 485 s remain. With the 45 M model, a plan fits from this speed on, here as a share of what
an H100 or H200 can do in bfloat16 (989 TFLOP/s, dense):

=========================  ===========  ============  ======
dropped                    M tokens     tokens/s      share
=========================  ===========  ============  ======
nothing                    383          790,000       23 %
half of the base text      343          708,000       20 %
three quarters of it       323          666,000       19 %
=========================  ===========  ============  ======

Compiled models of two to three times the size are reported at 30 to 40 % and more, uncompiled ones at half of that. A
width of 640 is harder to keep a device busy with: expect 25 to 30 % compiled, so the full experiment, and 12 to 17 %
uncompiled, so the 20 M model, for which 790,000 tokens a second are 10 %. These are estimates: nothing here has run on
a GPU. Compiling takes part of a minute, so it is tried only if the full experiment does not fit without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

#: Part of the time left that a plan may take by what was timed.
SHARE = 0.9

#: Fewer targets are not compared: with all five on one side, a two-sided sign test ends at p = 0.06.
FEWEST_TARGETS = 6


@dataclass(frozen=True)
class ModelSize:
    """A decoder.

    Attributes
    ----------
    name : str
        For display.
    width, layers, heads : int
        ``heads`` divides ``width``.
    """

    name: str
    width: int
    layers: int
    heads: int


@dataclass(frozen=True)
class Experiment:
    """What is trained and measured.

    Attributes
    ----------
    base_tokens : int
        Random text that every model starts from.
    tokens, epochs : int
        Of each selection.
    heldout_tokens : int
        The most of each target to measure.
    seeds : int
        Of initial weights and order; each has its base and its forks.
    vocabulary : int
        Tokens, including the end of a text.
    context, windows : int
        Tokens that the model sees, and contexts a step.
    rate : float
        Highest learning rate.
    sizes : tuple of ModelSize
        Largest first; the others are for slower devices.
    """

    base_tokens: int = 40_000_000
    tokens: int = 2_000_000
    epochs: int = 2
    heldout_tokens: int = 200_000
    seeds: int = 2
    vocabulary: int = 8192
    context: int = 512
    windows: int = 64
    rate: float = 1e-3
    sizes: tuple[ModelSize, ...] = (
        ModelSize("45 M", width=640, layers=8, heads=10),
        ModelSize("20 M", width=512, layers=5, heads=8),
        ModelSize("8 M", width=320, layers=4, heads=5),
    )

    @classmethod
    def of(cls, record: dict) -> Experiment:
        """Return what `dataclasses.asdict` made a record of, read back from JSON."""
        return cls(**{**record, "sizes": tuple(ModelSize(**size) for size in record["sizes"])})


#: The planned experiment.
FULL = Experiment()

#: A hundredth of its tokens and parameters, for a test of the machinery on a CPU.
DRY = Experiment(
    base_tokens=400_000,
    tokens=20_000,
    heldout_tokens=10_000,
    vocabulary=1024,
    context=64,
    windows=16,
    sizes=(
        ModelSize("0.45 M", width=96, layers=3, heads=3),
        ModelSize("0.2 M", width=64, layers=2, heads=2),
    ),
)


@dataclass(frozen=True)
class Plan:
    """What is run of an experiment.

    Attributes
    ----------
    size : ModelSize
    base_tokens : int
    targets : tuple of str
    """

    size: ModelSize
    base_tokens: int
    targets: tuple[str, ...]

    @classmethod
    def of(cls, record: dict) -> Plan:
        """Return what `dataclasses.asdict` made a record of, read back from JSON."""
        return cls(ModelSize(**record["size"]), record["base_tokens"], tuple(record["targets"]))

    def record(self) -> dict:
        """Everything here, for JSON."""
        return {**asdict(self), "targets": list(self.targets)}


def selection_name(method: str, target: str) -> str:
    """Return the name of a selection; that of random text is the same for all targets."""
    return method if method == "random" else f"{method}.{target}"


def work(plan: Plan, experiment: Experiment, heldout: Mapping[str, int], methods: int) -> float:
    """Return the cost of a plan in tokens of training.

    Parameters
    ----------
    plan : Plan
    experiment : Experiment
    heldout : mapping of str to int
        Held-out tokens of every target; measuring one costs a third of training on one.
    methods : int
        Compared methods, one of them random, which is the same for all targets.
    """
    forks = 1 + (methods - 1) * len(plan.targets)
    trained = plan.base_tokens + forks * experiment.epochs * experiment.tokens
    measured = (methods + 1) * sum(heldout[target] for target in plan.targets)  # the base, too
    return experiment.seeds * (trained + measured / 3)


def ladder(experiment: Experiment, targets: tuple[str, ...]) -> Iterator[Plan]:
    """Yield plans in the order in which they are tried, each cheaper than the one before on a given device.

    For each size of model, the largest first, with all targets: all of the base text, half, a quarter. Then, with the
    smallest model and a quarter of the base text, one target less at a time, the last in the alphabet first, down to
    `FEWEST_TARGETS`. Seeds, methods and the tokens of a selection stay as planned.
    """
    targets = tuple(sorted(targets))
    bases = [experiment.base_tokens // part for part in (1, 2, 4)]
    for size in experiment.sizes:
        for base_tokens in bases:
            yield Plan(size, base_tokens, targets)
    for n in range(len(targets) - 1, FEWEST_TARGETS - 1, -1):
        yield Plan(experiment.sizes[-1], bases[-1], targets[:n])


def choose(
    experiment: Experiment,
    heldout: Mapping[str, int],
    methods: int,
    speed: Callable[[ModelSize, float], float],
    left: Callable[[], float],
) -> tuple[Plan, float]:
    """Return the first plan of the ladder that fits, and the seconds it should take.

    Parameters
    ----------
    experiment : Experiment
    heldout : mapping of str to int
        Held-out tokens of every target.
    methods : int
        Compared methods.
    speed : callable
        Measures the tokens a second of a model in training. It is told how many the first plan with this model needs,
        called once a size, and only for sizes that are reached.
    left : callable
        The seconds that are left now. Timing takes some of them.

    Raises
    ------
    SystemExit
        Nothing fits; says how long the smallest plan takes.
    """
    speeds: dict[ModelSize, float] = {}
    for plan in ladder(experiment, tuple(heldout)):
        tokens = work(plan, experiment, heldout, methods)
        if plan.size not in speeds:
            speeds[plan.size] = speed(plan.size, tokens / max(SHARE * left(), 1e-9))
        seconds = tokens / speeds[plan.size]
        if seconds <= SHARE * left():
            return plan, seconds
    raise SystemExit(
        f"the smallest plan ({plan.size.name} parameters, {plan.base_tokens:,} base tokens, {len(plan.targets)} "
        f"targets) takes {seconds:,.0f} s on this device, and {SHARE * left():,.0f} s are left for it; raise --minutes"
    )

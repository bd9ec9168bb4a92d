"""What the numbers of an evaluation mean: a verdict in words.

What belongs here: numbers in, sentences out, each with its level. What does not: which numbers (``numbers.py``), how a
page or a terminal shows the sentences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Literal

from dsir.doctor import FRAGMENT, without_fragments
from dsir_dagster.assets.report.numbers import NONE, Difference, Numbers, OfSize, OfTarget
from dsir_dagster.resources.borders import several
from dsir_dagster.resources.settings.evaluation import RANDOM, TOP_K
from dsir_dagster.resources.table import written

#: What a sentence is for its reader: reassurance, something to know before the selection is used, a reason not to.
Level = Literal["good", "caution", "bad"]
LEVELS: tuple[Level, ...] = ("good", "caution", "bad")
#: Below this share of the picks, an effective sample size leaves the noise of `resample` next to no say.
FEW = 0.1
#: From this share of common documents on, the selection is top-k's, and a difference is that of a few documents.
SAME = 0.98
#: A pick with this share fewer or more tokens than another covers less or more of a target for that alone.
UNLIKE = 0.05
#: From this share on, near-copies are a caution, and documents of the holdout make the figures worthless.
MANY = 0.01


@dataclass(frozen=True)
class Sentence:
    """One finding.

    Attributes
    ----------
    level : Level
    about : str
        Two or three words.
    text : str
    """

    level: Level
    about: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """What the numbers mean.

    Attributes
    ----------
    summary : str
        In one line, without a period.
    sentences : list of Sentence
    measured_on : str
        Which text the figures are for.
    banner : str
        What must not be overlooked; '' if there is nothing.
    note : str
        What a run warns of; '' if there is nothing.
    """

    summary: str
    sentences: list[Sentence]
    measured_on: str
    banner: str = ""
    note: str = ""

    @property
    def level(self) -> Level:
        """The gravest of its sentences' levels."""
        return LEVELS[max(LEVELS.index(each.level) for each in self.sentences)]


def judge(numbers: Numbers) -> Verdict:
    """Say what the numbers of an evaluation mean."""
    sentences = [
        *_beside_pool(numbers),
        *_beside_random(numbers),
        *_beside_top_k(numbers),
        _measured_on(numbers),
        _effective(numbers),
        _copies(numbers),
        *_leaks(numbers),
        *_lengths(numbers),
        *_sizes(numbers),
        *(
            Sentence("caution", "Not measured", f"{each[0].upper()}{each[1:]}.")
            for each in numbers.not_measured
        ),
    ]
    leaked = [each for each in sentences if each.about == "Leakage"] if numbers.in_holdout else []
    told = [each for each in sentences if each.level == "bad" or each in leaked[:1]]
    warnings = [each.text.removesuffix(".") for each in told]
    note = "; ".join([*warnings, *numbers.not_measured])
    return Verdict(_summary(numbers), sentences, measured_on(numbers.targets), _banner(numbers), note)


def measured_on(targets: Sequence[OfTarget]) -> str:
    """Say which text selections were measured on."""
    held_out = [each.name for each in targets if each.held_out]
    fitted = [each.name for each in targets if not each.held_out]
    if not fitted:
        return "held-out target text"
    if not held_out:
        return "the fitted target text (no holdout)"
    return f"held-out text of {_listed(held_out)} and the fitted text of {_listed(fitted)} (no holdout)"


def _chosen(numbers: Numbers) -> bool:
    """Whether a method had a choice, so that a comparison says something about it."""
    return numbers.method != RANDOM and not _everything(numbers)


def _everything(numbers: Numbers) -> bool:
    return numbers.documents >= numbers.eligible


def _beside_pool(numbers: Numbers) -> list[Sentence]:
    if not _chosen(numbers):
        return []
    sentences = []
    many = len(numbers.targets) > 1
    for each in (numbers.mean, *(numbers.targets if many else ())):
        found = each.over_pool
        if found.sign > 0 and not each.name:
            whose = " on average over the targets" if many else ""
            text = f"Closer to the target than the pool{whose}: the paper's KL reduction is {found.nats}."
            sentences.append(Sentence("good", "Pool", text))
        elif found.sign <= 0:
            whose = f" for {each.name}" if each.name else " on average over the targets" if many else ""
            size = f"{written(found.value, 'nats')} nats (95% interval {written((found.low, found.high), 'range')})"
            text = f"Not closer to the target than the pool{whose}: the paper's KL reduction is {size}"
            if found.sign == 0:
                sentences.append(Sentence("caution", "Pool", f"{text}, which may be chance."))
            else:
                if each.of_random < 0 and each.over_random and each.over_random.sign >= 0:
                    text += (
                        ". Nor are random picks of this size: so few documents are far from any target by chance "
                        "alone; pick more"
                    )
                sentences.append(Sentence("bad", "Pool", f"{text}."))
    return sentences


def _beside_random(numbers: Numbers) -> list[Sentence]:
    about = "Random picks"
    found = numbers.mean.over_random
    if numbers.method == RANDOM:
        text = "This selection is random: a baseline for others, not a choice for the target."
        return [Sentence("caution", about, text)]
    if _everything(numbers):
        text = (
            "Every eligible document was picked, so there was nothing to choose: any method picks the same."
        )
        return [Sentence("caution", about, text)]
    if found is None:
        return [Sentence("caution", about, "There are no random picks to compare with.")]
    many = len(numbers.targets) > 1
    mean = " on average over the targets" if many else ""
    size = _with_tokens(numbers.of_random_tokens)
    if found.sign > 0:
        first = Sentence("good", about, f"Better than random picks by {found.nats}{mean}{size}.")
    elif found.sign < 0:
        first = Sentence("bad", about, f"Worse than random picks by {found.nats}{mean}{size}.")
    else:
        text = f"No better than random picks{mean}{size}: the difference of {found.nats} may be chance."
        first = Sentence("caution", about, text)
    rest = []
    for each in numbers.targets if many else ():
        if each.over_random and each.over_random.sign < 0:
            text = f"For {each.name}, worse than random picks by {each.over_random.nats}."
            rest.append(Sentence("bad", about, text))
        elif each.over_random and each.over_random.sign == 0:
            text = f"For {each.name}, no better than random picks: {each.over_random.nats}."
            rest.append(Sentence("caution", about, text))
    plain = numbers.mean.plain_over_random
    if plain and plain.sign < found.sign:
        how = "no better than random picks" if plain.sign == 0 else "worse than random picks"
        text = f"On plain n-grams it is {how}: {plain.nats}."
        rest.append(Sentence("caution", about, text))
    return [first, *rest]


def _beside_top_k(numbers: Numbers) -> list[Sentence]:
    found, plain = numbers.mean.over_top_k, numbers.mean.plain_over_top_k
    if found is None or numbers.method == TOP_K or not _chosen(numbers):
        return []
    share = numbers.same_as_top_k
    if share is not None and _picks_of_top_k(numbers):
        text = f"Picks almost the same documents as top-k: {written(share, 'share')} of them are the same."
        return [Sentence("good", "Top-k", text)]
    same = "" if share is None else f"; {written(share, 'share')} of the documents are the same"
    sign, of_plain = found.beyond_noise, plain.beyond_noise if plain else 0
    if sign:
        text = f"{'Better' if sign > 0 else 'Worse'} than top-k by {found.nats}"
    elif abs(found.value) < NONE:
        text = f"The same as top-k: the difference is under {written(NONE, 'nats')} nats"
    else:
        text = f"As good as top-k: the difference of {found.nats} may be chance"
    if plain and of_plain != sign:
        how = {1: f"better by {plain.nats}", 0: "no better or worse", -1: f"worse by {plain.nats}"}[of_plain]
        text += f"; on plain n-grams, {how}"
    level: Level = "caution" if min(sign, of_plain) < 0 else "good"
    return [Sentence(level, "Top-k", f"{text}{_with_tokens(numbers.of_top_k_tokens)}{same}.")]


def _with_tokens(share: float) -> str:
    """Say how much less or more text a selection has than what it is compared with, if that matters."""
    if abs(share - 1) < UNLIKE:
        return ""
    return f", with {abs(share - 1):.0%} {'fewer' if share < 1 else 'more'} tokens"


def _picks_of_top_k(numbers: Numbers) -> bool:
    return (numbers.same_as_top_k or 0) >= SAME


def _measured_on(numbers: Numbers) -> Sentence:
    fitted = [each.name for each in numbers.targets if not each.held_out]
    about, text = "Measured on", measured_on(numbers.targets)
    text = text[0].upper() + text[1:]
    if not fitted:
        return Sentence("good", about, f"{text}, which the selection has not seen.")
    if not _chosen(numbers):
        return Sentence("good", about, f"{text}; nothing was chosen for it.")
    if len(fitted) == len(numbers.targets):
        text = "The text it was fitted to, so the figures are optimistic; give the target a `holdout`."
        return Sentence("caution", about, text)
    text += f", so {_listed(fitted)}'s figures are optimistic; give {'it' if len(fitted) == 1 else 'them'} a `holdout`."
    return Sentence("caution", about, text)


def _hardly_drawn(numbers: Numbers) -> bool:
    least = min(each.effective_sample_size for each in numbers.targets)
    by_weight = numbers.method == "resample" and numbers.plain_weights and _chosen(numbers)
    return by_weight and least < FEW * numbers.documents


def _effective(numbers: Numbers) -> Sentence:
    least = min(numbers.targets, key=lambda each: each.effective_sample_size)
    size = least.effective_sample_size
    whose = f" for {least.name}" if len(numbers.targets) > 1 else ""
    text = (
        f"The weights{whose} have an effective sample size of {written(size, 'size')} of "
        f"{numbers.eligible:,} eligible documents"
    )
    about = "Effective sample size"
    if _everything(numbers):
        return Sentence("good", about, f"{text}; all were picked.")
    if numbers.method != "resample":
        return Sentence("good", about, f"{text}; `{numbers.method}` does not draw by weight.")
    if not numbers.plain_weights:
        text += ", before the temperature and the correction for length of this selection."
        return Sentence("good", about, text)
    if _hardly_drawn(numbers):
        text += (
            f": a few documents have nearly all of the weight, so drawing {numbers.documents:,} by weight is nearly "
            "the same as taking the largest (top-k). For more variety, use `method: match` or raise "
            "`temperature`."
        )
        return Sentence("caution", about, text)
    if size < numbers.documents:
        text += (
            f", fewer than the {numbers.documents:,} picked: those with the largest weights are picked in any case, "
            "the rest are drawn."
        )
        return Sentence("caution", about, text)
    text += f", at least as many as the {numbers.documents:,} picked: the picks are a real draw by weight."
    return Sentence("good", about, text)


def _copies(numbers: Numbers) -> Sentence:
    if numbers.near_duplicates is not None:
        near = f"Near-copies, from a similarity of {numbers.near_duplicates:g}, were left out."
    elif numbers.near_copies == 0:
        near = "No near-copies in the sample checked."
    else:
        near = f"{written(numbers.near_copies, 'share')} of a sample nearly repeat another document of it; "
        near += "`near_duplicates: 0.8` leaves them out."
    many = numbers.near_duplicates is None and numbers.near_copies >= MANY
    if not numbers.duplicates:
        return Sentence(
            "caution" if many else "good",
            "Copies",
            f"No picked document repeats another word for word. {near}",
        )
    share = written(numbers.duplicates / max(numbers.documents, 1), "share")
    text = f"{_picks(numbers.duplicates, 'repeats', 'repeat')} the text of another word for word ({share}); "
    text += f"`collapse_duplicates: true` keeps one of each. {near}"
    return Sentence("caution", "Copies", text)


def _leaks(numbers: Numbers) -> list[Sentence]:
    sentences = []
    if numbers.in_holdout:
        text = (
            f"{_picks(numbers.in_holdout, 'is', 'are')} in the holdout, word for word, which makes the figures "
            f"optimistic; take {'it' if numbers.in_holdout == 1 else 'them'} out of the holdout or the pool."
        )
        share = numbers.in_holdout / max(numbers.documents, 1)
        sentences.append(Sentence("bad" if share >= MANY else "caution", "Leakage", text))
    elif numbers.pool_in_holdout:
        many = numbers.pool_in_holdout
        text = f"{several(many, 'document')} of the pool {'is' if many == 1 else 'are'} in the holdout, none picked."
        sentences.append(Sentence("caution", "Leakage", text))
    if numbers.in_target:
        text = (
            f"{_picks(numbers.in_target, 'is', 'are')} in the target, word for word, and "
            f"{'brings' if numbers.in_target == 1 else 'bring'} nothing new."
        )
        sentences.append(Sentence("caution", "Leakage", text))
    elif numbers.pool_in_target and not sentences:
        many = numbers.pool_in_target
        text = f"{several(many, 'document')} of the pool {'is' if many == 1 else 'are'} in the target, none picked."
        sentences.append(Sentence("good", "Leakage", text))
    if not sentences:
        text = "No document of the pool is in a target or its holdout, word for word."
        sentences.append(Sentence("good", "Leakage", text))
    return sentences


def _lengths(numbers: Numbers) -> list[Sentence]:
    if not _chosen(numbers) or numbers.median_tokens >= FRAGMENT * numbers.median_eligible:
        return []
    text = (
        f"Fragments: half of the picked documents have at most {numbers.median_tokens:,.0f} tokens, half of the "
        f"eligible ones {numbers.median_eligible:,.0f} or more. {numbers.documents:,} were picked; "
        f"{numbers.tokens / numbers.median_eligible:,.0f} of the eligible ones' median length have as many tokens. "
        f"`min_tokens: {without_fragments(numbers.median_eligible)}` leaves them out; `evaluation.bits_per_byte` tells "
        "whether that is better."
    )
    return [Sentence("caution", "Lengths", text)]


def _sizes(numbers: Numbers) -> list[Sentence]:
    """Say whether fewer documents would be better, or more, and where repeating beats adding."""
    sizes = {each.factor: each for each in numbers.sizes}
    own = sizes.pop(1.0, None)
    if own is None or not sizes or not _chosen(numbers):
        return []
    noise = 2 * numbers.bits_of_chance

    def dearer(one: OfSize, other: OfSize) -> bool:
        """Whether held-out text costs more after one than after the other, by more than random picks differ."""
        return one.bits_per_byte - other.bits_per_byte > noise  # not where one of them is NaN

    def against(each: OfSize, other: OfSize) -> str:
        mine, theirs = (written(size.bits_per_byte, "nats") for size in (each, other))
        return f"{mine} bits per byte against {theirs}"

    def bits(each: OfSize) -> str:
        if isnan(each.bits_per_byte):
            return ""
        how = "better" if dearer(own, each) else "as well"
        return f", and a model of them predicts held-out text {how}: {against(each, own)}"

    sentences = []
    closer = [each for each in sizes.values() if each.lead.beyond_noise < 0]
    narrower = [each for each in closer if each.factor < 1 and not dearer(each, own)]
    wider = [
        each
        for each in sizes.values()
        if each.factor > 1 and each.lead.beyond_noise <= 0 and not dearer(each, own)
    ]
    if narrower:
        best = max(narrower, key=lambda each: each.over_random.value)
        text = f"Fewer documents are closer to the target: {best.name} by {best.lead.nats}{bits(best)}. Pick fewer."
        sentences.append(Sentence("caution", "Size", text))
    elif wider:
        best = wider[-1]
        how = f"closer to the target by {best.lead.nats}" if best in closer else "as close to the target"
        text = f"More documents can be picked without loss: {best.name} are {how}{bits(best)}."
        sentences.append(Sentence("good", "Size", text))
    measured = [each for each in (own, *sizes.values()) if not isnan(each.bits_per_byte)]
    if measured:
        best = min(measured, key=lambda each: each.bits_per_byte)
        worse = [each for each in measured if each.factor > best.factor and dearer(each, best)]
        if worse:
            more = own if own in worse else min(worse, key=lambda each: each.factor)
            text = (
                f"A model of {_of_size(best)} predicts held-out text better than one of {_of_size(more)}: "
                f"{against(best, more)}. To train longer, repeat the smaller pick rather than add documents: up "
                "to about four epochs cost language models little (Muennighoff et al. 2023; not measured here)."
            )
            level: Level = "caution" if best.factor < 1 else "good"
            sentences.append(Sentence(level, "Size", text))
    if not sentences:
        text = (
            f"No other size that was measured is better: {_listed([each.name for each in sizes.values()])}."
        )
        sentences.append(Sentence("good", "Size", text))
    return sentences


def _of_size(size: OfSize) -> str:
    return "the selection" if size.factor == 1 else size.name


def _summary(numbers: Numbers) -> str:
    mean = numbers.mean
    if numbers.method == RANDOM:
        parts = ["random picks, a baseline"]
    elif _everything(numbers):
        parts = ["every eligible document was picked"]
    elif mean.over_random is None:
        parts = ["nothing to compare with"]
    else:
        how = {1: "better than random by", 0: "no better than random:", -1: "WORSE than random by"}
        parts = [f"{how[mean.over_random.sign]} {mean.over_random.nats}"]
        if mean.over_top_k and numbers.method != TOP_K:
            parts[0] += f", {_top_k_in_short(numbers, mean.over_top_k)}"
    if _chosen(numbers):
        parts[0] += f", on {measured_on(numbers.targets)}"
        if mean.over_pool.sign <= 0:
            no = "NOT" if mean.over_pool.sign < 0 else "not"
            text = f"{no} closer to the target than the pool (KL reduction {written(mean.over_pool.value, 'nats')})"
            parts.insert(1 if mean.over_random and mean.over_random.sign < 0 else 0, text)
        for each in numbers.targets if len(numbers.targets) > 1 else ():
            if each.over_random and each.over_random.sign < 0:
                parts.append(f"worse than random for {each.name}")
            elif each.over_pool.sign < 0:
                parts.append(f"not closer than the pool for {each.name}")
    if _hardly_drawn(numbers):
        size = min(each.effective_sample_size for each in numbers.targets)
        parts.append(f"effective sample size {written(size, 'size')}, nearly top-k")
    if numbers.in_holdout:
        parts.append(f"{several(numbers.in_holdout, 'picked document')} in the holdout")
    return "; ".join(parts)


def _top_k_in_short(numbers: Numbers, found: Difference) -> str:
    if _picks_of_top_k(numbers):
        return "almost the same picks as top-k"
    sign, plain = found.beyond_noise, numbers.mean.plain_over_top_k
    same = "the same as top-k" if abs(found.value) < NONE else "as good as top-k"
    text = {1: "better than top-k", 0: same, -1: "worse than top-k"}[sign]
    if plain and plain.beyond_noise not in (0, sign):
        text += f" ({'better' if plain.beyond_noise > 0 else 'worse'} on plain n-grams)"
    return text + (_with_tokens(numbers.of_top_k_tokens) if sign < 0 else "")


def _banner(numbers: Numbers) -> str:
    if not _chosen(numbers):
        return ""
    every = (numbers.mean, *numbers.targets)
    worse = [each for each in every if each.over_random and each.over_random.sign < 0]
    farther = [each for each in every if each.over_pool.sign < 0]
    if not worse and not farther:
        return ""
    found = (worse or farther)[0]
    whose = f" for {found.name}" if found.name else ""
    if worse and found.over_random:
        other = "another method" if numbers.method == "match" else "`method: match`"
        size = _with_tokens(numbers.of_random_tokens)
        what = f"Worse than random picks{whose}, by {found.over_random.nats}{size}."
        advice = f"Try {other}, a larger target or a larger selection"
    else:
        value = written(found.over_pool.value, "nats")
        what = f"Not closer to the target than the pool{whose}: the paper's KL reduction is {value} nats."
        advice = "Try a larger selection or a larger target"
    return f"{what} Do not use this selection as it is. {advice}; `dsir doctor` looks for the cause."


def _picks(number: int, one: str, many: str) -> str:
    return f"{several(number, 'picked document')} {one if number == 1 else many}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

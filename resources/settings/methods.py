"""The declaration of a method of selection, and where the configuration looks methods up.

What belongs here: the declaration, the rule of keys, the lookup. What does not: any particular method; each declares
itself in its module under ``assets/methods/``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Generic, TypeVar

import pydantic
import pydantic_core

from dsir.selection import Budget
from dsir_dagster.resources.settings.types import Model


class MethodOptions(Model):
    """Options of one method, written beside the common ones in a selection; this base has none."""


@dataclass(frozen=True)
class KeyRule:
    """How the key of any document of the pool follows from what is kept. With neither term, it does not follow.

    The rule is recorded with a selection, where ``sql/macros_why.sql``, ``sql/macros_changes.sql`` and the report read
    it.

    Attributes
    ----------
    log_weight : bool
        Whether the log weight is a term of the key: corrected for length, divided by the ``temperatures`` in
        :attr:`Ranking.numbers`, if there are any.
    noise : bool
        Whether the document's Gumbel noise is a term of the key.
    length : str
        How the log weight is corrected for length whatever is configured; '' for as configured.
    besides : str
        What else decides, as shown for a document that was not picked.
    """

    log_weight: bool = False
    noise: bool = False
    length: str = ""
    besides: str = ""

    @property
    def decides(self) -> bool:
        """Whether any document's key is known and, with the threshold, decides whether it is picked."""
        return (self.log_weight or self.noise) and not self.besides

    def recorded(self) -> str:
        """Return the rule for a selection's metadata: JSON with the fields that are set."""
        rule = {name: value for name, value in asdict(self).items() if value}
        return json.dumps(rule if self.log_weight or self.noise else rule | {"picked_only": True})

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> KeyRule:
        """Return the rule from a selection's metadata."""
        rule = json.loads(metadata["key_rule"])
        rule.pop("picked_only", None)
        return cls(**rule)


#: What methods rank and what they return: `Candidates` and `Ranking` of ``assets/``, the layer above.
CandidatesT = TypeVar("CandidatesT")
RankingT = TypeVar("RankingT")


@dataclass(frozen=True)
class Method(Generic[CandidatesT, RankingT]):
    """A method of selection, declared once.

    Attributes
    ----------
    name : str
        As in ``selections[].method``.
    fit : callable
        From candidates and a budget to a :class:`dsir_dagster.assets.methods.ranking.Ranking`.
    keys : KeyRule
    options : type of MethodOptions
        Its options beside those that follow from its traits: ``source_caps``; ``epochs``, if it has noise;
        ``overlap``, unless it is joint.
    noise : bool
        Whether another seed picks other documents.
    joint : bool
        Whether it picks for all targets of a selection together, rather than a share for each.
    one_target : bool
        Whether it takes only one target.
    """

    name: str
    fit: Callable[[CandidatesT, Budget], RankingT]
    keys: KeyRule = field(default_factory=KeyRule)
    options: type[MethodOptions] = MethodOptions
    noise: bool = True
    joint: bool = False
    one_target: bool = False

    @property
    def takes(self) -> set[str]:
        """Options that this method takes and some others do not."""
        by_trait = {"source_caps"} | ({"epochs"} if self.noise else set())
        return by_trait | (set() if self.joint else {"overlap"}) | self.options.model_fields.keys()


def methods() -> Mapping[str, Method[Any, Any]]:
    """Return every method by name: ``METHODS`` of ``assets/methods/``.

    Methods are a layer above the configuration, which needs their options to read a selection. So they are looked up
    when the first selection is read: whichever module was imported first, all methods are known by then.
    """
    return importlib.import_module("dsir_dagster.assets.methods").METHODS


def refuse(method: Method, option: str) -> ValueError:
    """Return the error for an option that a method does not take; it names the methods that do."""
    takers = [each.name for each in methods().values() if option in each.takes]
    verb = "does" if len(takers) == 1 else "do"
    return ValueError(f"method {method.name} takes no {option}; {', '.join(takers)} {verb}")


def defaults_of(option: str) -> list[object]:
    """Return an option's default in each method that has the option."""
    found = (each.options.model_fields.get(option) for each in methods().values())
    return [each.default for each in found if each is not None]


def _known(name: object) -> object:
    names = [repr(each) for each in methods()]
    if not isinstance(name, str) or name not in methods():
        expected = f"{', '.join(names[:-1])} or {names[-1]}"
        raise pydantic_core.PydanticKnownError("literal_error", {"expected": expected})
    return name


#: Name of a method.
MethodName = Annotated[str, pydantic.BeforeValidator(_known)]

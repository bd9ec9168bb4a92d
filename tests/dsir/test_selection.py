"""Picking: the order of documents, budgets, caps, streams in any order and cut, several targets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.selection import (
    CANDIDATE,
    Budget,
    Caps,
    TopK,
    needed,
    pick_in_turn,
    pick_where_best,
    rank,
    split_budget,
    take,
)

FIELDS = CANDIDATE.names


@st.composite
def pools(draw, max_size: int = 40) -> np.ndarray:
    """Candidates at distinct positions, with many equal keys and hashes, some of no tokens."""
    n = draw(st.integers(0, max_size))
    few_keys = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 3.0])
    keys = draw(st.sampled_from([few_keys, st.floats(-100, 100)]))
    pool = np.zeros(n, dtype=CANDIDATE)
    for name, values in (
        ("key", keys),
        ("log_weight", st.floats(-100, 100)),
        ("content_hash", st.sampled_from([0, 7, 2**63, 2**64 - 1])),
        ("id_hash", st.sampled_from([0, 9, 2**64 - 1])),
        ("shard", st.integers(0, 2)),
        ("n_tokens", st.sampled_from([0, 1, 3, 10])),
    ):
        pool[name] = draw(st.lists(values, min_size=n, max_size=n))
    pool["row"] = draw(st.permutations(range(n)))
    return pool


@st.composite
def budgets(draw) -> Budget:
    amount = draw(st.integers(0, 60))
    return draw(st.sampled_from([Budget(documents=amount), Budget(tokens=amount)]))


def cut(pool: np.ndarray, data: st.DataObject) -> list[np.ndarray]:
    """Shuffle a pool and cut it into batches, some of them empty."""
    order = data.draw(st.permutations(range(len(pool))), label="order")
    cuts = data.draw(st.lists(st.integers(0, len(pool)), max_size=8), label="cuts")
    return np.split(pool[np.array(order, dtype=int)], sorted(cuts))


def best_first(pool: np.ndarray) -> list[tuple]:
    """All candidates in order of rank, by sorting tuples."""

    def place(candidate: tuple) -> tuple:
        c = dict(zip(FIELDS, candidate, strict=True))
        return -c["key"], c["content_hash"], c["id_hash"], c["shard"], c["row"]

    return sorted(pool.tolist(), key=place)


def fitting(ranked: list[tuple], budget: Budget) -> list[tuple]:
    """Take candidates one by one until the next one does not fit."""
    taken, spent = [], 0
    for candidate in ranked:
        spent += 1 if budget.tokens is None else candidate[FIELDS.index("n_tokens")]
        if spent > budget.amount:
            break
        taken.append(candidate)
    return taken


def top_k(budget: Budget, batches: list[np.ndarray], slack: int = TopK.SLACK) -> TopK:
    class Tight(TopK):
        SLACK = slack

    top = Tight(budget)
    for batch in batches:
        top.add(batch)
    return top


def candidates(keys, n_tokens=1, shard=0) -> np.ndarray:
    out = np.zeros(len(keys), dtype=CANDIDATE)
    out["key"] = keys
    out["n_tokens"] = n_tokens
    out["shard"] = shard
    out["row"] = np.arange(len(keys))
    return out


# --- order -------------------------------------------------------------------------------------------


@given(pool=pools())
def test_documents_are_ranked_by_key_then_content_hash_then_id_hash_then_shard_then_row(pool):
    assert rank(pool).tolist() == best_first(pool)


@pytest.mark.parametrize(
    ("tie_breaker", "lower", "higher"),
    [
        ("content_hash", 1, 2**64 - 1),
        ("id_hash", 2**63 - 1, 2**63),
        ("shard", 0, 1),
        ("row", 5, 2**39),
    ],
)
def test_of_two_equal_keys_the_lower_tie_breaker_comes_first(tie_breaker, lower, higher):
    pair = np.zeros(2, dtype=CANDIDATE)
    pair["key"] = 1.0
    pair[tie_breaker] = [higher, lower]
    # What comes later in the order of tie breakers must not matter.
    later = FIELDS[FIELDS.index(tie_breaker) + 1 :]
    for name in set(later) & {"id_hash", "shard", "row"}:
        pair[name] = [1, 2]
    assert rank(pair)[tie_breaker].tolist() == [lower, higher]


def test_ranking_leaves_the_candidates_as_they_are():
    pool = candidates([1.0, 3.0, 2.0])
    rank(pool)
    assert pool["key"].tolist() == [1.0, 3.0, 2.0]


# --- budgets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_", [{}, {"documents": 1, "tokens": 1}])
def test_a_budget_is_of_documents_or_of_tokens(given_):
    with pytest.raises(ValueError, match="either documents or tokens"):
        Budget(**given_)


def test_a_scaled_budget_keeps_its_unit():
    assert Budget(documents=3).scaled(7) == Budget(documents=7)
    assert Budget(tokens=3).scaled(0) == Budget(tokens=0)


@given(pool=pools(), budget=budgets())
def test_what_is_picked_never_exceeds_the_budget_and_the_next_document_would(pool, budget):
    ranked = rank(pool)
    n = budget.prefix(ranked)
    cost = np.ones(len(ranked), int) if budget.tokens is None else ranked["n_tokens"]
    assert cost[:n].sum() <= budget.amount
    assert n == len(ranked) or cost[: n + 1].sum() > budget.amount


def test_documents_without_tokens_cost_nothing_even_where_the_budget_is_used_up():
    pool = candidates([9, 8, 7, 6, 5], n_tokens=[4, 0, 0, 1, 0])
    assert top_k(Budget(tokens=4), [pool]).picked()["key"].tolist() == [9, 8, 7]
    assert top_k(Budget(tokens=0), [pool[1:]]).picked()["key"].tolist() == [8, 7]


def test_the_first_document_that_does_not_fit_ends_the_selection():
    pool = candidates([9, 8, 7], n_tokens=[4, 100, 1])
    assert top_k(Budget(tokens=50), [pool]).picked()["key"].tolist() == [9]


@pytest.mark.parametrize("budget", [Budget(documents=1000), Budget(tokens=1000)])
def test_a_budget_larger_than_the_pool_takes_all_of_it(budget):
    pool = candidates([2.0, 1.0, 3.0], n_tokens=[5, 5, 5])
    assert top_k(budget, [pool], slack=0).picked()["key"].tolist() == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("budget", [Budget(documents=0), Budget(tokens=0)])
def test_a_budget_of_zero_takes_nothing(budget):
    assert len(top_k(budget, [candidates([2.0, 1.0])], slack=0).picked()) == 0


@pytest.mark.parametrize("budget", [Budget(documents=3), Budget(tokens=3)])
def test_nothing_is_picked_from_nothing(budget):
    for batches in ([], [candidates([])]):
        picked = top_k(budget, batches).picked()
        assert len(picked) == 0 and picked.dtype == CANDIDATE


# --- a stream of batches -----------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(pool=pools(), budget=budgets(), slack=st.sampled_from([0, 1, 5, TopK.SLACK]), data=st.data())
def test_top_k_of_a_stream_equals_sorting_everything_however_it_is_ordered_and_cut(pool, budget, slack, data):
    picked = top_k(budget, cut(pool, data), slack).picked()
    assert picked.tolist() == fitting(best_first(pool), budget)


@settings(max_examples=100, deadline=None)
@given(pool=pools(), budget=budgets(), slack=st.sampled_from([0, 1, 5]), data=st.data())
def test_candidates_below_the_floor_may_be_left_out_beforehand(pool, budget, slack, data):
    top, floors = top_k(budget, [], slack), []
    for batch in cut(pool, data):
        top.add(batch[batch["key"] >= top.floor])
        floors.append(top.floor)
    assert top.picked().tolist() == fitting(best_first(pool), budget)
    assert floors == sorted(floors), "what was out of reach stays so"


def test_there_is_a_floor_as_soon_as_more_is_held_than_may_be():
    top = top_k(Budget(documents=2), [candidates([5.0])], slack=3)
    assert top.floor == -np.inf
    top.add(candidates([4.0, 3.0, 2.0, 1.0], shard=1))
    assert top.floor == 4.0


@pytest.mark.parametrize("budget", [Budget(documents=10), Budget(tokens=1000)])
@pytest.mark.parametrize("order", ["ascending", "descending", "equal"])
def test_a_long_stream_is_held_in_memory_proportional_to_the_budget_and_one_batch(budget, order):
    keys = {"ascending": np.arange(5000), "descending": -np.arange(5000), "equal": np.zeros(5000)}[order]
    pool = candidates(keys, n_tokens=100)
    batches = np.split(pool, 100)
    top = top_k(budget, batches, slack=20)
    assert top.picked().tolist() == fitting(best_first(pool), budget)
    assert len(top.candidates()) <= 2 * 11 + 20 + 50


def test_a_better_document_that_comes_late_displaces_the_last_one():
    early = candidates([5.0, 4.0, 3.0], n_tokens=2)
    late = candidates([4.5], n_tokens=2, shard=1)
    for budget in (Budget(documents=2), Budget(tokens=5)):
        assert top_k(budget, [early, late], slack=0).picked()["key"].tolist() == [5.0, 4.5]


def test_a_small_document_ranked_below_one_that_did_not_fit_is_not_picked_after_shrinking():
    top = top_k(Budget(tokens=5), [candidates([9.0, 8.0], n_tokens=[4, 4])], slack=0)
    top.add(candidates([7.0, 6.0], n_tokens=1, shard=1))
    assert top.picked()["key"].tolist() == [9.0]


def test_looking_at_the_picks_in_between_changes_nothing():
    pool = candidates(np.random.default_rng(0).normal(size=200))
    top = top_k(Budget(documents=7), [], slack=3)
    for batch in np.split(pool, 20):
        top.add(batch)
        top.picked(), top.candidates()
    assert top.picked().tolist() == fitting(best_first(pool), Budget(documents=7))


# --- several targets ---------------------------------------------------------------------------------


def reference_amounts(num_to_sample: int, target_proportions: np.ndarray) -> list[int]:
    """``DSIR.resample`` of the reference, with separate_targets."""
    num_to_sample_pertarget = [int(num_to_sample * p) for p in target_proportions]
    num_to_sample_pertarget[-1] += num_to_sample - sum(num_to_sample_pertarget)
    return num_to_sample_pertarget


@given(
    amount=st.integers(0, 10**9),
    shares=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    unit=st.sampled_from(["documents", "tokens"]),
)
def test_a_budget_is_split_by_the_rule_of_the_reference_with_the_rest_to_the_last(amount, shares, unit):
    parts = split_budget(Budget(**{unit: amount}), np.array(shares))
    assert parts == [
        Budget(**{unit: n}) for n in reference_amounts(amount, np.asarray(shares) / np.sum(shares))
    ]
    assert sum(part.amount for part in parts) == amount


def test_shares_are_normalized_and_may_be_integers():
    halves = split_budget(Budget(documents=7), np.array([500, 500]))
    assert halves == [Budget(documents=3), Budget(documents=4)]


@st.composite
def targets(draw):
    """A pool of documents with distinct keys for every target, and a budget for each target."""
    n, n_targets = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    keys = np.array([draw(st.permutations(range(n))) for _ in range(n_targets)], dtype=float)
    n_tokens = np.array(draw(st.lists(st.sampled_from([0, 1, 2, 5]), min_size=n, max_size=n)))
    unit = draw(st.sampled_from(["documents", "tokens"]))
    amounts = draw(st.lists(st.integers(0, 25), min_size=n_targets, max_size=n_targets))
    return keys, n_tokens, [Budget(**{unit: amount}) for amount in amounts]


def masked_in_sequence(keys, n_tokens, parts) -> list[list[int]]:
    """The rule of the reference: target after target, what is chosen is masked for those that follow."""
    global_mask = np.ones(keys.shape[1], dtype=bool)
    chosen = []
    for key, budget in zip(keys, parts, strict=True):
        nonzero_idxs = np.where(global_mask)[0]
        idxs = nonzero_idxs[np.argsort(-key[global_mask])]
        if budget.tokens is None:
            idxs = idxs[: budget.documents]
        else:
            idxs = idxs[np.cumsum(n_tokens[idxs]) <= budget.tokens]
        global_mask[idxs] = False
        chosen.append(idxs.tolist())
    return chosen


def pools_of(keys, n_tokens) -> list[np.ndarray]:
    """One pool a target; document i is row i // 3 of shard i % 3."""
    out = []
    for key in keys:
        pool = candidates(key, n_tokens)
        pool["shard"], pool["row"] = pool["row"] % 3, pool["row"] // 3
        out.append(pool)
    return out


def documents(picks: np.ndarray) -> list[int]:
    return (picks["row"] * 3 + picks["shard"]).tolist()


@settings(max_examples=100, deadline=None)
@given(case=targets())
def test_picking_in_turn_equals_masking_in_sequence_and_picks_no_document_twice(case):
    keys, n_tokens, parts = case
    picks = pick_in_turn([rank(pool) for pool in pools_of(keys, n_tokens)], parts)
    found = [documents(each) for each in picks]
    assert found == masked_in_sequence(keys, n_tokens, parts)
    everything = [document for each in found for document in each]
    assert len(set(everything)) == len(everything)


@settings(max_examples=100, deadline=None)
@given(case=targets(), slack=st.sampled_from([0, 3, TopK.SLACK]), data=st.data())
def test_candidates_collected_with_the_needed_budgets_suffice(case, slack, data):
    keys, n_tokens, parts = case
    collected = [
        top_k(budget, cut(pool, data), slack).candidates()
        for budget, pool in zip(needed(parts), pools_of(keys, n_tokens), strict=True)
    ]
    found = [documents(each) for each in pick_in_turn(collected, parts)]
    assert found == masked_in_sequence(keys, n_tokens, parts)


def test_each_target_needs_its_own_budget_and_those_before_it():
    parts = [Budget(tokens=5), Budget(tokens=0), Budget(tokens=7)]
    assert needed(parts) == [Budget(tokens=5), Budget(tokens=5), Budget(tokens=12)]


def test_a_document_at_the_same_row_of_another_shard_is_another_document():
    first, second = candidates([1.0], shard=0), candidates([2.0], shard=1)
    picks = pick_in_turn([first, second], [Budget(documents=1)] * 2)
    assert [each["shard"].tolist() for each in picks] == [[0], [1]]


def test_rows_beyond_32_bits_are_told_apart():
    low, high = candidates([1.0]), candidates([1.0])
    high["row"] = 2**32
    picks = pick_in_turn([low, high], [Budget(documents=1)] * 2)
    assert [each["row"].tolist() for each in picks] == [[0], [2**32]]


def test_one_budget_a_pool_is_required():
    with pytest.raises(ValueError):
        pick_in_turn([candidates([1.0])], [])


# --- caps per source ---------------------------------------------------------------------------------


@st.composite
def pools_of_sources(draw) -> np.ndarray:
    pool = draw(pools())
    n = len(pool)
    pool["source_hash"] = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=n, max_size=n))
    return pool


def admitted(ranked: list[tuple], budget: Budget, caps: Caps) -> list[tuple]:
    """Admit candidates one by one while the better ones of their source take less than its cap."""
    spent: dict[int, int] = {}
    out = []
    for candidate in ranked:
        c = dict(zip(FIELDS, candidate, strict=True))
        source = c["source_hash"]
        cap = caps.amounts.get(source, caps.others)
        if cap is None or spent.get(source, 0) < cap:
            out.append(candidate)
        spent[source] = spent.get(source, 0) + (1 if budget.tokens is None else c["n_tokens"])
    return out


@given(
    pool=pools_of_sources(),
    budget=budgets(),
    amounts=st.dictionaries(st.sampled_from([1, 2, 9]), st.integers(0, 30)),
    others=st.none() | st.integers(0, 30),
    data=st.data(),
)
def test_a_stream_with_caps_picks_what_the_whole_pool_would(pool, budget, amounts, others, data):
    caps = Caps(amounts, others)
    top = TopK(budget, caps)
    top.SLACK = top._limit = 3
    for batch in cut(pool, data):
        top.add(batch)
    assert top.picked().tolist() == fitting(admitted(best_first(pool), budget, caps), budget)


@given(
    pool=pools_of_sources(),
    budget=budgets(),
    amounts=st.dictionaries(st.sampled_from([1, 2, 9]), st.integers(0, 30)),
    others=st.none() | st.integers(0, 30),
    capped=st.booleans(),
    data=st.data(),
)
def test_with_a_reserve_the_picks_are_right_after_so_much_was_taken_away(
    pool, budget, amounts, others, capped, data
):
    caps = Caps(amounts, others) if capped else None
    gone = np.array(data.draw(st.lists(st.booleans(), min_size=len(pool), max_size=len(pool))), dtype=bool)
    top = TopK(budget, caps, reserve=int(budget.of(pool[gone]).sum()))
    top.SLACK = top._limit = 3
    pool["row"] = np.arange(len(pool))
    for batch in cut(pool, data):
        top.add(batch)
    held = top.candidates()
    left = held[~np.isin(held["row"], pool["row"][gone])]
    assert take(left, budget, caps).tolist() == take(rank(pool[~gone]), budget, caps).tolist()


# --- several targets at once -------------------------------------------------------------------------


@given(
    pool=pools(),
    budget=st.integers(0, 30),
    shares=st.lists(st.floats(0.1, 9), min_size=3, max_size=3),
    data=st.data(),
)
def test_the_order_of_targets_does_not_matter_where_each_document_goes_to_the_best(
    pool, budget, shares, data
):
    names = ["a", "b", "c"]
    keys = {
        name: data.draw(st.lists(st.floats(-9, 9), min_size=len(pool), max_size=len(pool))) for name in names
    }

    def picks(order):
        budgets = split_budget(
            Budget(documents=budget), np.array([shares[names.index(n)] for n in order]), order
        )
        ranked = []
        for name in order:
            mine = pool.copy()
            mine["key"] = keys[name]
            ranked.append(rank(mine))
        picked = pick_where_best(ranked, budgets, order)
        return {
            n: (b.amount, p[["shard", "row"]].tolist())
            for n, b, p in zip(order, budgets, picked, strict=True)
        }

    first = picks(names)
    assert picks(names[::-1]) == first == picks(["b", "c", "a"])
    documents = [position for _, positions in first.values() for position in positions]
    assert len(documents) == len(set(documents)) == min(budget, len(pool))
    assert all(len(positions) <= amount for amount, positions in first.values())


@given(shares=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), amount=st.integers(0, 10_000))
def test_shares_by_name_use_up_the_budget_to_within_one_each(shares, amount):
    names = [chr(ord("a") + i) for i in range(len(shares))]
    amounts = [b.amount for b in split_budget(Budget(tokens=amount), np.array(shares), names)]
    assert sum(amounts) == amount
    exact = amount * np.array(shares) / np.sum(shares)
    assert np.all(np.abs(np.array(amounts) - exact) < 1 + 1e-6)

"""Every door that takes several things takes them in whatever they come: a list, a tuple, a generator, a column of a table, an array."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import strategies as st
from samples import some_or_many
from tiny import tiny

import interp_helpers
from interp_helpers import (
    Counterfactual,
    RotatedSubspace,
    Site,
    SteeringVector,
    attribution_sweep,
    average_traces,
    causal_trace,
    class_means,
    compare_subspaces,
    counterfactual_pairs,
    direct_logit_attribution,
    facts,
    fair_test,
    interchange_accuracy,
    interchange_logits,
    intervene,
    knock_out,
    known,
    layer_sweep,
    logit_diff,
    patch_sweep,
    principal_angles,
    principal_components,
    probability,
    pronouns,
    rank,
    record,
    steering_scores,
    train_das,
    truths,
    wrong_source_control,
)
from interp_helpers.steering import topic_scores

WARM = ["The sun is warm today", "A warm summer evening", "Hot tea, warm soup"]
COLD = ["The ice is cold today", "A cold winter morning", "Cold tea and ice"]
HOW = dict(samples=1, seeds=(0,), max_new_tokens=2)
NAMED = Site("block_output", 1, positions=1)


@cache
def lm():
    return tiny("gpt2", max_position_embeddings=128)


@cache
def vector():
    return SteeringVector.from_contrast(lm(), WARM, COLD, 1, name="warm")


@cache
def trace():
    return causal_trace(lm(), "The sun is warm", "sun", " today", layers=[1], samples=1)


def column(things: list, order: list[int]):
    """A column of a table whose rows were chosen and put in another order: its index has gaps and is out of order."""
    whole = pd.Series([None] * (3 * len(things) + 1), dtype=object)
    places = [3 * i + 1 for i in order]
    for place, thing in zip(places, things, strict=True):
        whole[place] = thing
    return whole.loc[places]


def array(things: list) -> np.ndarray:
    if all(isinstance(thing, str | int | float) for thing in things):
        return np.array(things)
    made = np.empty(len(things), dtype=object)
    for i, thing in enumerate(things):
        made[i] = thing
    return made


KINDS = {
    "tuple": lambda things, order: tuple(things),
    "generator": lambda things, order: (thing for thing in things),
    "values of a dict": lambda things, order: dict(enumerate(things)).values(),
    "column": column,
    "array": lambda things, order: array(things),
}

# Each door, as a function of what turns a list into another kind of the same things.
PAIRS = [
    Counterfactual("When Mary got home,", "When John got home,", " he"),
    Counterfactual("When Tom got home,", "When Anna got home,", " she"),
]


def edited(edit):
    """The logits of two runs in one intervention, for the second reads what the first may have used up."""
    with intervene(lm(), edit):
        return [lm().next_token_logits(WARM[0]) for _ in range(2)]


TEXTS = {
    "lm": lambda as_: lm()(as_(WARM)),
    "lm.tokens": lambda as_: lm().tokens(as_(WARM)),
    "lm.next_token_logits": lambda as_: lm().next_token_logits(as_(WARM)),
    "lm.top": lambda as_: lm().top(as_(WARM), 2),
    "lm.generate": lambda as_: lm().generate(as_(WARM), 2),
    "record": lambda as_: record(lm(), as_(WARM), "block_output").stack("block_output"),
    "patch_sweep": lambda as_: patch_sweep(
        lm(), as_(WARM[:1] * 2), as_(COLD[:1] * 2), as_([logit_diff(lm(), as_([" a", " b"]), as_([" c", " d"]))] * 2),
        layers=as_([0, 2]), positions=as_([1, -1]),
    ),
    "patch_sweep, heads": lambda as_: patch_sweep(
        lm(), WARM[0], COLD[0], probability(lm(), " a"), "query_output", layers=as_([0]), heads=as_([0, 2]), positions={"here": as_([1, 2])}["here"]
    ),
    "attribution_sweep": lambda as_: attribution_sweep(
        lm(), as_(WARM[:1]), as_(COLD[:1]), logit_diff(lm(), " a", " b"), layers=as_([0, 1]), positions=as_([1])
    ),
    "wrong_source_control": lambda as_: wrong_source_control(
        lm(), WARM[0], COLD[0], as_(WARM[:1] * 2), probability(lm(), " a"), layers=as_([1]), positions=as_([1])
    ),
    "causal_trace": lambda as_: causal_trace(lm(), "The sun is warm", as_([1, 2]), " today", layers=as_([0, 1]), samples=1),
    "average_traces": lambda as_: average_traces(as_([trace(), trace()])),
    "direct_logit_attribution": lambda as_: direct_logit_attribution(lm(), as_(WARM), as_([" a", " b", " c"]), as_([" d", " e", " f"])).total,
    "probability": lambda as_: probability(lm(), as_([" a", " b", " c"]))(lm().next_token_logits(WARM)),
    "rank": lambda as_: rank(lm(), as_([" a", " b", " c"]))(lm().next_token_logits(WARM)),
    "known": lambda as_: known(lm(), as_(facts("capital")[:3])),
    "truths": lambda as_: truths(as_(facts("country_of_city"))),
    "Site": lambda as_: Site("query_output", 1, positions=as_([1, 2]), heads=as_([0, 1])),
    "knock_out": lambda as_: edited(knock_out(Site("attention_weight", 1, positions=as_([2, 3])), as_([0, 1]))),
    "rows": lambda as_: record(lm(), WARM, NAMED).rows(as_([2, 0]))[NAMED],
    "counterfactual_pairs": lambda as_: counterfactual_pairs(as_(pronouns()[:6])),
    "interchange_accuracy": lambda as_: interchange_accuracy(lm(), NAMED, None, as_(PAIRS), answers=as_([" he", " she"])),
    "interchange_logits": lambda as_: interchange_logits(lm(), NAMED, None, as_(PAIRS)),
    "train_das": lambda as_: train_das(lm(), NAMED, RotatedSubspace(32, 1), as_(PAIRS), steps=1, answers=as_([" he", " she"]), force=True),
    "compare_subspaces": lambda as_: compare_subspaces(
        lm(), NAMED, as_(PAIRS[:1]), as_(PAIRS[1:]), ranks=as_([1, 2]), seeds=as_([0]), answers=as_([" he", " she"]), steps=1, force=True
    ).test,
    "class_means": lambda as_: class_means(torch.eye(4), as_(["a", "b", "a", "b"])).basis,
    "from_contrast": lambda as_: SteeringVector.from_contrast(lm(), as_(WARM), as_(COLD), as_([0, 1])),
    "from_context": lambda as_: SteeringVector.from_context(lm(), as_(WARM), as_(COLD), as_(["We went"]), 1, cues=as_(["I like"])),
    "train": lambda as_: SteeringVector.train(lm(), as_(WARM), 1, steps=1),
    "train on pairs": lambda as_: SteeringVector.train(lm(), as_([as_(["I", " am warm"]), as_(["We", " like it hot"])]), 1, steps=1),
    "steering_scores": lambda as_: steering_scores(lm(), as_(WARM), {"warm": as_(["warm", "hot"])}, **HOW | {"seeds": as_([0])}),
    "topic_scores": lambda as_: topic_scores(lm(), as_(WARM), as_(COLD), "warmth", as_(WARM)),
    "fair_test": lambda as_: fair_test(
        lm(), dataclasses.replace(vector(), strength=0.2), as_(WARM[:2]), {"warm": as_(["warm"])}, topic="warmth", left_out=as_(COLD), **HOW
    ).scores,
    "layer_sweep": lambda as_: layer_sweep(
        lm(), as_([vector()]), as_(WARM[:2]), {"warm": as_(["warm"])}, strengths=as_([0.2, 0.3]), samples=1, max_new_tokens=2
    ),
}  # fmt: skip


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and same(vars(one), vars(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@cache
def plainly(door: str):
    return TEXTS[door](list)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", TEXTS)
def test_a_door_takes_what_is_iterable(door, kind):
    as_ = lambda things: KINDS[kind](list(things), list(range(len(things)))[::-1])  # noqa: E731
    assert same(TEXTS[door](as_), plainly(door))


def test_every_door_is_tried():
    """What takes no more than one of a thing, or only tensors, is named here."""
    single = {"SAMPLING", "LanguageModel", "Sweep", "Activations", "load_model", "intervene", "personas", "facts", "pairs", "ioi", "pronouns", "wrong_sources",
              "embedding_std", "kl_divergence", "principal_angles", "principal_components", "RotatedSubspace", "BoundlessSubspace", "Counterfactual",
              "SteeringVector", "add", "apply", "clamp", "mean_ablate", "noise", "project_out", "replace", "swap_subspace", "zero", "logit_diff"}  # fmt: skip
    assert {name.partition(",")[0].partition(" ")[0] for name in TEXTS} >= set(interp_helpers.__all__) - single


@some_or_many(st.lists(st.sampled_from(WARM + COLD), min_size=1, max_size=4), st.sampled_from(sorted(KINDS)), st.data())
def test_prompts_and_words_in_any_order_and_kind(texts, kind, data):
    order = data.draw(st.permutations(range(len(texts))))
    words = data.draw(st.lists(st.sampled_from([" a", " he", "x", 262]), min_size=len(texts), max_size=len(texts)))
    words = [torch.tensor(word) if isinstance(word, int) else word for word in words]
    given = KINDS[kind](texts, order)
    logits = lm().next_token_logits(given)
    assert torch.equal(logits, lm().next_token_logits(texts))
    assert torch.equal(probability(lm(), KINDS[kind](words, order))(logits), probability(lm(), words)(logits))
    positive, negative = KINDS[kind](texts, order), KINDS[kind](["Neither here nor there"], [0])
    try:
        wanted = SteeringVector.from_contrast(lm(), texts, ["Neither here nor there"], 1)
    except ValueError:
        return
    assert torch.equal(SteeringVector.from_contrast(lm(), positive, negative, 1).direction, wanted.direction)


LISTS = {name: TEXTS[name] for name in ("from_contrast", "train", "steering_scores", "topic_scores", "fair_test", "layer_sweep", "known",
                                        "interchange_accuracy", "counterfactual_pairs")}  # fmt: skip


@pytest.mark.parametrize(
    "wrong", ["Warm", b"Warm", {"text": "Warm"}, pd.DataFrame({"text": WARM}), 3, None, np.array("Warm")], ids=repr
)
@pytest.mark.parametrize("door", LISTS)
def test_what_is_no_list_is_refused_and_never_taken_apart(door, wrong):
    with pytest.raises(ValueError, match="was expected|was given|were expected"):
        LISTS[door](lambda things: wrong)


@pytest.mark.parametrize("gap", [None, float("nan"), 3, ["Warm", "cold"]])
def test_a_gap_in_a_column_is_told(gap):
    with pytest.raises(ValueError, match="strings all, and number 1 of it is"):
        SteeringVector.from_contrast(lm(), pd.Series(["I am warm", gap], dtype=object), COLD, 1)
    with pytest.raises(ValueError, match="number 1 of it is"):
        steering_scores(lm(), ["I am", gap], {"warm": ["warm"]}, **HOW)


def test_rows_of_tables():
    frame = pd.DataFrame(
        {"base": [p.base for p in PAIRS], "source": [p.source for p in PAIRS], "label": [p.label for p in PAIRS]}
    )
    wanted = interchange_logits(lm(), NAMED, None, PAIRS)
    for rows in (frame.itertuples(index=False), frame.to_numpy(), frame.to_numpy().tolist()):
        assert torch.equal(interchange_logits(lm(), NAMED, None, rows), wanted)
    with pytest.raises(ValueError, match=r"of a row with these keys Counterfactual\(\*\*row\)"):
        interchange_logits(lm(), NAMED, None, frame.to_dict("records"))
    with pytest.raises(ValueError, match=r"a table was given: choose a column, such as table\['base'\], or the rows"):
        interchange_logits(lm(), NAMED, None, frame)
    with pytest.raises(ValueError, match="a table, or a row of one, was given"):
        lm()(pd.DataFrame({"text": WARM}))
    bank = pd.DataFrame([vars(fact) for fact in facts("capital")[:3]])
    assert [fact.answer for fact in known(lm(), bank.itertuples())] == [
        fact.answer for fact in known(lm(), facts("capital")[:3])
    ]
    with pytest.raises(ValueError, match=r"of a row with these keys make prompts.Fact\(row\['prompt'\]"):
        known(lm(), bank.to_dict("records"))


def test_numbers_come_as_arrays_too():
    h = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(principal_components(h.numpy(), 2).basis, principal_components(h, 2).basis)
    assert torch.equal(class_means(h.numpy(), [0, 1] * 3).basis, class_means(h, [0, 1] * 3).basis)
    assert torch.equal(principal_angles(h.numpy()[0], h[1]), principal_angles(h[0], h[1]))
    noise = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(0))
    ways = (
        causal_trace(lm(), "The sun is warm", "sun", " today", layers=[1], noise=one) for one in (noise, noise.numpy())
    )
    assert same(*ways)

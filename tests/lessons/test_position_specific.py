"""What notebook 04 works out beside its experiments."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import gpt2_tokenizer, tiny, tiny_model

from interp_helpers import LanguageModel, ioi, record
from interp_helpers.lessons.position_specific import experiment
from interp_helpers.sweeps import Head, Sweep


def at_last(shares: list[float], layers: list[int]) -> Sweep:
    labels = {"layer": layers, "position": ["S2", "last token"]}
    values = torch.tensor([[0.0, share] for share in shares])
    return Sweep(values, tuple(labels), labels, torch.zeros(()), torch.ones(()), metric="m", component="c")


def heads_of(lm) -> Sweep:
    labels = {"layer": list(range(lm.n_layers)), "head": list(range(lm.n_heads))}
    values = torch.zeros(lm.n_layers, lm.n_heads)
    values[9, 9] = 0.31
    return Sweep(values, tuple(labels), labels, torch.zeros(()), torch.ones(()), metric="m", component="c")


@pytest.mark.parametrize("name", ["gpt2", "narrow"])
def test_the_papers_heads_stand_beside_those_of_gpt2_alone(name, capsys):
    lm = LanguageModel(tiny_model(num_hidden_layers=12, num_attention_heads=12, hidden_size=48), gpt2_tokenizer())
    lm.name = name
    experiment.beside_the_paper(lm, heads_of(lm))
    said = capsys.readouterr().out
    assert "Wang et al. (2022)" in said and "9.6" in said and "11.10" in said
    assert ("9.9 +31%" in said) == (name == "gpt2")
    assert ("another head there" in said) == (name != "gpt2")


def test_the_layers_follow_the_models_depth():
    for n in (3, 12, 26, 30, 80):
        layers = experiment.some_layers(tiny_of(n))
        assert layers[0] == 0 and layers[-1] == n - 1 and n // 2 in layers and len(layers) <= 16


def tiny_of(n: int):
    class Model:
        n_layers = n

    return Model


def test_when_the_last_token_gets_it():
    layers = [0, 4, 8]
    assert experiment.arrival(at_last([0.0, 0.6, 1.0], layers)) == 4
    assert experiment.arrival(at_last([0.0, 0.2, 0.3], layers)) == math.inf
    assert experiment.arrivals(4, math.inf).endswith(
        "moves a third at layer 4 (who is repeated) and at no layer (which name)"
    )


def test_both_halves_have_both_orders():
    bank = ioi(12)
    for half in experiment.halves(bank):
        assert (
            sum(bank[i].prompt.index(bank[i].indirect_object) < bank[i].prompt.index(bank[i].subject) for i in half)
            == 3
        )
    assert sorted(sum(experiment.halves(bank), [])) == list(range(12))


def test_where_a_head_looks():
    lm, bank = tiny("gpt2"), ioi(4)
    spots = experiment.spots(lm, bank)
    for i, one in enumerate(bank):
        tokens = lm.str_tokens(one.prompt)
        assert [tokens[spots[place][i]] for place in ("IO", "S1", "S2", "last token")] == [
            one.indirect_object, one.subject, one.subject, " to"]  # fmt: skip
        assert spots["S1"][i] < spots["S2"][i]
    patterns = record(lm, [one.prompt for one in bank], "attention_weight")
    table = experiment.looks(patterns, {"1.2 from the last": (Head(1, 2), spots["last token"])}, spots)
    place = table.labels["place"].index("S2")
    weights = patterns["attention_weight", 1][:, 2]
    wanted = sum(weights[i, spots["last token"][i], spots["S2"][i]].item() for i in range(4)) / 4
    assert table.values[place, 0].item() == pytest.approx(wanted, abs=1e-6)
    assert experiment.target(table, Head(1, 2)) in spots


def test_the_prediction_about_direct_effects():
    both = {Head(5, 1): (0.4, 0.5), Head(4, 0): (0.0, 0.4), Head(3, 3): (0.3, 0.3)}
    choice, why = experiment.directly(both)
    assert choice == experiment.DIRECTLY[1] and why == "5.1: total 50%, direct 40%; 4.0: total 40%, direct 0%"


def test_the_opening_pair_is_eiffel_and_colosseum_where_nothing_is_known():
    pair = experiment.opening_pair(tiny("gpt2"))
    assert (pair.base_subject, pair.source_subject) == ("Colosseum", "Eiffel Tower")

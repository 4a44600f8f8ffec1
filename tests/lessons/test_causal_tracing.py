"""Notebook 02's own arithmetic."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny

from interp_helpers import facts
from interp_helpers.lessons.causal_tracing import experiment


@pytest.fixture(scope="module")
def lm():
    return tiny("gpt2")


def test_the_facts_come_from_every_family_and_not_at_position_0(lm):
    bank = experiment.bank_of(lm, each=2)
    assert [fact.family for fact in bank] == [family for family in experiment.FAMILIES for _ in range(2)]
    assert all(lm.find(fact.prompt, fact.subject)[0] > 0 for fact in bank)
    assert experiment.opening_fact(lm).subject == "Eiffel Tower"  # this model knows none


def test_layers_go_from_the_first_to_the_last(lm):
    assert experiment.spread_layers(lm, 12) == [0, 1, 2] and experiment.spread_layers(lm, 2) == [0, 2]


def test_a_window_and_its_picture():
    assert experiment.window_at(0, 6, 30) == range(0, 3) and experiment.window_at(29, 6, 30) == range(26, 30)
    assert "layers 1 to 2 together:  0 ·■◆· 3" in experiment.picture_of_window(2, 2, 4)


def test_traces_at_one_role_are_those_among_all_roles(lm):
    bank = experiment.bank_of(lm, each=1)
    every, one = (experiment.traces_of(lm, bank, at=at) for at in ("every role", "last subject token"))
    found = experiment.at_role(every, "last subject token")
    assert found.shape == (4, 3)
    torch.testing.assert_close(found, experiment.at_role(one, "last subject token"), atol=1e-8, rtol=1e-3)
    mean, error = experiment.with_error(found)
    torch.testing.assert_close(mean, found.mean(0))
    torch.testing.assert_close(error, found.std(0) / 2)
    assert "That is little" in experiment.fall_of(every, bank)


def test_which_map_is_stronger():
    class Map:
        def __init__(self, *values):
            self.values = torch.tensor([values])

    names = [
        experiment.stronger(Map(m, 0.0), Map(a, 0.0), [0])[0] for m, a in ((0.5, 0.1), (0.1, 0.5), (0.5, 0.45), (0, 0))
    ]
    assert names == list(experiment.CHOICES)


def test_a_flat_top_is_named():
    layers, values = [0, 4, 8], torch.tensor([0.36, 0.42, 0.1])
    peak, told = experiment.peak_of(layers, values, torch.tensor([0.07, 0.07, 0.07]))
    assert peak == 4 and "also lie 0." in told
    assert "No other layer" in experiment.peak_of(layers, values, torch.tensor([0.01, 0.01, 0.01]))[1]


def test_the_single_layer_in_its_windows():
    percent, told = experiment.single_in_windows(
        torch.tensor([0.3, 0, 0, 0]), [0, 1, 3], torch.tensor([0.3, 0.4, 0.1]), 2
    )
    assert percent == 75
    assert "that contain it reach 0.40, centred at 1" in told and "without it reach 0.10, centred at 3" in told


def test_another_fact_has_another_answer():
    bank = facts("country_of_city")[:6]
    assert all(other.answer != fact.answer for fact, other in zip(bank, experiment.another_of(bank), strict=True))


def test_the_own_stream_at_the_last_block_changes_nothing(lm):
    bank = experiment.bank_of(lm, each=1)
    effects = experiment.restored_from(lm, bank, bank, lm.n_layers - 1)
    torch.testing.assert_close(effects, torch.zeros(4), atol=1e-7, rtol=0)


def test_an_edit_of_nothing_changes_nothing(lm):
    edits = experiment.CityEdits(lm, n=2)
    delta = edits.find_delta(1)
    assert delta.shape == (2, lm.d_model) and delta.norm(dim=-1).min() > 0
    kept = edits.measure(
        1, 0 * delta, lambda x, output, key, delta: output + (x @ key / (key @ key))[..., None] * delta
    )
    assert kept["another city keeps its answer"] == pytest.approx(edits.unedited(), rel=1e-4)

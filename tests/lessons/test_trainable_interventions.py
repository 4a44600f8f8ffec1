"""The arithmetic of notebook 3."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny

from interp_helpers import Counterfactual, RotatedSubspace, Site, interchange_logits, pronouns
from interp_helpers.lessons.trainable_interventions import experiment


@pytest.mark.parametrize("about, equal", [("a = b", ((0, 1), (2, 3))), ("a = c", ((0, 2), (1, 3)))])
def test_the_label_takes_one_comparison_from_the_source(about, equal):
    def true_in(inputs, pair):
        vectors = inputs.view(len(inputs), 4, 4)
        return (vectors[:, pair[0]] == vectors[:, pair[1]]).all(1)

    bases, sources, labels = experiment.stacked(experiment.pairs_about(about, 400, seed=1))
    assert bases.shape == (400, 16) and torch.equal(
        labels.bool(), true_in(sources, equal[0]) == true_in(bases, equal[1])
    )
    assert 0.4 < true_in(sources, equal[0]).float().mean() < 0.6 and 0.4 < labels.float().mean() < 0.6
    assert not torch.equal(bases, sources)


def test_a_short_training_leaves_the_threads_and_the_random_state_alone():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    network = experiment.trained_network(steps=2)
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    assert network(torch.zeros(3, 16)).shape == (3, 2) and not any(p.requires_grad for p in network.parameters())
    assert torch.equal(network[0].weight, experiment.trained_network(steps=2)[0].weight)


def test_layers_that_carry():
    assert experiment.last_carrying([0, 3, 6, 9], [1.0, 0.89, 0.95, 0.2]) == 6
    assert experiment.last_carrying([0, 3, 6], [0.1, 0.3, 0.2]) == 3, "none does: the largest"
    assert experiment.last_carrying([0, 3], [1.0, 1.0]) == 3
    assert experiment.first_carrying([0, 3, 6, 9], [0.0, 0.1, 0.95, 1.0]) == 6
    assert experiment.first_carrying([0, 3, 6], [0.1, 0.3, 0.2]) == 3


def test_what_the_predictions_come_to():
    assert experiment.what_became(1.0, 1.00001) == "stays where it was"
    assert (experiment.what_became(1.0, 0.5), experiment.what_became(0.5, 1.0)) == ("falls", "rises")
    assert [experiment.how_well(iia, 0.98) for iia in (0.97, 0.7, 0.5)] == [
        "as well",
        "not as well, but better than chance",
        "no better than chance",
    ]


def test_pairs_of_one_pronoun():
    names = pronouns()[:6]
    pairs = experiment.same_pronoun_pairs(names)
    answers = {fact.prompt: fact.answer for fact in names}
    assert len(pairs) == 4 and all(answers[pair.base] == answers[pair.source] == pair.label for pair in pairs)
    assert all(pair.base != pair.source for pair in pairs)


def test_a_model_that_knows_too_little_is_told_of(capsys):
    lm = tiny()
    bank, knows = experiment.pronoun_bank(lm, least=81)
    assert not knows and bank == pronouns() and "gets the pronoun of only" in capsys.readouterr().out
    few, knows = experiment.pronoun_bank(lm, least=0)
    assert knows and len(few) < 80 and set(few) < set(bank)


def test_a_direction_splits_into_what_is_read_and_what_is_not():
    lm = tiny()
    site = Site("mlp_activation", 1, 1)
    direction = RotatedSubspace(site.place(lm).shape[-1], 1)
    read, unread = experiment.read_and_unread(lm, site, direction)
    assert torch.allclose(read + unread, direction.basis.detach(), atol=1e-6) and abs(read.T @ unread) < 1e-6
    pairs = [pair._replace(base=pair.base, label=" he") for pair in experiment.same_pronoun_pairs(pronouns()[:8])]
    changed = interchange_logits(lm, site, unread / unread.norm(), pairs) - lm.next_token_logits(
        [p.base for p in pairs]
    )
    assert changed.abs().max() < 1e-4 and unread.norm() > 0.1


def test_the_whole_stream_goes_all_the_way_and_an_equal_token_nowhere():
    lm = tiny()
    she, he = pronouns()[:2]
    pairs = [Counterfactual(she.prompt, he.prompt, he.answer), Counterfactual(he.prompt, she.prompt, she.answer)]
    last = Site("block_output", lm.n_layers - 1, -1)
    assert experiment.shares_moved(lm, last, {"all": None}, pairs)["all"][0] == pytest.approx(1.0, abs=1e-4)
    first = Site("block_output", 0, 0)  # “When” is the same in both
    assert experiment.shares_moved(lm, first, {"all": None}, pairs)["all"] == pytest.approx((0.0, 0.0), abs=1e-4)

"""What notebook 05 calls an outcome, on outcomes made up for it."""

from __future__ import annotations

import pytest
import torch

from interp_helpers.lessons.collecting_activations import experiment
from interp_helpers.sweeps import Erasure, Sweep

LAYERS, READ = [3, 9, 15, 21], [0.6, 0.95, 0.99, 0.95]


@pytest.mark.parametrize(
    "shares, answer, needed, idle",
    [
        ([1.0, 0.1, 0.4, 1.0], "it depends on the layer", 1, 3),
        ([0.0, 0.1, 0.2, 0.3], "at all of them almost nothing", 1, None),
        ([0.0, 1.0, 0.9, 0.95], "at all of them almost everything", 2, 3),
        ([0.0, 0.6, 0.6, 0.6], "it depends on the layer", 1, None),
    ],
)
def test_what_came_of_erasing(shares, answer, needed, idle):
    found = Erasure(LAYERS, READ, [(share, 0.1) for share in shares])
    assert (experiment.came_of(found), found.needed, found.idle) == (answer, needed, idle)
    title = found.figure({"another": found.left}, name="the means").alt
    assert title.startswith(f"Without the means\nlayer {LAYERS[needed]}: read with")
    assert ("\nlayer 21: read" in title) == (idle == 3)


@pytest.mark.parametrize("readable, clear", [([0.5] * 4, True), (READ, False)])
def test_nothing_is_said_of_layers_where_nothing_was_found(readable, clear):
    found = Erasure(LAYERS, readable, [(0.1, 0.1)] * 4, clear)
    assert found.sure == [] and found.needed is None and found.idle is None
    assert experiment.came_of(found).startswith("neither")
    assert found.figure({}, name="the means").alt.startswith("No layer here")


@pytest.mark.parametrize("shares, arrived, seen", [([0.0, 0.7, 0.4, 1.0], 1, 0.5), ([0.0, 0.2, 0.1, 0.3], 3, 1.0)])
def test_where_half_of_the_answer_arrives(shares, arrived, seen):
    values, axes = torch.tensor(shares)[:, None], ("layer", "position")
    one = torch.tensor(1.0)
    labels = {"layer": [0, 1, 2, 3], "position": ["last token"]}
    sweep = Sweep(values, axes, labels, 0 * one, one, "share", "block_output")
    lens = experiment.Lens(torch.tensor([[900.0, 70], [800, 7], [30, 3], [1, 1]]), sweep)
    assert (lens.arrived, lens.seen) == (arrived, seen)
    assert lens.said.endswith("1.") and f"from layer {arrived}" in lens.said
    assert lens.figure().alt.startswith(f"At layer {arrived} the stream moves {shares[arrived]:.0%}")


@pytest.mark.parametrize(
    "plain, negated, said",
    [
        (0.95, 0.1, "weren't there"),
        (0.95, 0.5, "near guessing"),
        (0.95, 0.9, "as well"),
        (0.6, 0.1, "hardly reads"),
    ],
)
def test_what_is_said_of_negation(plain, negated, said):
    assert said.lower() in experiment.said_of_negation(plain, negated).lower()


def test_words_are_readable():
    assert experiment.words([(" Paris", 0.6563), (" the", 0.05)]) == "' Paris' 66%, ' the' 5%"

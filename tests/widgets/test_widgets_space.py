"""Activation space: the plane in which the texts differ most, and what lies in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny

from interp_helpers import Site, SteeringVector, record
from interp_helpers.plotting.display import VIEW
from interp_helpers.widgets import space_explorer

GROUPS = {
    "sea": ["The boat is on the sea", "We saw the waves", "The fish in the deep"],
    "road": ["The car is on the road", "We saw the trees along it", "The birds in the air"],
}


@pytest.fixture
def lm():
    return tiny("gpt2")


@pytest.fixture
def space(lm):
    up = SteeringVector(torch.arange(lm.d_model).float(), 1, name="up", model=lm.name, scale=0.3)
    return space_explorer(lm, GROUPS, {"up": up, "noise": up.random(1)})


def by_hand(lm, layer: int) -> torch.Tensor:
    texts = [text for group in GROUPS.values() for text in group]
    site = Site("block_output", layer)
    return torch.stack([record(lm, text, site)[site][0, 1:].mean(0) for text in texts])


def test_the_plane_is_that_of_the_two_first_principal_components(space, lm):
    for layer in range(lm.n_layers):
        points = by_hand(lm, layer)
        apart = (points - points.mean(0)).numpy()
        values, vectors = np.linalg.eigh(apart.T @ apart)
        seen = torch.cat(list(space.choose(layer=layer).points().values())).numpy()
        assert np.allclose(seen @ seen.T, apart @ vectors[:, -2:] @ vectors[:, -2:].T @ apart.T, atol=1e-4)
        assert space.drawn() == pytest.approx(values[-2:].sum() / values.sum(), abs=1e-4)
        assert space.points()["sea"].mean(0).min() >= -1e-6, "the first group lies to the right and up"


def test_shares_are_of_a_vectors_length(space, lm):
    _, axes = space.plane()
    space.vectors["within"] = SteeringVector(3 * axes[0] - axes[1], 1, model=lm.name)
    assert space.shares()["within"] == pytest.approx(1.0, abs=1e-5)
    assert 0 <= space.shares()["noise"] < 1


def test_nearest_counts_texts_by_the_middles_of_their_groups(space):
    points = space.points()
    middles = {name: group.mean(0) for name, group in points.items()}
    right = [
        min(middles, key=lambda one: (middles[one] - point).norm()) == name
        for name, group in points.items()
        for point in group
    ]
    assert space.nearest() == pytest.approx(sum(right) / len(right))


def test_arrows_are_drawn_at_their_own_layer_with_their_strength(space, lm):
    assert space.layer == 1 and "arrow up from" in space.picture.alt
    assert "arrow" not in space.choose(layer=0).picture.alt
    vector = space.vectors["up"]
    _, axes = space.choose(layer=1).plane()
    arrow = next(text for text in space.picture.figure.axes[0].texts if text.arrow_patch is not None)
    start = space.points()["road"].mean(0)
    assert np.allclose(arrow.xy, start + 0.3 * vector.scale * (axes @ vector.direction), atol=1e-4)


def test_a_sentence_of_ones_own_lies_where_the_same_text_lies(space):
    space.choose(sentence=GROUPS["sea"][1])
    star = next(text for text in space.picture.figure.axes[0].texts if text.get_text() == "your sentence")
    assert np.allclose(star.xy, space.points()["sea"][1], atol=1e-4)
    assert "your sentence" not in space.choose(sentence="").picture.alt


def test_the_form_follows_slider_and_sentence(space):
    form = space.widget
    slider, sentence, picture = form.children
    assert VIEW in space._repr_mimebundle_() and "Layer 1" in picture.value
    slider.value = 0
    assert space.layer == 0 and "Layer 0" in picture.value
    sentence.value = "We saw the sea"
    assert space.sentence == "We saw the sea" and "your sentence" in picture.value
    sentence.value = "x"
    assert "is a single token" in picture.value and space.sentence == "We saw the sea"
    assert space.widget is form


@pytest.mark.parametrize("layer, shown", [(99, 2), (-1, 0)])
def test_a_layer_past_an_end_is_at_the_end(lm, layer, shown):
    space = space_explorer(lm, GROUPS).choose(layer=layer)
    assert space.layer == shown and repr(space).startswith(f"Layer {shown}: ")


def test_what_cannot_be_drawn_is_refused(lm):
    with pytest.raises(ValueError, match="two groups or more"):
        space_explorer(lm, {"sea": GROUPS["sea"]})
    with pytest.raises(ValueError, match="two texts or more"):
        space_explorer(lm, {"sea": GROUPS["sea"], "one": ["The road is long"]})
    with pytest.raises(ValueError, match="start='sky' is none: sea, road"):
        space_explorer(lm, GROUPS, start="sky")

"""The steering panel writes with the library what it shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import tiny

from interp_helpers import SAMPLING, SteeringVector
from interp_helpers.plotting.display import VIEW
from interp_helpers.widgets import steering_explorer

PROMPTS = ["Yesterday we", "The <b>lake</b> is"]


@pytest.fixture
def panel():
    lm = tiny("gpt2")
    up = SteeringVector(torch.arange(lm.d_model).float(), 1, name="up", model=lm.name, scale=0.3)
    return steering_explorer(lm, {"up": up, "noise": up.random(1)}, PROMPTS, max_new_tokens=6)


def test_it_shows_what_generate_writes(panel):
    lm = panel.lm
    assert panel.base == lm.generate(PROMPTS[0], 6, seed=0, **SAMPLING)
    steered = panel.steered
    with panel.vector.apply(lm, 0.3):
        assert steered == lm.generate(PROMPTS[0], 6, seed=0, **SAMPLING) != panel.base
    panel.choose(strength=0.5, where="prompt", seed=3, vector=panel.choices["vector"]["noise"])
    steered = panel.steered
    with panel.vector.apply(lm, 0.5, where="prompt"):
        assert steered == lm.generate(PROMPTS[0], 6, seed=3, **SAMPLING)
    assert "noise at strength 0.50" in repr(panel)


def test_no_strength_is_no_steering(panel):
    assert panel.choose(strength=0.0).steered == panel.base


def test_text_is_shown_as_text(panel):
    page = panel.choose(prompt=PROMPTS[1]).html
    assert "&lt;b&gt;lake" in page and "<b>lake" not in page and "unsteered" in page and "up at strength 0.30" in page


def test_the_slider_writes_anew_and_a_chooser_keeps_its_strength(panel):
    form = panel.widget
    controls = {control.description: control for control in form.children[:-1]}
    assert list(controls) == ["vector", "prompt", "where", "seed", "strength"]
    controls["strength"].value = -0.45
    assert panel.strength == pytest.approx(-0.45) and "strength -0.45" in form.children[-1].value
    controls["where"].value = "new"
    assert panel.where == "new" and "strength -0.45" in form.children[-1].value
    assert panel.widget is form and VIEW in panel._repr_mimebundle_()


def test_a_strong_vectors_slider_and_choose_have_one_limit(panel):
    strong = replace(panel.vector, strength=1.5)
    panel = steering_explorer(panel.lm, {"strong": strong}, PROMPTS, max_new_tokens=2)
    slider = panel.widget.children[-2]
    assert (slider.min, slider.max, slider.value) == (-1.5, 1.5, 1.5)
    slider.value = 0.2
    assert panel.choose(strength=-1.5).strength == -1.5 and panel.widget.children[-2].max == 1.5
    slider.value = 1.5
    assert panel.strength == 1.5
    with pytest.raises(ValueError, match=r"strength=1.6 is out of the panel's range, -1.5 to 1.5"):
        panel.choose(strength=1.6)


def test_bad_choices_are_refused(panel):
    with pytest.raises(ValueError, match="out of the panel's range"):
        panel.choose(strength=3.0)
    with pytest.raises(ValueError, match="not among the choices"):
        panel.choose(where="later")
    with pytest.raises(ValueError, match="needs vectors"):
        steering_explorer(panel.lm, {}, PROMPTS)


def test_it_opens_at_a_text_with_one_of_the_words(panel):
    lm, prompt = panel.lm, PROMPTS[:1]
    texts = [panel.choose(seed=seed).steered for seed in range(5)]
    word = next(word for word in texts[2].split() if word.isalpha() and not any(word in text for text in texts[:2]))
    vectors = panel.choices["vector"]
    assert steering_explorer(lm, vectors, prompt, max_new_tokens=6, words=[word]).seed == 2
    assert steering_explorer(lm, vectors, prompt, max_new_tokens=6, words=["nowhere"]).seed == 0

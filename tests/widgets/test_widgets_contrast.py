"""The form for a vector of one's own builds what the library builds, and shows what `generate` writes."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny

from interp_helpers import SAMPLING, SteeringVector
from interp_helpers.plotting.display import VIEW
from interp_helpers.widgets import contrast, contrast_builder

HAVING = ["The boat is on the <sea>", "We saw the waves", "The fish in the deep"]
LACKING = ["The car is on the road", "We saw the trees along it", "The birds in the air"]
PROMPTS = ["Yesterday we", "The lake is"]


@pytest.fixture
def builder():
    return contrast_builder(tiny("gpt2"), 1, PROMPTS).clear()


def test_it_builds_the_librarys_vector_and_shows_its_texts(builder):
    lm = builder.lm
    vector = builder.fill(name="the sea", having=HAVING, lacking=LACKING).build()
    wanted = SteeringVector.from_contrast(lm, HAVING, LACKING, 1, name="the sea")
    assert torch.equal(vector.direction, wanted.direction) and vector.provenance == wanted.provenance
    assert (vector.strength, vector.mode, vector.name) == (0.35, "clamp", "the sea") and builder.vector is vector
    base = lm.generate(PROMPTS, contrast.LENGTH, seed=0, **SAMPLING)
    with vector.apply(lm):
        steered = lm.generate(PROMPTS, contrast.LENGTH, seed=0, **SAMPLING)
    lines = repr(builder).splitlines()
    assert lines[0] == "the sea: the difference between 3 and 3 sentences, at layer 1, strength 0.35."
    text = repr(builder)
    for prompt, one, other in zip(PROMPTS, base, steered, strict=True):
        assert f"unsteered: {prompt}{one}" in text and f"steered:   {prompt}{other}" in text
    assert "unsteered" in builder.html and "&lt;sea&gt;" in builder.html and "<sea>" not in builder.html


def test_what_is_not_filled_in_is_not_attempted(builder):
    assert set(builder.contrast.values()) == {...}
    with pytest.raises(ValueError, match="Both lists are needed"):
        builder.fill(having=HAVING).build()
    assert builder.vector is None and repr(builder) == "Nothing built yet."
    with pytest.raises(ValueError, match="no field 'texts': name, having, lacking, words"):
        builder.fill(texts=HAVING)


def test_filling_in_forgets_what_was_built(builder):
    builder.fill(having=HAVING, lacking=LACKING).build()
    assert builder.fill(lacking=LACKING[:2]).vector is None and repr(builder) == "Nothing built yet."


def test_a_form_whose_cell_is_run_again_keeps_the_sentences(builder):
    builder.fill(name="the sea", words=["sea"])
    (name, words), (having, lacking) = (
        [side.children[1] for side in row.children] for row in builder.widget.children[:2]
    )
    having.value, lacking.value = "\n".join(HAVING), "\n".join(LACKING)
    again = contrast_builder(builder.lm, 1, PROMPTS)
    assert again.contrast == builder.contrast and again.contrast["having"] == HAVING and again.vector is None
    again.fill(name="the ocean")
    assert builder.contrast["name"] == "the sea", "the old form keeps its own"
    assert set(again.clear().contrast.values()) == {...}
    assert set(contrast_builder(builder.lm, 1).contrast.values()) == {...}


def test_the_code_makes_the_same_form_again(builder):
    builder.fill(name="the sea", having=HAVING, lacking=LACKING, words=["sea"])
    names = {"contrast_builder": contrast_builder, "lm": builder.lm}
    exec(builder.code, names)  # put into the form's cell, it is what the next cell calls `builder`
    again = names["builder"]
    assert builder.code.endswith("\nbuilder"), "and the cell shows the form"
    assert again.contrast == builder.contrast and again.layer == builder.layer
    assert again.prompts == builder.prompts


def test_the_form_reads_lines_and_builds_at_the_press_of_its_button(builder):
    form = builder.widget
    assert VIEW in builder._repr_mimebundle_()
    (name, words), (having, lacking) = ([side.children[1] for side in row.children] for row in form.children[:2])
    button, said = form.children[2:]
    button.click()
    assert "Both lists are needed" in said.value and not button.disabled
    name.value, words.value = " the sea ", "sea, wave , ,boat"
    having.value, lacking.value = "\n".join(HAVING) + "\n\n", "\n".join(LACKING)
    assert builder.contrast == {
        "name": "the sea",
        "having": HAVING,
        "lacking": LACKING,
        "words": ["sea", "wave", "boat"],
    }
    button.click()
    assert "the sea: the difference between 3 and 3 sentences" in said.value and not button.disabled
    assert builder.widget is form, "the form that is shown stays the one that is kept"
    words.value = "sea"
    assert builder.vector is None and repr(builder) == "Nothing built yet.", "what was built is of other words"
    lacking.value = "x"
    button.click()
    assert "is a single token" in said.value
    having.value = "  "
    assert builder.contrast["having"] is ...


def test_a_form_that_is_filled_in_shows_it():
    builder = contrast_builder(tiny("gpt2"), 1).clear().fill(name="the sea", having=HAVING, words=["sea", "wave"])
    (name, words), (having, lacking) = (
        [side.children[1] for side in row.children] for row in builder.widget.children[:2]
    )
    assert (name.value, words.value) == ("the sea", "sea, wave")
    assert having.value.splitlines() == HAVING and lacking.value == ""

"""The explorer of heads: what it shows is what the library computes, live or not."""

from __future__ import annotations

import sys

import pytest
import torch
from pages import Page
from plain import close

from interp_helpers import Site, intervene, ioi, logit_diff, record, replace
from interp_helpers.plotting.display import VIEW
from interp_helpers.prompts.banks import IOIPrompt
from interp_helpers.widgets import heads_explorer
from interp_helpers.widgets import positions as widgets

MARY = IOIPrompt(
    "When Mary and John went home, John gave a book to",
    "When Mary and John went home, Kate gave a book to",
    " Mary",
    " John",
)
WHERE = {
    "indirect object": 1,
    "subject, first time": 3,
    "after it": 4,
    "subject, second time": 7,
    "last token": 11,
}


@pytest.fixture
def explorer(lm):
    return heads_explorer(lm, [MARY, *ioi(2)])


# -- what it computes ---------------------------------------------------------------------------------------------------


def test_it_begins_at_the_head_that_moves_most_at_the_last_token(explorer):
    moved = (explorer.sweep.values - explorer.sweep.base).abs()
    assert explorer.place == "last token"
    assert moved[explorer.layer, explorer.head] == moved.max() > 0


@pytest.mark.parametrize("place, position", WHERE.items())
def test_its_places_are_the_tokens_that_they_name(explorer, place, position):
    assert explorer.choose(place=place).position == position


def test_its_sweep_is_a_patch_of_one_head_at_one_token(explorer, lm):
    explorer.choose(place="subject, second time")
    acts = record(lm, MARY.prompt, "attention_value_output")
    with intervene(lm, replace(Site("attention_value_output", 1, positions=7, heads=2), acts)):
        wanted = logit_diff(lm, " Mary", " John")(lm.next_token_logits(MARY.corrupted))
    close(explorer.sweep.values[1, 2], wanted[0].cpu())


def test_another_indirect_object_is_another_question(explorer, lm):
    explorer.choose(change=widgets.CHANGES[1], place="indirect object")
    other = explorer.base.split()[1]
    assert explorer.base == MARY.prompt.replace("Mary", other) and other not in ("Mary", "John", "Kate")
    close(
        explorer.sweep.base,
        logit_diff(lm, " Mary", f" {other}")(lm.next_token_logits(explorer.base))[0].cpu(),
    )
    assert (explorer.sweep.values - explorer.sweep.base).abs().max() > 0


def test_before_the_first_difference_no_head_moves_anything(explorer):
    explorer.choose(place="subject, first time")
    assert (explorer.sweep.values - explorer.sweep.base).abs().max() < 1e-5


def test_its_attention_is_the_models(explorer, lm):
    explorer.choose(layer=1, head=3, place="subject, second time")
    for name, text in (("prompt", MARY.prompt), ("changed", MARY.corrupted)):
        pattern = record(lm, text, "attention_weight")["attention_weight", 1][0, 3, 7]
        tokens, weights = zip(*explorer.attention()[name], strict=True)
        assert list(tokens) == lm.str_tokens(text)
        close(torch.tensor(weights), pattern)


def test_a_sweep_is_computed_once(explorer, monkeypatch):
    assert explorer.html
    monkeypatch.setattr(widgets, "patch_sweep", None)
    assert explorer.choose(layer=0, head=1).html


# -- choosing -----------------------------------------------------------------------------------------------------------


def test_choose_refuses_what_cannot_be_chosen(explorer):
    with pytest.raises(ValueError, match="no 'colour' to choose: prompt, change, place, layer or head"):
        explorer.choose(colour="red")


def test_it_needs_a_prompt(lm):
    with pytest.raises(ValueError, match="at least one IOI prompt"):
        heads_explorer(lm, [])


# -- how it looks -------------------------------------------------------------------------------------------------------


def test_the_picture_has_a_cell_for_every_head_and_marks_the_chosen_one(explorer, lm):
    page = Page(explorer.choose(layer=2, head=1).html)
    cells = [a for a in page.attributes if a.get("title", "").startswith("layer ")]
    assert len(cells) == lm.n_layers * lm.n_heads
    assert [a["title"].split(":")[0] for a in cells if "3px" in a["style"]] == ["layer 2, head 1"]
    assert "Head 2.1" in page.text and "From token 11" in page.text


def test_the_picture_has_a_text_alternative(explorer):
    (picture,) = (a for a in Page(explorer.html).attributes if a.get("role") == "img")
    for part in (MARY.prompt, MARY.corrupted, "token 11 (last token)", "Red is up"):
        assert part in picture["aria-label"]


def test_tokens_are_escaped(lm):
    odd = IOIPrompt("If <b> Bob and Mary met, Mary saw", "If <b> Bob and Mary met, Kate saw", " Bob", " Mary")
    page = heads_explorer(lm, [odd]).html
    assert "<b>" not in page and "If <b> Bob and Mary met" in Page(page).text


def test_an_answer_of_several_tokens_is_refused(lm):
    odd = IOIPrompt("If <b> and Mary met, Mary saw", "If <b> and Mary met, Kate saw", " <b>", " Mary")
    with pytest.raises(ValueError, match="' <b>' is .* tokens"):
        heads_explorer(lm, [odd])


def test_the_bundle_has_widget_html_and_text(explorer):
    data = explorer._repr_mimebundle_()
    assert set(data) == {VIEW, "text/html", "text/plain"}
    assert data[VIEW]["model_id"] == explorer.widget.model_id
    assert data["text/html"] == explorer.html and data["text/plain"] == repr(explorer)


def test_without_ipywidgets_html_and_text_remain(explorer, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert set(explorer._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_the_text_form_says_where_the_head_looks(explorer):
    text = repr(explorer.choose(layer=1, head=3))
    assert "head 1.3 looks from token 11 at" in text
    assert [line.split(":")[0] for line in text.splitlines()[-2:]] == ["prompt", "changed"]


# -- the live form ------------------------------------------------------------------------------------------------------


def test_moving_a_slider_changes_the_picture(explorer):
    *_, layer, head, picture = explorer.choose(layer=0, head=0).widget.children
    before = picture.value
    layer.value = 2
    assert explorer.layer == 2 and picture.value == explorer.html != before
    before = picture.value
    head.value = 3
    assert explorer.head == 3 and picture.value == explorer.html != before


def test_choosers_change_the_picture(explorer):
    prompt, change, place, _, _, picture = explorer.widget.children
    place.value = "indirect object"
    assert "token 1 (indirect object)" in picture.value
    change.value = widgets.CHANGES[1]
    assert explorer.base in picture.value.replace("&#x27;", "'")
    prompt.value = prompt.options[1][1]
    assert prompt.value.prompt in picture.value and picture.value == explorer.html


def test_shown_again_the_live_form_has_the_present_choice(explorer):
    children = explorer.choose(place="after it", layer=0, head=2).widget.children
    assert (children[2].value, children[3].value, children[4].value) == ("after it", 0, 2)
    assert explorer.widget is explorer.widget

"""The patching explorer: what it shows is what the library computes, live or not."""

from __future__ import annotations

import sys

import plain
import pytest
from pages import Page

from interp_helpers import Site, intervene, pairs, patch_sweep, record, replace
from interp_helpers.plotting.display import VIEW
from interp_helpers.prompts.banks import Pair
from interp_helpers.widgets import patching as widgets
from interp_helpers.widgets import patching_explorer

SHORT = Pair("In Rome", "In Paris", "Rome", "Paris", " Italy", " France", "test")
LONG = Pair("The city of Rome is in", "The city of Paris is in", "Rome", "Paris", " Italy", " France", "test")
TAGS = Pair("<b>&x</b> is", "<i>&y</i> is", "x", "y", " a", " b", "test")


@pytest.fixture
def explorer(lm):
    return patching_explorer(lm, [LONG, SHORT, TAGS]).choose(layer=1, position=3)


# -- what it computes ---------------------------------------------------------------------------------------------------


def test_it_begins_in_the_middle_layer_at_the_token_that_moves_most(lm):
    explorer = patching_explorer(lm, [LONG])
    moved = (explorer.sweep.values - explorer.sweep.base)[lm.n_layers // 2].abs()
    assert explorer.layer == lm.n_layers // 2 and explorer.position == int(moved.argmax())


def test_a_layer_past_the_last_is_the_last(lm):
    explorer = patching_explorer(lm, [LONG]).choose(layer=99)
    assert explorer.layer == lm.n_layers - 1 and f"patched at layer {explorer.layer}" in repr(explorer)


def test_its_sweep_is_the_librarys(explorer, lm):
    metric = widgets.logit_diff(lm, " France", " Italy")
    plain.close(explorer.sweep.values, patch_sweep(lm, LONG.base, LONG.source, metric, normalize=True).values)
    explorer.choose(component="MLP", metric="probability of the source's answer")
    metric = widgets.probability(lm, " France")
    plain.close(explorer.sweep.values, patch_sweep(lm, LONG.base, LONG.source, metric, "mlp_output").values)


def test_a_patch_that_changes_nothing_has_no_divergence(explorer):
    explorer.choose(metric="KL from the base run")
    values = explorer.sweep.values
    assert values[:, :3].abs().max() < 1e-5, "tokens before the city are the same in both prompts"
    assert values[:, 3:].max() > 1e-4


@pytest.mark.parametrize("component, name", widgets.COMPONENTS.items())
def test_its_next_tokens_are_those_of_a_patch_by_hand(explorer, lm, component, name):
    stream = plain.seen(lm, LONG.source, name, 1)

    def put_in(h):
        h[:, 3] = stream[:, 3]

    for run, logits in {
        "base": plain.run(lm, LONG.base),
        "patched": plain.run(lm, LONG.base, (name, 1, put_in)),
        "source": plain.run(lm, LONG.source),
    }.items():
        shares, ids = logits[0, -1].softmax(-1).topk(5)
        shown = explorer.choose(component=component).top_tokens()[run]
        assert [token for token, _ in shown] == [lm.tokenizer.decode([i]) for i in ids]
        assert [share for _, share in shown] == pytest.approx(shares.tolist(), rel=1e-3)


def test_its_next_tokens_are_those_of_a_patch_with_the_library(explorer, lm):
    acts = record(lm, LONG.source, "block_output")
    with intervene(lm, replace(Site("block_output", 2, -1), acts)):
        first = lm.top(LONG.base, 3)
    shown = explorer.choose(layer=2, position=len(explorer.tokens) - 1).top_tokens(3)["patched"]
    assert [token for token, _ in shown] == [token for token, _ in first]


def test_a_sweep_is_computed_once(explorer, monkeypatch):
    swept = []
    monkeypatch.setattr(
        widgets, "patch_sweep", lambda *arguments, **more: swept.append(1) or patch_sweep(*arguments, **more)
    )
    for _ in range(2):
        for component in widgets.COMPONENTS:
            assert explorer.choose(component=component).html
            assert explorer.choose(layer=0, position=1).html
    assert len(swept) == len(widgets.COMPONENTS) - 1, "the first one was computed for the site chosen at first"


# -- choosing -----------------------------------------------------------------------------------------------------------


def test_choose_changes_what_is_shown(explorer):
    assert explorer.choose(layer=2, position=0) is explorer
    assert 'data-layer="2" data-position="0"' in explorer.html and "'The'" in explorer.html.replace("&#x27;", "'")


def test_a_position_past_a_shorter_prompt_moves_to_its_end(explorer):
    assert explorer.choose(position=5, pair=SHORT).position == len(explorer.tokens) - 1 == 1


def test_choose_refuses_what_cannot_be_chosen(explorer):
    with pytest.raises(ValueError, match="no 'colour' to choose: pair, component, metric, layer or position"):
        explorer.choose(colour="red")


def test_it_needs_a_pair(lm):
    with pytest.raises(ValueError, match="at least one pair"):
        patching_explorer(lm, [])


def test_it_takes_the_courses_pairs(lm):
    assert "glassbox-site" in patching_explorer(lm, pairs("capital")[:2]).html


# -- how it looks -------------------------------------------------------------------------------------------------------


def test_the_picture_has_a_cell_for_every_site_and_marks_the_chosen_one(explorer, lm):
    cells = [a for a in Page(explorer.html).attributes if a.get("title", "").startswith("layer ")]
    assert len(cells) == lm.n_layers * len(explorer.tokens)
    assert [a["title"].split(":")[0] for a in cells if "3px" in a["style"]] == ["layer 1,  Rome"]


def test_the_picture_has_a_text_alternative(explorer):
    (picture,) = (a for a in Page(explorer.html).attributes if a.get("role") == "img")
    for part in (LONG.source, LONG.base, "residual stream", "Red is positive, blue negative"):
        assert part in picture["aria-label"]


def test_tokens_are_escaped(lm):
    page = Page(patching_explorer(lm, [TAGS]).html)
    assert set(page.tags) == {"table", "caption", "tr", "th", "td", "code", "div", "strong"}
    assert "<b>&x</b> is" in page.text and "<i>&y</i> is" in page.text


def test_the_bundle_has_widget_html_and_text(explorer):
    data = explorer._repr_mimebundle_()
    assert set(data) == {VIEW, "text/html", "text/plain"}
    assert data[VIEW]["model_id"] == explorer.widget.model_id
    assert data["text/html"] == explorer.html and data["text/plain"] == repr(explorer)


def test_without_ipywidgets_html_and_text_remain(explorer, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert set(explorer._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_the_text_form_names_the_site_and_the_next_tokens(explorer):
    text = repr(explorer)
    assert "patched at layer 1, token 3" in text
    assert [line.split(":")[0] for line in text.splitlines()[-3:]] == ["base", "patched", "source"]


# -- the live form ------------------------------------------------------------------------------------------------------


def test_moving_a_slider_changes_the_picture(explorer):
    *_, layer, position, picture = explorer.widget.children
    before = picture.value
    layer.value = 2
    assert explorer.layer == 2 and picture.value == explorer.html != before
    before = picture.value
    position.value = 0
    assert explorer.position == 0 and picture.value == explorer.html != before


def test_choosers_change_the_picture(explorer):
    pair, component, metric, _, position, picture = explorer.widget.children
    component.value = "attention"
    assert "Patching the attention" in picture.value
    metric.value = "KL from the base run"
    assert "KL(" in picture.value
    position.value = 5
    pair.value = SHORT
    assert "In Paris" in picture.value and position.max == position.value == explorer.position == 1
    pair.value = LONG
    assert position.max == 5 and "in the city" not in picture.value and picture.value == explorer.html


def test_the_live_form_begins_with_what_is_chosen(lm):
    explorer = patching_explorer(lm, [LONG, SHORT]).choose(pair=SHORT, component="MLP", layer=0, position=1)
    pair, component, metric, layer, position, picture = explorer.widget.children
    assert (pair.value, component.value, layer.value, position.value) == (SHORT, "MLP", 0, 1)
    assert (layer.max, position.max) == (lm.n_layers - 1, 1) and picture.value == explorer.html
    assert explorer.widget is explorer.widget


def test_shown_again_the_live_form_has_the_present_choice(explorer):
    *_, layer, position, _ = explorer.widget.children
    *_, later, _, picture = explorer.choose(layer=2).widget.children
    assert later.value == 2 and picture.value == explorer.html
    layer.value = 0  # the first form still works, and is the one that now shows what is chosen
    assert explorer.layer == 0 and explorer.widget.children[3] is layer

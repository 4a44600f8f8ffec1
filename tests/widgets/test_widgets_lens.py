"""The lens explorer: what it shows is what the library computes, live or not."""

from __future__ import annotations

import sys

import plain
import pytest
from pages import Page

from interp_helpers import record
from interp_helpers.plotting.display import VIEW
from interp_helpers.widgets import lens as widgets
from interp_helpers.widgets import lens_explorer

LONG, SHORT, TAGS = "The city of Rome is in", "In Rome", "<b>&x</b> is"


@pytest.fixture
def explorer(lm):
    return lens_explorer(lm, [LONG, SHORT, TAGS]).choose(layer=1, position=3)


# -- what it computes ---------------------------------------------------------------------------------------------------


def test_it_begins_in_the_middle_layer_at_the_last_token(lm):
    explorer = lens_explorer(lm, [LONG])
    assert explorer.layer == lm.n_layers // 2 and explorer.position == len(explorer.tokens) - 1


def test_the_lens_is_the_norm_and_the_unembedding_of_each_blocks_output(explorer, lm):
    for layer in range(lm.n_layers):
        stream = plain.seen(lm, LONG, "block_output", layer)[0]
        shares, ids = lm.anatomy.unembedding(lm.anatomy.norm(stream)).softmax(-1).max(-1)
        assert [token for token, _ in explorer.top[layer]] == [lm.tokenizer.decode([i]) for i in ids]
        assert [share for _, share in explorer.top[layer]] == pytest.approx(shares.tolist(), rel=1e-4)
        plain.close(explorer.norms[layer], stream.norm(dim=-1))


def test_in_the_last_layer_it_is_the_models_own_answer(explorer, lm):
    explorer.choose(layer=lm.n_layers - 1, position=len(explorer.tokens) - 1)
    assert [token for token, _ in explorer.top_tokens(4)] == [token for token, _ in lm.top(LONG, 4)]


def test_a_prompt_is_run_once(explorer, monkeypatch):
    runs = []
    monkeypatch.setattr(widgets, "record", lambda *arguments: runs.append(1) or record(*arguments))
    for prompt in (LONG, SHORT, LONG):
        for shade in widgets.SHADES:
            assert explorer.choose(prompt=prompt, shade=shade, layer=0).html
    assert len(runs) == 2


def test_a_choice_past_an_end_is_at_the_end(lm):
    for layer, position, site in [(99, 99, (lm.n_layers - 1, 5)), (-1, -99, (0, 0))]:
        explorer = lens_explorer(lm, [LONG]).choose(layer=layer, position=position)
        assert (explorer.layer, explorer.position) == site and f"at layer {site[0]}, token {site[1]} " in repr(explorer)


# -- choosing -----------------------------------------------------------------------------------------------------------


def test_choose_changes_what_is_shown(explorer):
    assert explorer.choose(layer=2, position=0) is explorer
    assert 'data-layer="2" data-position="0"' in explorer.html and "'The'" in explorer.html.replace("&#x27;", "'")


def test_a_position_past_a_shorter_prompts_end_moves_to_its_end(explorer):
    assert explorer.choose(prompt=SHORT).position == len(explorer.tokens) - 1 == 1


def test_choose_refuses_what_cannot_be_chosen(explorer):
    with pytest.raises(ValueError, match="no 'colour' to choose: prompt, shade, layer or position"):
        explorer.choose(colour="red")


@pytest.mark.parametrize("prompts", [[], LONG], ids=["none", "a bare string"])
def test_it_needs_a_list_of_prompts(lm, prompts):
    with pytest.raises(ValueError, match="a list of at least one prompt"):
        lens_explorer(lm, prompts)


# -- how it looks -------------------------------------------------------------------------------------------------------


def test_the_picture_has_a_cell_for_every_site_and_marks_the_chosen_one(explorer, lm):
    cells = [a for a in Page(explorer.html).attributes if a.get("title", "").startswith("layer ")]
    assert len(cells) == lm.n_layers * len(explorer.tokens)
    assert [a["title"].split(":")[0] for a in cells if "3px" in a["style"]] == ["layer 1,  Rome"]
    assert cells[0]["title"].startswith(f"layer {lm.n_layers - 1}, "), "the last layer is at the top"


@pytest.mark.parametrize("shade", widgets.SHADES)
def test_the_darkest_cell_has_the_largest_of_what_is_shaded(explorer, shade):
    explorer.choose(shade=shade)
    sites = [(layer, position) for layer in range(len(explorer.top)) for position in range(len(explorer.tokens))]
    darkest = max(sites, key=lambda site: explorer.darkness(*site))
    largest = {
        widgets.SHADES[0]: max(sites, key=lambda site: explorer.top[site[0]][site[1]][1]),
        widgets.SHADES[1]: max(sites, key=lambda site: explorer.norms[site]),
    }
    assert darkest == largest[shade] and shade in explorer.html


def test_tokens_are_escaped_and_stay_on_one_line(lm):
    page = Page(lens_explorer(lm, [TAGS]).html)
    assert set(page.tags) == {"table", "caption", "tr", "th", "td", "code", "div", "strong", "span"}
    assert "<b>&x</b> is" in page.text
    assert [widgets.shown_token(token) for token in (" ", "  ", "\n", " a")] == ["␣", "␣␣", "\\n", " a"]


def test_the_bundle_has_widget_html_and_text(explorer):
    data = explorer._repr_mimebundle_()
    assert set(data) == {VIEW, "text/html", "text/plain"}
    assert data[VIEW]["model_id"] == explorer.widget.model_id
    assert data["text/html"] == explorer.html and data["text/plain"] == repr(explorer)


def test_without_ipywidgets_html_and_text_remain(explorer, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert set(explorer._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_the_text_form_names_the_site_and_what_the_lens_reads(explorer):
    text = repr(explorer)
    assert "at layer 1, token 3 (' Rome'): norm" in text
    assert repr(explorer.top_tokens()[0][0]) in text


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
    prompt, shade, _, position, picture = explorer.widget.children
    shade.value = widgets.SHADES[1]
    assert "the larger the norm" in picture.value
    position.value = 5
    prompt.value = SHORT
    assert "In Rome" in picture.value and position.max == position.value == explorer.position == 1
    prompt.value = LONG
    assert position.max == 5 and picture.value == explorer.html


def test_shown_again_the_live_form_has_the_present_choice(explorer):
    *_, layer, position, _ = explorer.widget.children
    *_, later, _, picture = explorer.choose(layer=2).widget.children
    assert later.value == 2 and picture.value == explorer.html
    layer.value = 0  # the first form still works, and is the one that now shows what is chosen
    assert explorer.layer == 0 and explorer.widget.children[2] is layer

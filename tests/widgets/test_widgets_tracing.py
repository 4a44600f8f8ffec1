"""The tracing explorer computes what it shows, with the library."""

from __future__ import annotations

import pytest
import torch
from plain import close
from tiny import tiny

from interp_helpers import causal_trace, facts
from interp_helpers.plotting.display import VIEW
from interp_helpers.widgets import tracing_explorer

FACTS = [fact for fact in facts("capital") if fact.prompt.startswith("The capital of")][:2]


@pytest.fixture(scope="module")
def explorer():
    return tracing_explorer(tiny("gpt2"), FACTS)


def test_the_map_is_the_trace_s_indirect_effect(explorer):
    fact = FACTS[0]
    for component, name in (("residual stream", "block_output"), ("MLP", "mlp_output")):
        explorer.choose(component=component, window=3, noise=1.0)
        trace = causal_trace(explorer.lm, fact.prompt, fact.subject, fact.answer, name, window=3, noise=1.0, samples=3)
        close(explorer.sweep.values, trace.indirect_effect.values, atol=1e-9)
    explorer.choose(component="residual stream", window=1, noise=3.0)


def test_the_table_shows_the_three_runs_and_restoring_the_last_site_is_the_clean_one(explorer):
    explorer.choose(layer=2, position=99)
    assert explorer.position == len(explorer.tokens) - 1
    top = explorer.top_tokens()
    assert list(top) == ["clean", "corrupted", "restored"]
    assert [token for token, _ in top["restored"]] == [token for token, _ in top["clean"]]
    assert top["corrupted"] != top["clean"]
    assert explorer.top_tokens(3)["clean"] == top["clean"][:3]


def test_it_is_readable_without_widgets(explorer):
    text = repr(explorer)
    assert "restored at layer" in text and "total effect" in text
    page = explorer.html
    assert "under 3.0 σ of noise" in page and "corrupted run" in page and 'role="img"' in page


def test_the_form_changes_the_choice(explorer):
    explorer.choose(fact=FACTS[0], layer=1, position=1)
    form = explorer.widget
    controls = {control.description: control for control in form.children[:-1]}
    assert list(controls) == ["fact", "component", "window", "noise", "layer", "token"]
    controls["noise"].value = 10.0
    controls["fact"].value = FACTS[1]
    assert explorer.noise == 10.0 and explorer.fact is FACTS[1]
    assert FACTS[1].prompt in form.children[-1].value and "under 10.0 σ" in form.children[-1].value
    assert explorer.widget is form
    data = explorer._repr_mimebundle_()
    assert VIEW in data and "text/plain" in data


def test_bad_choices_are_refused(explorer):
    with pytest.raises(ValueError, match="fact, component, window, noise, layer or position"):
        explorer.choose(metric="rank")
    with pytest.raises(ValueError, match="at least one fact"):
        tracing_explorer(explorer.lm, [])


def test_noise_shown_is_the_noise_traced(explorer):
    explorer.choose(fact=FACTS[0], noise=3.0, component="residual stream", window=1, layer=0, position=0)
    state = torch.get_rng_state()
    assert explorer.top_tokens()["corrupted"] == explorer.top_tokens()["restored"]  # nothing was corrupted at token 0
    assert torch.equal(state, torch.get_rng_state())

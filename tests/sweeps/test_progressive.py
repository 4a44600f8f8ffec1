"""Sweeps that come in steps: each is the whole one's part, and the last is the whole one."""

from __future__ import annotations

import pytest
import torch
from plain import assert_untouched, close, snapshot
from tiny import tiny

from interp_helpers import Site, add, causal_trace, intervene, logit_diff, patch_sweep, probability
from interp_helpers.engine import Stopped, cells, stop_when

BASE, SOURCE = "The Colosseum stands in the town of", "The Eiffel Tower is in the city of"


@pytest.fixture
def lm():
    return tiny("llama", num_hidden_layers=12)


def metric(lm):
    return logit_diff(lm, " Paris", " Rome")


def agree(part, whole):
    assert (part.axes, part.metric, part.component) == (whole.axes, whole.metric, whole.component)
    rows = [list(whole.labels["layer"]).index(layer) for layer in part.labels["layer"]]
    assert rows == sorted(rows) and part.labels[part.axes[-1]] == whole.labels[whole.axes[-1]]
    close(part.values, whole.values.movedim(-2, 0)[rows].movedim(0, -2))
    close(part.base, whole.base)
    close(part.source, whole.source)
    if whole.error is not None:
        close(part.error, whole.error[rows])


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"component": "mlp_output", "window": 3}, {"layers": [9, 1, 2, 5, 7, 0]}, {"positions": {"end": -1}}],
)
def test_a_sweep_in_steps(lm, options, resumable, monkeypatch):
    if not resumable:
        monkeypatch.setattr(cells, "can_resume", lambda lm: False)
    whole = patch_sweep(lm, BASE, SOURCE, metric(lm), **options)
    steps = list(patch_sweep(lm, BASE, SOURCE, metric(lm), progressive=True, **options))
    layers = [set(step.labels["layer"]) for step in steps]
    assert len(steps) > 1 and all(a < b for a, b in zip(layers, layers[1:], strict=False))
    asked = whole.labels["layer"]
    assert len(layers[0]) <= 5 and {asked[0], asked[-1]} <= layers[0], "from the first to the last"
    for step in steps:
        if "layers" not in options:
            agree(step, whole)
    assert list(steps[-1].labels["layer"]) == list(asked)
    close(steps[-1].values, whole.values)


def test_pairs_metrics_heads_and_shares_in_steps(lm):
    given = dict(component="attention_value_output", heads=[0, 3], normalize=True)
    prompts, metrics = ([BASE, SOURCE], [SOURCE, BASE]), [metric(lm), probability(lm, " Paris")]
    whole = patch_sweep(lm, *prompts, metrics, **given)
    for step in patch_sweep(lm, *prompts, metrics, progressive=True, **given):
        for part, one in zip(step, whole, strict=True):
            agree(part, one)
    close(step[0].values, whole[0].values)


def test_a_trace_in_steps(lm):
    given = dict(subject="Colosseum", answer=" Paris", samples=3)
    whole = causal_trace(lm, BASE, **given)
    steps = list(causal_trace(lm, BASE, **given, progressive=True))
    for step in steps:
        agree(step, whole)
        agree(step.indirect_effect, whole.indirect_effect)
    assert len(steps) == 3 and steps[-1].labels == whole.labels
    assert (steps[0].subject, steps[0].length, steps[0].places) == (whole.subject, whole.length, whole.places)


def test_nothing_hangs_on_the_model_between_steps(lm):
    before = snapshot(lm)
    for _ in patch_sweep(lm, BASE, SOURCE, metric(lm), progressive=True):
        assert_untouched(lm, before)
        lm(BASE)  # and it may be used
    assert_untouched(lm, before)


@pytest.mark.parametrize("change", ["hook", "weight"])
def test_a_model_that_is_changed_between_steps_is_measured_anew(change):
    lm = tiny("llama", num_hidden_layers=12)
    steps, taken = patch_sweep(lm, BASE, SOURCE, metric(lm), progressive=True), None
    next(steps)
    block = lm.anatomy.blocks[7]
    if change == "hook":
        taken = block.register_forward_hook(lambda module, args, output: output * 1.3)
    else:
        block.mlp.down_proj.weight.data.mul_(3)
    try:
        last = list(steps)[-1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cells, "can_resume", lambda lm: False)
            agree(last, patch_sweep(lm, BASE, SOURCE, metric(lm)))
    finally:
        if taken:
            taken.remove()
        else:
            block.mlp.down_proj.weight.data.div_(3)


def test_what_does_not_fit_is_told_at_once(lm):
    with pytest.raises(ValueError, match="to sweep over every token all must be equally long"):
        patch_sweep(lm, BASE, "One two three", metric(lm), progressive=True)
    with pytest.raises(ValueError, match="does not occur in"):
        causal_trace(lm, BASE, "Louvre", " Paris", progressive=True)


@pytest.mark.parametrize("resumable", [True, False])
def test_it_stops_when_it_is_asked_to(lm, resumable, monkeypatch):
    if not resumable:
        monkeypatch.setattr(cells, "can_resume", lambda lm: False)
    before, asked = snapshot(lm), []

    def enough():
        asked.append(1)
        return len(asked) > 3

    with stop_when(enough), pytest.raises(Stopped):
        patch_sweep(lm, BASE, SOURCE, metric(lm))
    assert len(asked) == 4
    assert_untouched(lm, before)
    assert patch_sweep(lm, BASE, SOURCE, metric(lm), layers=[3]).values.isfinite().all(), "nobody asks any more"


def test_inside_an_intervention_it_comes_in_steps_too(lm):
    with intervene(lm, add(Site("block_output", 2), torch.ones(lm.d_model))):
        whole = patch_sweep(lm, BASE, SOURCE, metric(lm))
        for step in patch_sweep(lm, BASE, SOURCE, metric(lm), progressive=True):
            agree(step, whole)

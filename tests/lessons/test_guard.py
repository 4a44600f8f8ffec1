"""After a check the model is as it was, whatever the answer did to it; and the learner is told."""

from __future__ import annotations

import plain
import pytest
import torch
from tiny import tiny

from interp_helpers import Site, intervene, zero
from interp_helpers.course import check, passes, registry, written_for
from interp_helpers.course.exercises import exercise
from interp_helpers.lessons.guard import untouched


@pytest.fixture
def model():
    """A tiny GPT-2 of one's own, and that it ends as it began."""
    lm = tiny("gpt2")
    written_for(lm)
    before = plain.snapshot(lm)
    yield lm
    plain.assert_untouched(lm, before)


@pytest.fixture
def two(monkeypatch, tmp_path):
    """An exercise whose answer is 2, or a function that returns it."""
    monkeypatch.setenv("INTERP_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setitem(registry.ITEMS, "exercise", dict(registry.ITEMS["exercise"]))

    @exercise("guarded.two", number=1, title="Two", difficulty=1, minutes=1)
    def _(answer, lm):
        assert (answer(lm) if callable(answer) else answer) == 2, "that isn't two"

    return "guarded.two"


def hooks(lm):
    lm.model.lm_head.register_forward_hook(lambda *_: None)
    lm.model.register_forward_pre_hook(lambda *_: None)


def an_open_block(lm):
    kept.append(intervene(lm, zero(Site("attention_weight", 1))))
    kept[-1].__enter__()


def a_forward(lm):
    def forward(*args, **kwargs):
        return None

    forward.__module__ = "__main__"
    lm.model.transformer.h[1].mlp.forward = forward


def no_gradients(lm):
    torch.set_grad_enabled(False)


def training(lm):
    lm.model.train()


kept: list = []
LEAVES = {
    hooks: "leaves 2 hooks on the model",
    an_open_block: "leaves an `intervene` open",
    a_forward: "leaves a hook on the model",
    no_gradients: "switches gradients off",
    training: "leaves the model in training mode",
}


@pytest.mark.parametrize("leave", LEAVES, ids=lambda leave: leave.__name__)
@pytest.mark.parametrize("when", ["before", "in the check"])
def test_what_is_left_is_taken_off_and_said(model, two, leave, when):
    def answer(lm):
        leave(lm)
        return 2

    if when == "before":
        verdict = check(two, answer(model), lm=model)
    else:
        verdict = check(two, answer, lm=model)
    assert verdict.status == "not yet" and LEAVES[leave] in verdict.message
    assert check(two, 2, lm=model).status == "correct"


def test_it_is_said_once_and_beside_what_is_wrong_with_the_answer(model, two):
    def answer(lm):
        hooks(lm)
        return 3

    message = check(two, answer, lm=model).message
    assert message.index("that isn't two") < message.index("hooks on the model") and message.count("hooks on") == 1


def test_a_cell_that_was_not_tried_is_not_blamed(model, two):
    hooks(model)
    assert check(two, ..., lm=model).status == "not attempted"


def test_changed_weights_are_said_once(model, two):
    weight = model.model.transformer.h[0].mlp.c_fc.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] += 1
    assert "changed the model's weights (transformer.h.0.mlp.c_fc.weight)" in check(two, 2, lm=model).message
    assert check(two, 2, lm=model).status == "correct"
    with torch.no_grad():
        weight.copy_(kept)


def test_a_model_that_is_not_handed_over_is_found_in_the_notebook(model, monkeypatch):
    monkeypatch.setattr("__main__.lm", model, raising=False)
    hooks(model)
    with untouched({}) as left:
        pass
    assert len(left) == 1 and "2 hooks" in left[0]


def test_gradients_on_the_weights_are_cleared_without_a_word(model, two):
    def answer(lm):
        lm.next_token_logits(" a", grad=True).sum().backward()
        return 2

    assert passes(two, answer, lm=model)


def test_transformers_own_hooks_stay(model, two):
    model.model(torch.tensor([[1, 2]]), output_hidden_states=True)
    assert passes(two, 2, lm=model)
    assert len(model.model(torch.tensor([[1, 2]]), output_hidden_states=True).hidden_states) == 4

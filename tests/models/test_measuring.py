"""Measuring leaves a model's mode alone and doesn't depend on it; wrappers are entered, or named in a sentence."""

from __future__ import annotations

import copy

import pytest
import torch
from plain import close
from tiny import tiny, tiny_model
from torch import nn

from interp_helpers import (
    LanguageModel,
    RotatedSubspace,
    Site,
    causal_trace,
    interchange_logits,
    intervene,
    logit_diff,
    patch_sweep,
    record,
    train_das,
    zero,
)

BASE, SOURCE = "The Colosseum stands in the town of", "The Eiffel Tower is in the city of"


# -- evaluation mode ----------------------------------------------------------------------------------------------------


@pytest.fixture
def training():
    """A model with dropout, put into training mode after `lm` was made, but for one block; and the modes that it has."""
    lm = tiny("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    expected = lm(BASE)
    lm.model.train()
    lm.anatomy.blocks[1].eval()
    return lm, expected, [module.training for module in lm.model.modules()]


MEASURED = {
    "call": lambda lm: lm(BASE),
    "next token": lambda lm: lm.next_token_logits(BASE),
    "record": lambda lm: record(lm, BASE, "mlp_output").stack("mlp_output"),
    "logits of a record": lambda lm: record(lm, BASE, "mlp_output").logits,
    "generate": lambda lm: torch.tensor(list(map(ord, lm.generate(BASE, 5)))),
    "sweep": lambda lm: patch_sweep(lm, BASE, SOURCE, logit_diff(lm, " a", " the")).values,
    "trace": lambda lm: causal_trace(lm, BASE, "Colosseum", " a", samples=2).values,
    "interchange": lambda lm: interchange_logits(lm, Site("block_output", 1, -1), None, [(BASE, SOURCE, " a")]),
}


@pytest.mark.parametrize("what", MEASURED)
def test_measuring_is_in_evaluation_mode_and_leaves_the_mode(training, what):
    lm, expected, modes = training
    found = MEASURED[what](lm)
    assert torch.equal(found, MEASURED[what](lm))  # nothing is dropped out
    assert [module.training for module in lm.model.modules()] == modes
    lm.model.eval()
    close(found, MEASURED[what](lm))
    close(lm(BASE), expected)


def test_the_mode_comes_back_when_a_run_fails(training):
    lm, _, modes = training
    handle = lm.anatomy.blocks[2].register_forward_hook(lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lm(BASE)
    handle.remove()
    assert [module.training for module in lm.model.modules()] == modes


def test_a_call_of_the_model_itself_keeps_its_mode(training):
    lm, _, _ = training
    tokens = lm.tokens(BASE)
    assert not torch.equal(lm.model(tokens).logits, lm.model(tokens).logits)


def test_das_learns_in_evaluation_mode(training):
    lm, _, modes = training
    found = []
    for _ in range(2):
        subspace = RotatedSubspace(lm.d_model, rank=2)
        pairs = [(BASE, SOURCE, " a"), (SOURCE, BASE, " the")]
        found.append(train_das(lm, Site("block_output", 1, -1), subspace, pairs, steps=3, force=True).loss)
    assert found[0] == found[1] and [module.training for module in lm.model.modules()] == modes


# -- wrappers -----------------------------------------------------------------------------------------------------------


def compiled(model, way: str):
    torch._dynamo.reset()
    if way == "wrapper":
        return torch.compile(model, backend="eager")
    for module in [model] if way == "in place" else model.model.layers:
        module.compile(backend="eager")
    return model


@pytest.mark.parametrize("way", ["wrapper", "in place", "blocks"])
def test_a_compiled_model_is_measured_as_it_was_written(way):
    plain = tiny("llama")
    one = LanguageModel(compiled(copy.deepcopy(plain.model), way), plain.tokenizer, way)
    one.model(one.tokens(BASE))  # whatever compiling leaves behind is there
    close(one(BASE), plain(BASE))
    close(record(one, BASE, "mlp_output").stack("mlp_output"), record(plain, BASE, "mlp_output").stack("mlp_output"))
    found = []
    for lm in (one, plain):
        with intervene(lm, zero(Site("mlp_output", 1, -1))):
            found += [lm.next_token_logits(BASE), lm.model(lm.tokens(BASE)).logits[:, -1]]
        found.append(patch_sweep(lm, BASE, SOURCE, logit_diff(lm, " a", " the")).values)
    for ours, theirs in zip(found[:3], found[3:], strict=True):
        close(ours, theirs)


class Adapted(nn.Module):
    """What PEFT's wrapper looks like: the adapters are in the model, and `get_base_model` gives it."""

    def __init__(self, model, is_prompt_learning: bool = False):
        super().__init__()
        self.base_model, self.config = model, model.config
        self.peft_config = {"default": type("Config", (), {"is_prompt_learning": is_prompt_learning})()}

    def get_base_model(self):
        return self.base_model

    def forward(self, *args, **kwargs):
        return self.base_model.forward(*args, **kwargs)


def test_adapters_in_the_model_are_measured_with_it_and_may_be_switched_off():
    tokenizer, model = tiny("llama").tokenizer, copy.deepcopy(tiny_model("llama"))
    plain = LanguageModel(copy.deepcopy(model), tokenizer)
    projection = model.model.layers[1].mlp.down_proj

    class Adapter(nn.Module):
        def __init__(self):
            super().__init__()
            self.base_layer, self.scale = projection, 3.0

        @property
        def weight(self):
            return self.base_layer.weight

        def forward(self, x):
            return self.scale * self.base_layer(x)

    model.model.layers[1].mlp.down_proj = adapter = Adapter()
    lm = LanguageModel(Adapted(model), tokenizer)
    assert lm.model is model and not torch.allclose(lm(BASE), plain(BASE))
    adapter.scale = 1.0
    close(lm(BASE), plain(BASE))


def test_a_call_of_the_wrapper_inside_an_intervention_is_refused():
    wrapper = Adapted(copy.deepcopy(tiny_model("llama")))
    lm = LanguageModel(wrapper, tiny("llama").tokenizer)
    with pytest.raises(RuntimeError, match=r"call lm\(prompt\), or lm.model\(…\) itself, and not"):
        with intervene(lm, zero(Site("mlp_output", 1, -1))):
            wrapper(lm.tokens(BASE))


class Around(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.inner, self.config = model, model.config

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


@pytest.mark.parametrize(
    "wrap, says",
    [
        (lambda model: Adapted(model, True), "learnt vectors before every prompt"),
        (
            Around,
            "around a model was given, and hooks need the model itself: give the LlamaForCausalLM inside, .inner.",
        ),
    ],
)
def test_a_wrapper_that_changes_more_is_named(wrap, says):
    with pytest.raises(ValueError, match=says):
        LanguageModel(wrap(tiny_model("llama")), tiny("llama").tokenizer)

"""People change, wrap and call the model themselves: an `LanguageModel` made before says what one made afterwards says, and what
whole runs say; and a call inside an intervention is edited at its own tokens, or refused."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import close, greedy, run
from tiny import tiny, tiny_model
from torch import nn

from interp_helpers import (
    LanguageModel,
    Site,
    add,
    causal_trace,
    embedding_std,
    facts,
    interchange_logits,
    intervene,
    known,
    logit_diff,
    patch_sweep,
    record,
)
from interp_helpers.das import interchange
from interp_helpers.engine import cells

BASE, SOURCE, SHORT = "The Colosseum stands in the town of", "The Eiffel Tower is in the city of", "One two three"
FACTS = facts("capital")[:6]

few = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
many = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# -- a model that changes between two measurements ------------------------------------------------------------------------


def put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Another module in one's place."""
    name = next(name for name, module in model.named_modules() if module is old)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)


class Scaled(nn.Module):
    """An adapter around a projection, as PEFT's layers are."""

    def __init__(self, base_layer: nn.Module):
        super().__init__()
        self.base_layer = base_layer

    @property
    def weight(self):
        return self.base_layer.weight

    def forward(self, x):
        return 1.5 * self.base_layer(x)


class Controlled(nn.Module):
    """A block that a steering library has wrapped."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)

    def forward(self, hidden_states, *args, **kwargs):
        return self.block(hidden_states, *args, **kwargs) * 1.1


def new_head(lm):
    head = nn.Linear(lm.d_model, 50257, bias=False)
    head.weight.data = 1.5 * lm.model.lm_head.weight.data
    lm.model.lm_head = head


def new_embedding(lm):
    embedding = nn.Embedding(50257, lm.d_model)
    embedding.weight.data = 2 * lm.model.get_input_embeddings().weight.data
    lm.model.set_input_embeddings(embedding)


def new_norm(lm):
    norm = copy.deepcopy(lm.anatomy.norm)
    norm.weight.data = -norm.weight.data
    put(lm.model, lm.anatomy.norm, norm)


def edited_weight(lm):
    next(lm.anatomy.place("mlp_output", 1).module.parameters()).data.mul_(3)


def adapter(lm):
    projection = lm.anatomy.place("mlp_output", 1).module
    put(lm.model, projection, Scaled(projection))


def wrapped_block(lm):
    put(lm.model, lm.anatomy.blocks[1], Controlled(lm.anatomy.blocks[1]))


def other_block(lm):
    put(lm.model, lm.anatomy.blocks[1], copy.deepcopy(lm.anatomy.blocks[2]))
    lm.anatomy.blocks[1].self_attn.layer_idx = 1


def at_one_column(lm):
    mlp = lm.anatomy.place("mlp_input", 1).module
    forward = mlp.forward

    def edited(stream):
        out = forward(stream).clone()
        out[:, min(4, out.shape[1] - 1)] += 1
        return out

    mlp.forward = edited


def replaced_forward(lm):
    block = lm.anatomy.blocks[0]
    forward = block.forward
    block.forward = lambda hidden_states, *args, **kwargs: 0.7 * forward(hidden_states, *args, **kwargs)


def foreign_hook(lm):
    lm.anatomy.blocks[1].register_forward_hook(lambda module, args, output: output * 1.3)


def training(lm):
    lm.model.train()
    lm.model.config.attention_dropout = 0.5
    for block in lm.anatomy.blocks:
        block.self_attn.attention_dropout = 0.5


def kernel(lm):
    lm.model.set_attn_implementation("eager")


def double(lm):
    lm.model.double()


CHANGES = [
    new_head,
    new_embedding,
    new_norm,
    edited_weight,
    adapter,
    wrapped_block,
    other_block,
    at_one_column,
    replaced_forward,
    foreign_hook,
    training,
    kernel,
    double,
]


def metric(lm):
    return logit_diff(lm, " Paris", " Rome")


MEASURES = {
    "logits": lambda lm: lm.next_token_logits([BASE, SHORT]),
    "sweep": lambda lm: patch_sweep(lm, BASE, SOURCE, metric(lm)).values,
    "sweep of heads": lambda lm: (
        patch_sweep(lm, [BASE, SOURCE], [SOURCE, BASE], metric(lm), "attention_value_output", heads=[0, 2]).values
    ),
    "trace": lambda lm: causal_trace(lm, BASE, "Colosseum", " Paris", "mlp_output", samples=2, window=2).values,
    "interchange": lambda lm: interchange_logits(lm, Site("block_output", 1, 2), None, [(BASE, SOURCE, " a")]),
    "sigma": lambda lm: torch.tensor(embedding_std(lm)),
    "known": lambda lm: torch.tensor([fact in known(lm, FACTS) for fact in FACTS]),
    "record": lambda lm: record(lm, BASE, "mlp_output", "block_output").stack("block_output"),
    "logits of a record": lambda lm: record(lm, BASE, "block_output").logits,
}


def check_change(changes, before, after):
    lm = LanguageModel(copy.deepcopy(tiny_model("llama")), tiny("llama").tokenizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MEASURES[before](lm)
        for change in changes:
            change(lm)
        modes = [module.training for module in lm.model.modules()]
        found = MEASURES[after](lm)
        assert [module.training for module in lm.model.modules()] == modes
        fresh = LanguageModel(lm.model, lm.tokenizer)
        with pytest.MonkeyPatch.context() as patch:  # and a fresh one that runs everything whole
            for place in (cells, interchange):
                patch.setattr(place, "can_resume", lambda lm: False)
            expected = MEASURES[after](fresh)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


histories = given(
    st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3, unique=True),
    st.sampled_from(sorted(MEASURES)),
    st.sampled_from(sorted(MEASURES)),
)


@few
@histories
def test_an_old_lm_says_what_a_new_one_says(changes, before, after):
    check_change(changes, before, after)


@pytest.mark.slow
@many
@histories
def test_an_old_lm_says_what_a_new_one_says_at_length(changes, before, after):
    check_change(changes, before, after)


@pytest.mark.parametrize("after", MEASURES)
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen_by_every_measure(change, after):
    check_change([change], after, after)


# -- a call by somebody else inside an intervention -----------------------------------------------------------------------

VECTOR = torch.linspace(-3, 3, 32)
EDIT = add(Site("block_output", 1, -1), VECTOR)


def ids_of(lm, prompt):
    return torch.tensor([lm.tokenizer(prompt)["input_ids"]])


def edited(lm, prompt):
    return run(lm, prompt, ("block_output", 1, lambda h: h[:, -1].add_(VECTOR)))[:, -1]


def next_word(lm, prompt):
    return lm.tokenizer.decode(edited(lm, prompt).argmax(-1))


CALLS = {  # what comes out, and what should
    "lm": (lambda lm, prompt: lm(prompt)[:, -1], edited),
    "lm.next_token_logits": (lambda lm, prompt: lm.next_token_logits(prompt), edited),
    "lm.model": (lambda lm, prompt: lm.model(ids_of(lm, prompt)).logits[:, -1], edited),
    "lm.model by name": (
        lambda lm, prompt: lm.model(input_ids=ids_of(lm, prompt), attention_mask=ids_of(lm, prompt) * 0 + 1).logits[
            :, -1
        ],
        edited,
    ),
    "lm.model of embeddings": (
        lambda lm, prompt: lm.model(inputs_embeds=lm.anatomy.embedding(ids_of(lm, prompt))).logits[:, -1],
        edited,
    ),
    "lm.generate": (lambda lm, prompt: lm.generate(prompt, 1), next_word),
    "lm.model.generate": (
        lambda lm, prompt: lm.tokenizer.decode(
            lm.model.generate(ids_of(lm, prompt), max_new_tokens=1, do_sample=False, pad_token_id=0)[0, -1]
        ),
        next_word,
    ),
    "forward": (lambda lm, prompt: lm.model.forward(ids_of(lm, prompt)), None),
    "the inner model": (lambda lm, prompt: lm.model.transformer(ids_of(lm, prompt)), None),
    "a wrapper of the inner model": (lambda lm, prompt: nn.Sequential(lm.model.transformer)(ids_of(lm, prompt)), None),
}


def check_calls(lm, calls):
    """Calls one after the other in one intervention: each is edited at its own tokens, or refused."""
    found = []
    with torch.no_grad(), intervene(lm, EDIT):
        lm(SHORT)
        for name, prompt in calls:
            call, expected = CALLS[name]
            if expected is None:
                with pytest.raises(RuntimeError, match="which tokens these are isn't known"):
                    call(lm, prompt)
            else:
                found.append((call(lm, prompt), expected, prompt))
    for result, expected, prompt in found:
        if isinstance(result, str):
            assert result == expected(lm, prompt)
        else:
            close(result, expected(lm, prompt))


sequences = given(
    st.lists(st.tuples(st.sampled_from(sorted(CALLS)), st.sampled_from([BASE, SOURCE, SHORT])), min_size=1, max_size=4)
)


@few
@sequences
def test_a_call_inside_an_intervention_is_edited_at_its_own_tokens_or_refused(calls):
    check_calls(tiny("gpt2"), calls)


@pytest.mark.slow
@many
@sequences
def test_a_call_inside_an_intervention_is_edited_at_its_own_tokens_or_refused_at_length(calls):
    check_calls(tiny("gpt2"), calls)


def test_a_generation_of_the_models_own_is_that_of_lm(lm):
    with intervene(lm, EDIT):
        out = lm.model.generate(ids_of(lm, BASE), max_new_tokens=5, do_sample=False, pad_token_id=0)
        text = lm.tokenizer.decode(out[0, len(ids_of(lm, BASE)[0]) :])
        assert text == lm.generate(BASE, 5)
    length = len(ids_of(lm, BASE)[0])
    change = ("block_output", 1, lambda h: h[:, length - 1].add_(VECTOR))
    assert text == greedy(lm, BASE, 5, change)

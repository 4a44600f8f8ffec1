"""Every family keeps its parts where `anatomy` says, with the meaning that the names promise."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from plain import close
from tiny import FAMILIES, tiny

from interp_helpers import LanguageModel, Site, intervene, record, zero
from interp_helpers.models.anatomy import COMPONENTS, PER_HEAD

PROMPTS = ["The Eiffel Tower is in the city of", "One two three"]
PARALLEL = ("gpt_neox", "phi")  # attention and MLP both read the block's input
# The last projections of attention and MLP, as the models' code has them.
PARTS = dict.fromkeys(FAMILIES, ("self_attn.o_proj", "mlp.down_proj")) | {
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "opt": ("self_attn.out_proj", "fc2"),
    "phi": ("self_attn.dense", "mlp.fc2"),
}
NORM_AFTER = ("gemma2", "gemma3_text", "olmo2")  # what attention and MLP write is normalised before it is added


@cache
def model(family):
    return tiny(family)


@cache
def seen(family):
    return record(model(family), PROMPTS, *COMPONENTS)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def test_every_component_has_its_shape(family):
    lm, acts = model(family), seen(family)
    batch, length = acts.logits.shape[:2]
    config = lm.model.config
    grouped = getattr(config, "num_key_value_heads", None) or 4
    d_head = getattr(config, "head_dim", None) or 8
    assert (lm.n_layers, lm.n_heads, lm.d_model, lm.d_head) == (3, 4, 32, d_head)
    wide = 128 if family == "gpt2" else 48
    shapes = {
        **dict.fromkeys(("block_input", "block_output", "mlp_input", "mlp_output"), (32,)),
        **dict.fromkeys(("attention_input", "attention_output"), (32,)),
        **dict.fromkeys(("attention_value_output", "query_output"), (4, d_head)),
        **dict.fromkeys(("key_output", "value_output"), (grouped, d_head)),
        "mlp_activation": (wide,),
    }
    for component in COMPONENTS:
        for layer in range(3):
            if component == "attention_weight":
                assert acts[component, layer].shape == (batch, 4, length, length)
            else:
                assert acts[component, layer].shape == (batch, length, *shapes[component]), component
                assert lm.anatomy.place(component, layer).shape == shapes[component], component


def test_the_stream_leaves_a_block_as_it_enters_the_next(family):
    acts = seen(family)
    for layer in range(2):
        assert torch.equal(acts["block_output", layer], acts["block_input", layer + 1])


def test_the_stream_begins_as_the_embeddings(family):
    lm, acts = model(family), seen(family)
    tokens = lm.tokens(PROMPTS)
    parts, positions = lm.model.get_submodule(""), torch.arange(tokens.shape[1])
    with torch.no_grad():
        expected = lm.anatomy.embedding.weight[tokens]
        if family == "gpt2":
            expected = expected + parts.transformer.wpe.weight[positions]
        if family == "opt":
            expected = expected + parts.model.decoder.embed_positions.weight[positions + 2]
        if family.startswith("gemma"):
            expected = expected * 32**0.5
    close(acts["block_input", 0][0], expected[0])
    close(acts["block_input", 0][1, :3], expected[1, :3])


def test_unembed_turns_the_last_stream_into_the_model_s_logits(family):
    lm, acts = model(family), seen(family)
    logits = run_whole(lm)
    close(lm.unembed(acts["block_output", 2]), logits, atol=2e-4)  # eager attention changes the last digits
    close(acts.logits, logits, atol=2e-4)
    lens = lm.unembed(acts["block_output", 0], grad=False)
    assert lens.shape == logits.shape and (lens - logits).abs().max() > 0.1


def run_whole(lm):
    tokens = lm.tokens(PROMPTS)
    with torch.no_grad():
        return lm.model(tokens, attention_mask=tokens.attention_mask).logits


def test_a_model_that_ends_otherwise_says_so_when_logits_are_asked_for():
    lm = tiny("llama")
    forward = lm.model.forward

    def louder(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = 2 * output.logits
        return output

    lm.model.forward = louder
    acts = record(lm, PROMPTS, "block_output")
    assert acts["block_output", 1].shape[-1] == 32 and acts.next_token_logits.shape == (len(PROMPTS), 50257)
    with pytest.raises(RuntimeError, match=r"take them from lm\(prompts\)"):
        acts.logits  # noqa: B018


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in NORM_AFTER])
def test_a_block_adds_what_attention_and_mlp_write(family):
    acts = seen(family)
    for layer in range(3):
        written = acts["attention_output", layer] + acts["mlp_output", layer]
        close(acts["block_output", layer], acts["block_input", layer] + written)


@pytest.mark.parametrize("family", NORM_AFTER)
def test_where_norms_follow_the_outputs_are_taken_before_them(family):
    acts, blocks = seen(family), model(family).anatomy.blocks
    for layer, block in enumerate(blocks):
        with torch.no_grad():
            attention = block.post_attention_layernorm(acts["attention_output", layer])
            mlp = block.post_feedforward_layernorm(acts["mlp_output", layer])
        close(acts["block_output", layer], acts["block_input", layer] + attention + mlp)


def test_the_mlp_turns_its_input_into_its_output_by_way_of_its_activation(family):
    acts, lm = seen(family), model(family)
    for layer, block in enumerate(lm.anatomy.blocks):
        with torch.no_grad():
            last = block.get_submodule(PARTS[family][1])
            close(acts["mlp_output", layer], last(acts["mlp_activation", layer]))
            if family == "opt":
                first = block.activation_fn(block.fc1(acts["mlp_input", layer]))
                close(acts["mlp_activation", layer], first)
            else:
                close(acts["mlp_output", layer], block.mlp(acts["mlp_input", layer]))


def test_attention_reads_the_normed_stream(family):
    acts, lm = seen(family), model(family)
    norms = {"gpt2": "ln_1", "opt": "self_attn_layer_norm", "olmo2": None}
    for layer, block in enumerate(lm.anatomy.blocks):
        norm = norms.get(family, "input_layernorm")
        expected = acts["block_input", layer]
        with torch.no_grad():
            close(acts["attention_input", layer], block.get_submodule(norm)(expected) if norm else expected)


def test_the_output_projection_turns_heads_values_into_the_attention_output(family):
    acts, lm = seen(family), model(family)
    for layer, block in enumerate(lm.anatomy.blocks):
        projection = block.get_submodule(PARTS[family][0])
        with torch.no_grad():
            close(acts["attention_output", layer], projection(acts["attention_value_output", layer].flatten(-2)))


def test_attention_weights_are_distributions_over_earlier_tokens(family):
    acts = seen(family)
    for layer in range(3):
        weights = acts["attention_weight", layer]
        assert (weights >= 0).all() and not weights[0].triu(1).any()
        for row, length in enumerate(acts.layout.lengths):
            real = weights[row, :, :length, :length]
            torch.testing.assert_close(real.sum(-1), torch.ones(4, length))
        assert weights[0, :, -1].std(-1).min() > 1e-3  # not uniform, so that the tests below mean something


def test_attention_weights_times_values_are_the_heads_outputs(family):
    acts, lm = seen(family), model(family)
    group = lm.n_heads // lm.anatomy.n_key_value_heads
    for layer in range(3):
        weights, values = acts["attention_weight", layer], acts["value_output", layer]
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights, values.repeat_interleave(group, 2))
        for row, length in enumerate(acts.layout.lengths):
            close(acts["attention_value_output", layer][row, :length], mixed[row, :length])


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_without_rotary_embedding_queries_and_keys_give_the_weights(family):
    acts = seen(family)
    mask = torch.ones(acts.logits.shape[1], acts.logits.shape[1], dtype=torch.bool).triu(1)
    for layer in range(3):
        scores = torch.einsum("bqhd,bkhd->bhqk", acts["query_output", layer], acts["key_output", layer]) / 8**0.5
        close(acts["attention_weight", layer][0], scores.masked_fill(mask, -torch.inf).softmax(-1)[0])


@pytest.mark.parametrize("component", ["query_output", "key_output"])
def test_a_head_without_queries_or_keys_looks_everywhere_alike(family, component):
    lm, head = model(family), 1
    with intervene(lm, zero(Site(component, 0, heads=head))):
        acts = record(lm, PROMPTS[0], Site("attention_weight", 0))
    weights, before = acts["attention_weight", 0][0], seen(family)["attention_weight", 0][0]
    n = weights.shape[-1]
    group = 1 if component == "query_output" else lm.n_heads // lm.anatomy.n_key_value_heads
    blind = range(head * group, (head + 1) * group)
    uniform = torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None]
    for other in range(4):
        if other in blind:
            close(weights[other], uniform)
        elif family != "olmo2":  # it normalises all heads' queries together
            close(weights[other], before[other])


def test_a_head_s_values_reach_its_own_group_alone(family):
    lm, head = model(family), 1
    with intervene(lm, zero(Site("value_output", 0, heads=head))):
        acts = record(lm, PROMPTS[0], Site("attention_value_output", 0))
    now, before = acts["attention_value_output", 0][0], seen(family)["attention_value_output", 0][0]
    group = lm.n_heads // lm.anatomy.n_key_value_heads
    for other in range(4):
        silenced = other in range(head * group, (head + 1) * group)
        close(now[:, other], torch.zeros_like(now[:, other]) if silenced else before[:, other])


def test_an_edit_of_any_component_changes_what_follows_and_nothing_before(family):
    lm, acts = model(family), seen(family)
    for component in COMPONENTS:
        if component == "attention_weight":
            continue
        with intervene(lm, zero(Site(component, 1, positions=4 if component not in PER_HEAD else [4, 5]))):
            logits = lm(PROMPTS[0])
        # Zeroing queries or values at one token is seen from that token on.
        close(logits[0, :4], acts.logits[0, :4], atol=2e-4)
        assert (logits[0, 4:] - acts.logits[0, 4 : logits.shape[1]]).abs().max() > 1e-3, component


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
@pytest.mark.parametrize("component", [c for c in COMPONENTS if c != "attention_weight"])
def test_writing_to_a_place_s_view_writes_to_the_original(family, component):
    place = model(family).anatomy.place(component, 0)
    width = torch.Size(place.shape).numel() * (3 if family != "llama" and component in PER_HEAD[1:] else 1)
    features = torch.zeros(1, 2, width)
    view = place.view(features)
    assert view.shape == (1, 2, *place.shape)
    view += 1
    assert features.sum() == view.sum() == 2 * torch.Size(place.shape).numel()


@pytest.mark.parametrize("part", ["head", "norm", "embedding", "block"])
def test_what_is_put_into_the_model_later_is_found(part):
    lm = tiny("llama")
    record(lm, PROMPTS[0], "block_output")
    with torch.no_grad():
        if part == "head":
            lm.model.lm_head = torch.nn.Linear(32, 50257, bias=False)
            lm.model.lm_head.weight.mul_(3)
        elif part == "norm":
            lm.model.model.norm = torch.nn.LayerNorm(32)
        elif part == "embedding":
            lm.model.set_input_embeddings(torch.nn.Embedding(50257, 32))
        else:
            lm.model.model.layers[1] = tiny("llama", seed=1).model.model.layers[1]
    fresh = LanguageModel(lm.model, lm.tokenizer)
    assert lm.anatomy.blocks == fresh.anatomy.blocks and lm.anatomy.norm is fresh.anatomy.norm
    assert lm.anatomy.embedding is fresh.anatomy.embedding and lm.anatomy.unembedding is fresh.anatomy.unembedding
    acts = record(lm, PROMPTS[0], "block_output")
    close(acts.logits, run_whole(fresh)[:1, : acts.logits.shape[1]], atol=2e-4)
    with intervene(lm, zero(Site("block_output", 1))):
        old = lm(PROMPTS[0])
    with intervene(fresh, zero(Site("block_output", 1))):
        close(old, fresh(PROMPTS[0]))

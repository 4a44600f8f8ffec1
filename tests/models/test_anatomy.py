"""Every family keeps its parts where `anatomy` says, with the meaning that the names promise."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import transformers
from plain import close
from tiny import FAMILIES, components_of, tiny
from transformers import AutoModelForCausalLM

from interp_helpers import LanguageModel, Site, intervene, record, zero
from interp_helpers.models.anatomy import COMPONENTS, PER_HEAD, Anatomy

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
    return record(model(family), PROMPTS, *components_of(family))


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
        **dict.fromkeys(("attention_input", "attention_output", "block_middle"), (32,)),
        **dict.fromkeys(("attention_value_output", "query_output"), (4, d_head)),
        **dict.fromkeys(("key_output", "value_output"), (grouped, d_head)),
        "mlp_activation": (wide,),
    }
    for component in components_of(family):
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
    for component in components_of(family):
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
    if component not in components_of(family):
        pytest.skip("it has no such component")
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


class Wrapped(torch.nn.Module):
    """A module inside one of somebody else's, as steering libraries and adapters have it."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, *args, **kwargs):
        return self.inside(*args, **kwargs)


class Adapted(Wrapped):
    """A projection with something learnt beside it."""

    def __init__(self, inside):
        super().__init__(inside)
        self.in_features, self.out_features = inside.in_features, inside.out_features
        self.a, self.b = (
            torch.nn.Linear(self.in_features, 2, bias=False),
            torch.nn.Linear(2, self.out_features, bias=False),
        )

    def forward(self, x):
        return self.inside(x) + self.b(self.a(x))


def silenced(lm, component):
    with intervene(lm, zero(Site(component, 1))):
        return lm(PROMPTS[0])


def test_a_block_that_is_wrapped_later_is_looked_at_again():
    lm = tiny("llama")
    before = {component: silenced(lm, component) for component in COMPONENTS if component != "attention_weight"}
    layers = lm.model.model.layers
    layers[1] = Wrapped(layers[1])
    for component, logits in before.items():
        close(silenced(lm, component), logits)
    assert lm.anatomy.parts(1)["mlp_output"].name == "model.layers.1.inside.mlp.down_proj"
    assert lm.anatomy.parts(2)["mlp_output"].name == "model.layers.2.mlp.down_proj"
    layers[1] = layers[1].inside
    for component, logits in before.items():
        close(silenced(lm, component), logits)


@pytest.mark.parametrize("component, name", [("query_output", "q_proj"), ("attention_output", "o_proj")])
def test_an_adapter_counts_as_part_of_its_projection(component, name):
    lm = tiny("llama")
    silenced(lm, component)
    attention = lm.anatomy.blocks[1].self_attn
    setattr(attention, name, Adapted(getattr(attention, name)))
    place = lm.anatomy.place(component, 1)
    assert place.module is getattr(attention, name)
    acts = record(lm, PROMPTS[0], Site(component, 1), Site("attention_input", 1), Site("attention_value_output", 1))
    given = acts["attention_input", 1] if name == "q_proj" else acts["attention_value_output", 1].flatten(-2)
    with torch.no_grad():
        close(acts[component, 1].flatten(2), place.module(given))


def test_blocks_that_are_taken_away_are_gone():
    lm = tiny("llama")
    record(lm, PROMPTS[0], "block_output")
    lm.model.model.layers = lm.model.model.layers[:2]
    assert lm.anatomy.n_layers == 2 and len(lm.anatomy.blocks) == 2
    assert record(lm, PROMPTS[0], Site("block_output", 1)).logits.shape[1] > 0


def test_at_load_the_model_runs_once_on_five_tokens():
    model, widths = tiny("llama").model, []
    model.register_forward_pre_hook(lambda module, args, kwargs: widths.append(0), with_kwargs=True)
    forward = model.forward

    def counting(*args, input_ids, **kwargs):
        widths.append(input_ids.numel())
        return forward(*args, input_ids=input_ids, **kwargs)

    model.forward = counting
    Anatomy(model)
    assert widths == [5]  # and nobody's hook saw it


def test_looking_leaves_the_model_as_it_was():
    model = tiny("gpt2").model.train()
    ran = []
    hook = model.transformer.h[0].register_forward_hook(lambda *_: ran.append(1))
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    anatomy = Anatomy(model)
    for component in COMPONENTS:
        anatomy.place(component, 1)
    assert not ran and model.training and all(module.training for module in model.modules())
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert model.config._attn_implementation == "sdpa"
    assert list(model.transformer.h[0]._forward_hooks) == [hook.id]
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == 1


@pytest.mark.skipif(transformers.__version__ < "5", reason="transformers 4 doesn't run Llama on the meta device")
def test_on_the_meta_device_blocks_are_found_and_nothing_is_proved():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny("llama").model.config)
    anatomy = Anatomy(model)
    assert anatomy.n_layers == 3 and anatomy.norm is model.model.norm and anatomy.unembedding is model.lm_head
    with pytest.raises(
        ValueError, match="'mlp_output' isn't offered in block 1 .*meta device, where nothing can be proved"
    ):
        anatomy.place("mlp_output", 1)


def test_quantised_on_a_cpu():
    whole = tiny("llama", hidden_size=64)
    model = torch.ao.quantization.quantize_dynamic(
        tiny("llama", hidden_size=64).model.model.layers, {torch.nn.Linear}, torch.qint8
    )
    lm = tiny("llama", hidden_size=64)
    lm.model.model.layers = model
    acts = record(lm, PROMPTS[0], *COMPONENTS)
    wanted = record(whole, PROMPTS[0], *COMPONENTS)
    for component in COMPONENTS:
        one, other = acts[component, 1], wanted[component, 1]
        assert one.shape == other.shape and (one - other).norm() < 0.5 * other.norm(), component


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_sixteen_bits_the_same_is_found(dtype):
    lm, rounded = tiny("llama"), tiny("llama")
    rounded.model.to(dtype)
    assert Anatomy(rounded.model).parts(1) == lm.anatomy.parts(1)


def test_a_projection_that_was_taken_for_another_is_never_offered():
    lm = tiny("llama")
    attention = lm.anatomy.blocks[1].self_attn
    names = {c: lm.anatomy.parts(1)[c].name.rpartition(".")[2] for c in ("query_output", "key_output", "value_output")}
    assert names == {"query_output": "q_proj", "key_output": "k_proj", "value_output": "v_proj"}
    attention.q_norm_ = attention.q_proj  # another name for it changes nothing
    assert lm.anatomy.parts(1)["query_output"].shape == (4, 8)


def test_heads_are_counted_by_experiment_or_not_at_all():
    lm = tiny("llama")
    for wrong in (1, 2, 8, 32):
        anatomy = Anatomy(lm.model)
        anatomy.n_heads = wrong
        assert not {"query_output", "attention_value_output", "key_output", "value_output"} & anatomy.parts(1).keys()
    for attention in (block.self_attn for block in lm.anatomy.blocks):
        attention.num_heads = 4  # as many a model's attention has it
    anatomy = Anatomy(lm.model)
    anatomy.n_heads = 2
    assert anatomy.parts(1)["attention_value_output"].shape == (4, 8)


def test_it_is_shown_as_a_picture():
    assert repr(tiny("gpt2").anatomy).splitlines() == [
        "GPT2LMHeadModel: 3 blocks, d_model 32",
        "transformer.wte",
        "│",
        "│ transformer.h.0 to 2",
        "│ block_input",
        "├ attn                      attention_input → attention_weight",
        "├ attn.c_proj               attention_value_output (4 heads of 8) → attention_output",
        "├ attn.c_attn               → query_output (4 heads of 8), key_output (4 heads of 8), value_output (4 heads of 8)",
        "│ block_middle",
        "├ mlp                       mlp_input →",
        "├ mlp.c_proj                mlp_activation → mlp_output",
        "│ block_output",
        "│",
        "transformer.ln_f",
        "lm_head → logits",
    ]

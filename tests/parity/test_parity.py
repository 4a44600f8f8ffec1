"""The same experiment on the same weights, by pyvene, by nnsight, by TransformerLens and by us: the same numbers.

Each peer gets a model of its own, made from the same seed, since some of them rewrite the model that they wrap. Run
with -s to see the largest difference from each peer.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import pytest
import torch
from tiny import components_of, gpt2_tokenizer, tiny, tiny_model

from interp_helpers import Site, add, intervene, knock_out, record, replace, zero

pytestmark = pytest.mark.slow

BASE = "The Eiffel Tower is in the city of"
SOURCE = "The Colosseum stands in the town of"
LAYER, PLACE, HEAD, TOLERANCE = 1, 4, 2, 1e-4
VECTOR = torch.randn(32, generator=torch.Generator().manual_seed(0))

largest: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))


@pytest.fixture(scope="module", autouse=True)
def report():
    yield
    for peer, differences in largest.items():
        print(
            f"\nLargest difference from {peer}: {max(differences.values()):.1e} ({len(differences)} experiments)",
            end="",
        )


@cache
def ours(family):
    return tiny(family, attn_implementation="eager")


def theirs(family):
    return tiny_model(family, attn_implementation="eager")


def ids_of(text):
    return torch.tensor([gpt2_tokenizer()(text)["input_ids"]])


def agree(peer, what, mine, other):
    """Equal within the tolerance; and the experiment is one that changes something."""
    assert mine.shape == other.shape, (mine.shape, other.shape)
    difference = float((mine - other).detach().abs().max())
    largest[peer][what] = max(largest[peer][what], difference)
    assert difference < TOLERANCE, f"{what}: {peer} differs by {difference}"


def changed(family, *edits):
    """Our logits under edits, after checking that they differ from the unedited ones."""
    lm = ours(family)
    with intervene(lm, *edits):
        logits = lm(BASE)
    assert (logits - lm(BASE)).abs().max() > 1e-2
    return logits


def interchange(family, component, heads=None):
    site = Site(component, LAYER, positions=PLACE, heads=heads)
    return changed(family, replace(site, record(ours(family), SOURCE, component)))


def addition(family, component):
    return changed(family, add(Site(component, LAYER, positions=PLACE), VECTOR))


def ablation(family, component):
    return changed(family, zero(Site(component, LAYER, positions=PLACE)))


# -- pyvene -----------------------------------------------------------------------------------------------------------

WHOLE = ["block_input", "block_output", "attention_input", "attention_output", "mlp_input", "mlp_output"]
PYVENE_FAMILIES = ["gpt2", "llama", "gpt_neox"]
PYVENE = [
    *((family, component) for family in PYVENE_FAMILIES for component in [*WHOLE, "attention_value_output"]),
    # For gated MLPs pyvene's mlp_activation is the gate's activation alone; ours is what the last projection reads.
    *((family, "mlp_activation") for family in ("gpt2", "gpt_neox")),
    # It doesn't know the parts of GPT-NeoX's fused projection.
    *((f, c) for f in ("gpt2", "llama") for c in ("query_output", "key_output", "value_output")),
]


def pyvene_model(family, component, intervention, unit="pos", **more):
    pyvene = pytest.importorskip("pyvene", reason="pyvene is one of the peers: pip install -e '.[peers]'")
    where = {"layer": LAYER, "component": component, "unit": unit, "max_number_of_units": 1}
    return pyvene.IntervenableModel(
        pyvene.IntervenableConfig([where | more], intervention_types=getattr(pyvene, intervention)),
        model=theirs(family),
    )


@pytest.mark.parametrize("family, component", PYVENE)
def test_pyvene_interchange(family, component):
    model = pyvene_model(family, component, "VanillaIntervention")
    there = {"sources->base": ([[[PLACE]]], [[[PLACE]]])}
    _, out = model({"input_ids": ids_of(BASE)}, [{"input_ids": ids_of(SOURCE)}], there)
    agree("pyvene", f"interchange of {component} in {family}", interchange(family, component), out.logits)


@pytest.mark.parametrize("family", PYVENE_FAMILIES)
def test_pyvene_interchange_of_one_head(family):
    model = pyvene_model(family, "head_attention_value_output", "VanillaIntervention", unit="h.pos")
    there = {"sources->base": ([[[[HEAD]], [[PLACE]]]], [[[[HEAD]], [[PLACE]]]])}
    _, out = model({"input_ids": ids_of(BASE)}, [{"input_ids": ids_of(SOURCE)}], there)
    mine = interchange(family, "attention_value_output", heads=HEAD)
    agree("pyvene", f"interchange of one head's output in {family}", mine, out.logits)


@pytest.mark.parametrize("family", PYVENE_FAMILIES)
@pytest.mark.parametrize("component", ["block_output", "mlp_output"])
def test_pyvene_addition(family, component):
    model = pyvene_model(family, component, "AdditionIntervention", source_representation=VECTOR)
    _, out = model({"input_ids": ids_of(BASE)}, unit_locations={"base": [[[PLACE]]]})
    agree("pyvene", f"addition to {component} in {family}", addition(family, component), out.logits)


@pytest.mark.parametrize("family, component", PYVENE)
def test_pyvene_collection(family, component):
    model = pyvene_model(family, component, "CollectIntervention")
    (_, (collected,)), _ = model({"input_ids": ids_of(BASE)}, unit_locations={"base": [[[PLACE]]]})
    mine = record(ours(family), BASE, component)[component, LAYER][0, PLACE].flatten()
    agree("pyvene", f"collection of {component} in {family}", mine, collected.flatten())


# -- nnsight ----------------------------------------------------------------------------------------------------------

# The block's path, then paths from it: the module and whether its input or its output is meant.
GPT2 = {
    "block_output": ("", "output"),
    "block_input": ("", "input"),
    "attention_output": ("attn.c_proj", "output"),
    "attention_value_output": ("attn.c_proj", "input"),
    "mlp_input": ("mlp", "input"),
    "mlp_activation": ("mlp.c_proj", "input"),
    "mlp_output": ("mlp", "output"),
}
LLAMA = GPT2 | {
    "attention_output": ("self_attn.o_proj", "output"),
    "attention_value_output": ("self_attn.o_proj", "input"),
    "query_output": ("self_attn.q_proj", "output"),
    "key_output": ("self_attn.k_proj", "output"),
    "value_output": ("self_attn.v_proj", "output"),
    "mlp_activation": ("mlp.down_proj", "input"),
}
NEOX = GPT2 | {
    "attention_output": ("attention.dense", "output"),
    "attention_value_output": ("attention.dense", "input"),
    "mlp_activation": ("mlp.dense_4h_to_h", "input"),
}
NNSIGHT_PATHS = {
    "gpt2": ("transformer.h", GPT2),
    "llama": ("model.layers", LLAMA),
    "gemma2": ("model.layers", LLAMA),
    "gpt_neox": ("gpt_neox.layers", NEOX),
}
NNSIGHT = [(family, component) for family, (_, places) in NNSIGHT_PATHS.items() for component in places]


class OnNNsight:
    """One component of the model that nnsight wraps; `at` is its input or output, as a tensor to read or write."""

    def __init__(self, family, component):
        nnsight = pytest.importorskip("nnsight", reason="nnsight is one of the peers: pip install -e '.[peers]'")
        self.model = nnsight.NNsight(theirs(family))
        blocks, places = NNSIGHT_PATHS[family]
        path, self.side = places[component]
        self.module = self.model
        for name in [*blocks.split("."), str(LAYER), *filter(None, path.split("."))]:
            self.module = self.module[int(name)] if name.isdigit() else getattr(self.module, name)


@pytest.mark.parametrize("family, component", NNSIGHT)
def test_nnsight_collection_and_interchange(family, component):
    peer = OnNNsight(family, component)
    model, module, is_input = peer.model, peer.module, peer.side == "input"
    with model.trace(ids_of(SOURCE)):
        seen = (module.input if is_input else module.output).save()
    if isinstance(seen, tuple):
        seen = seen[0]
    mine = record(ours(family), SOURCE, component)[component, LAYER]
    agree("nnsight", f"collection of {component} in {family}", mine.flatten(2), seen)
    source = seen[:, PLACE].detach().clone()
    with model.trace(ids_of(BASE)):
        if is_input:
            module.input[:, PLACE] = source
        else:
            module.output[:, PLACE] = source
        logits = model.output.logits.save()
    agree("nnsight", f"interchange of {component} in {family}", interchange(family, component), logits)


@pytest.mark.parametrize("family", NNSIGHT_PATHS)
def test_nnsight_interchange_of_one_head(family):
    peer, size = OnNNsight(family, "attention_value_output"), ours(family).d_head
    model, module, features = peer.model, peer.module, slice(HEAD * size, HEAD * size + size)
    with model.trace(ids_of(SOURCE)):
        seen = module.input.save()
    source = seen[:, PLACE, features].detach().clone()
    with model.trace(ids_of(BASE)):
        module.input[:, PLACE, features] = source
        logits = model.output.logits.save()
    mine = interchange(family, "attention_value_output", heads=HEAD)
    agree("nnsight", f"interchange of one head's output in {family}", mine, logits)


@pytest.mark.parametrize("family", NNSIGHT_PATHS)
@pytest.mark.parametrize("component", ["block_output", "mlp_output"])
def test_nnsight_addition_and_ablation(family, component):
    peer = OnNNsight(family, component)
    model, module = peer.model, peer.module
    with model.trace(ids_of(BASE)):
        module.output[:, PLACE] += VECTOR
        logits = model.output.logits.save()
    agree("nnsight", f"addition to {component} in {family}", addition(family, component), logits)
    with model.trace(ids_of(BASE)):
        module.output[:, PLACE] = 0
        logits = model.output.logits.save()
    agree("nnsight", f"ablation of {component} in {family}", ablation(family, component), logits)


# -- TransformerLens --------------------------------------------------------------------------------------------------

LENS_NAMES = {
    "block_input": "hook_resid_pre",
    "block_middle": "hook_resid_mid",
    "block_output": "hook_resid_post",
    "attention_input": "attn.hook_in",
    "attention_output": "attn.hook_out",
    "attention_value_output": "attn.hook_z",
    "query_output": "attn.hook_q",
    "key_output": "attn.hook_k",
    "value_output": "attn.hook_v",
    "attention_weight": "attn.hook_pattern",
    "mlp_input": "mlp.hook_in",
    "mlp_activation": "mlp.hook_post",
    "mlp_output": "mlp.hook_out",
}
LENS_FAMILIES = ["gpt2", "llama", "gemma2", "gpt_neox"]


@pytest.fixture(scope="module")
def bridge(tmp_path_factory):
    """The model of a family as TransformerLens wraps it."""
    reason = "TransformerLens is one of the peers: pip install -e '.[peers]'"
    bridges = pytest.importorskip("transformer_lens.model_bridge", reason=reason)
    from transformers import AutoTokenizer

    @cache
    def make(family):
        model, folder = theirs(family), tmp_path_factory.mktemp(family)
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        gpt2_tokenizer().save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        boot = bridges.TransformerBridge.boot_transformers
        return boot(f"tiny/{family}", hf_model=model, tokenizer=tokenizer, device="cpu")

    return make


def lens_name(component):
    return f"blocks.{LAYER}.{LENS_NAMES[component]}"


@pytest.mark.parametrize("family", LENS_FAMILIES)
def test_transformer_lens_logits(bridge, family):
    agree("TransformerLens", f"logits of {family}", ours(family)(BASE), bridge(family)(ids_of(BASE)))


LENS = [(f, c) for c in LENS_NAMES for f in LENS_FAMILIES if c in components_of(f)]


@pytest.mark.parametrize("family, component", LENS)
def test_transformer_lens_collection(bridge, family, component):
    _, cache_ = bridge(family).run_with_cache(ids_of(BASE))
    mine = record(ours(family), BASE, component)[component, LAYER]
    agree("TransformerLens", f"collection of {component} in {family}", mine, cache_[lens_name(component)])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_transformer_lens_interchange_of_the_middle(bridge, family):
    """An edit of its hook_resid_mid reaches the MLP's norm alone, for transformers' block adds to what it had before. So the stream is
    changed through what attention writes, by the difference of the two middles."""
    model, middle = bridge(family), lens_name("block_middle")
    _, source = model.run_with_cache(ids_of(SOURCE))
    _, base = model.run_with_cache(ids_of(BASE))

    def patch(h, hook):
        h = h.clone()
        h[:, PLACE] += source[middle][:, PLACE] - base[middle][:, PLACE]
        return h

    logits = model.run_with_hooks(ids_of(BASE), fwd_hooks=[(lens_name("attention_output"), patch)])
    agree("TransformerLens", f"interchange of block_middle in {family}", interchange(family, "block_middle"), logits)


@pytest.mark.parametrize(
    "family, component", [(f, c) for f, c in LENS if c not in ("attention_weight", "block_middle")]
)
def test_transformer_lens_interchange(bridge, family, component):
    model, name = bridge(family), lens_name(component)
    _, cache_ = model.run_with_cache(ids_of(SOURCE))

    def patch(h, hook):
        h = h.clone()
        h[:, PLACE] = cache_[name][:, PLACE]
        return h

    logits = model.run_with_hooks(ids_of(BASE), fwd_hooks=[(name, patch)])
    agree("TransformerLens", f"interchange of {component} in {family}", interchange(family, component), logits)


@pytest.mark.parametrize("family", LENS_FAMILIES)
def test_transformer_lens_interchange_of_one_head(bridge, family):
    model, name = bridge(family), lens_name("attention_value_output")
    _, cache_ = model.run_with_cache(ids_of(SOURCE))

    def patch(z, hook):
        z = z.clone()
        z[:, PLACE, HEAD] = cache_[name][:, PLACE, HEAD]
        return z

    logits = model.run_with_hooks(ids_of(BASE), fwd_hooks=[(name, patch)])
    mine = interchange(family, "attention_value_output", heads=HEAD)
    agree("TransformerLens", f"interchange of one head's output in {family}", mine, logits)


@pytest.mark.parametrize("family", LENS_FAMILIES)
def test_transformer_lens_interchange_of_one_head_s_pattern(bridge, family):
    model, name = bridge(family), lens_name("attention_weight")
    _, cache_ = model.run_with_cache(ids_of(SOURCE))

    def patch(pattern, hook):
        pattern = pattern.clone()
        pattern[:, HEAD, PLACE] = cache_[name][:, HEAD, PLACE]
        return pattern

    logits = model.run_with_hooks(ids_of(BASE), fwd_hooks=[(name, patch)])
    site = Site("attention_weight", LAYER, positions=PLACE, heads=HEAD)
    mine = changed(family, replace(site, record(ours(family), SOURCE, site)))
    agree("TransformerLens", f"interchange of one head's pattern in {family}", mine, logits)


@pytest.mark.parametrize("family", LENS_FAMILIES)
def test_transformer_lens_attention_knock_out(bridge, family):
    """Written out as the pattern that a softmax without some scores gives."""
    model, name, keys = bridge(family), lens_name("attention_weight"), [1, 2]

    def cut(pattern, hook):
        pattern = pattern.clone()
        pattern[:, :, PLACE, keys] = 0
        pattern[:, :, PLACE] /= pattern[:, :, PLACE].sum(-1, keepdim=True)
        return pattern

    logits = model.run_with_hooks(ids_of(BASE), fwd_hooks=[(name, cut)])
    mine = changed(family, knock_out(Site("attention_weight", LAYER, positions=PLACE), keys))
    agree("TransformerLens", f"knock-out in {family}", mine, logits)


@pytest.mark.parametrize("family", LENS_FAMILIES)
@pytest.mark.parametrize("component", ["block_output", "mlp_output"])
def test_transformer_lens_addition_and_ablation(bridge, family, component):
    model, name = bridge(family), lens_name(component)

    def push(h, hook):
        h = h.clone()
        h[:, PLACE] += VECTOR
        return h

    def ablate(h, hook):
        h = h.clone()
        h[:, PLACE] = 0
        return h

    for what, function, mine in (("addition to", push, addition), ("ablation of", ablate, ablation)):
        logits = model.run_with_hooks(ids_of(BASE), fwd_hooks=[(name, function)])
        agree("TransformerLens", f"{what} {component} in {family}", mine(family, component), logits)

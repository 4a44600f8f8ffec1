"""Small random models of transformers' types of causal decoders, and what is offered of them held against the truth.

    python tests/families.py            # all types, a few minutes: what is offered, and what is wrong
    python tests/families.py gpt2 bloom

The truth is not looked for as `anatomy` looks for it: components are edited by the package's own means, and what should follow
follows or not; heads are seen where transformers' attention functions get them.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter

import torch
from tiny import gpt2_tokenizer
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM
from transformers.masking_utils import eager_mask
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from interp_helpers import LanguageModel, Site, intervene, record, replace, zero
from interp_helpers.models import COMPONENTS, PER_HEAD

TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
# What a configuration calls its sizes, in all types' dialects: each takes those that it knows.
SMALL = dict(
    **dict(vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4),
    **dict(num_key_value_heads=2, head_dim=16, max_position_embeddings=128, n_embd=64, n_layer=4, n_head=4),
    **dict(n_positions=128, n_inner=96, n_ctx=128, d_model=64, d_ff=96, n_layers=4, n_heads=4, num_layers=4),
    **dict(ffn_dim=96, max_seq_len=128, num_local_experts=4, num_experts=4, n_routed_experts=4, num_experts_per_tok=2),
    **dict(moe_intermediate_size=48, shared_expert_intermediate_size=48, ffn_hidden_size=96, word_embed_proj_dim=64),
    **dict(decoder_layers=4, decoder_attention_heads=4, decoder_ffn_dim=96, pad_token_id=0, bos_token_id=1),
    **dict(eos_token_id=2, rotary_dim=8, sliding_window=32, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8),
    **dict(qk_nope_head_dim=8, v_head_dim=16, n_group=1, topk_group=1, first_k_dense_replace=1, mamba_n_heads=8),
    **dict(mamba_d_head=16, mamba_d_state=8, state_size=8, ssm_state_size=8, vocab_size_per_layer_input=512),
    **dict(hidden_size_per_layer_input=16, num_kv_shared_layers=0, altup_num_inputs=2, laurel_rank=8),
)
LEFT_OUT = ((), ("head_dim",), ("head_dim", "num_key_value_heads"), ("num_layers",), ("sliding_window",))
BASE, SOURCE = torch.tensor([[5, 9, 17, 33, 12, 8, 100]]), torch.tensor([[7, 2, 90, 41, 6, 77, 100]])


def make(kind: str) -> torch.nn.Module:
    """
    Raises:
        ValueError: it can't be made so small.
    """
    usual = AutoConfig.for_model(kind).get_text_config()
    known, why = set(dir(usual)) | set(usual.to_dict()), None
    for left_out in (*LEFT_OUT, ("head_dim", "num_layers", "sliding_window")):
        try:
            with torch.random.fork_rng(), torch.no_grad():
                torch.manual_seed(0)
                config = type(usual)(**{k: v for k, v in SMALL.items() if k in known and k not in left_out})
                with torch.device("meta"):  # some have parts that take no settings from here
                    if sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters()) > 3e7:
                        raise ValueError("too big")
                model = AutoModelForCausalLM.from_config(config).eval()
                model(BASE, use_cache=False)
                return model
        except Exception as error:
            why = error
    raise ValueError(f"{kind} can't be made small: {why}") from why


def wrap(kind: str) -> LanguageModel:
    return LanguageModel(make(kind), gpt2_tokenizer(), kind)


# -- the truth ----------------------------------------------------------------------------------------------------------

seen: list[tuple] = []
silent: list[int] = []


def showing(module, query, key, value, attention_mask=None, scaling=None, softcap=None, s_aux=None, **_):
    """Attention, as a function that transformers calls: it shows what it is given."""
    group = query.shape[1] // key.shape[1]
    k, v = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ k.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * (scores / softcap).tanh() if softcap else scores
    if attention_mask is not None:
        mask = attention_mask[..., : k.shape[-2]]
    else:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool)
        mask = mask.tril(scores.shape[-1] - scores.shape[-2]) if module.is_causal else mask
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    if s_aux is not None:
        scores = torch.cat([scores, s_aux.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)], -1)
    pattern = scores.softmax(-1)[..., : k.shape[-2]]
    out = (pattern @ v).transpose(1, 2).contiguous()
    for head in silent:
        out[:, :, head] = 0
    seen.append((module, query, key, value, out, pattern))
    return out, pattern


AttentionInterface.register("showing", showing)
AttentionMaskInterface.register("showing", eager_mask)


def offered(lm: LanguageModel) -> dict[str, list[int]]:
    """Each component's layers."""

    def is_there(component: str, layer: int) -> bool:
        try:
            return lm.anatomy.place(component, layer) is not None
        except ValueError:
            return False

    return {c: [layer for layer in range(lm.n_layers) if is_there(c, layer)] for c in COMPONENTS}


def parallel(one: Tensor, other: Tensor) -> bool:
    return bool((cosine_similarity(one, other, dim=-1) > 1 - 1e-4).all())


def near(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-4 * max(1e-6, other.abs().max()))


def wrong(lm: LanguageModel, there: dict[str, list[int]]) -> dict[str, str]:
    """What isn't as it should be, of what is offered."""
    found: dict[str, str] = {}
    last = lm.n_layers - 1
    if last in there["block_output"]:
        acts = record(lm, SOURCE, "block_output", "block_input")
        with intervene(lm, replace(Site("block_output", last), acts)):
            if not near(lm(BASE), lm(SOURCE)) and not near(lm(BASE), acts_logits(lm)):
                found["block_output"] = "with another run's last stream, the logits aren't that run's"
        if any(not near(acts["block_output", i], acts["block_input", i + 1]) for i in range(last)):
            found["block_input"] = "isn't what the block before put out"
    writers = {i: [c for c in ("attention_output", "mlp_output") if i in there[c]] for i in range(lm.n_layers)}
    if len(there["attention_output"]) == lm.n_layers and lm.name != "rwkv":  # whose MLP looks back, too
        with intervene(lm, *(zero(Site("attention_output", i)) for i in there["attention_output"])):
            if not near(lm(BASE)[:, -1], lm(SOURCE)[:, -1]):
                found["attention_output"] = "without it, tokens still know of others"
    for layer, written in writers.items():
        others = {"attention_output", "mlp_output"} - set(written)
        alone = all(re.search("has no MLP|no token's output", str(lm.anatomy._part(c, layer))) for c in others)
        if written and alone and not takes_tokens(lm):
            with intervene(lm, *(zero(Site(c, layer)) for c in written)):
                acts = record(lm, BASE, Site("block_input", layer), Site("block_output", layer))
            x, y = (acts[c, layer] for c in ("block_input", "block_output"))
            if not parallel(x, y) and not parallel(x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)):
                found["mlp_output"] = "without it and attention's, the block still does something"
    for layer in there["block_middle"]:
        acts = record(lm, SOURCE, Site("block_middle", layer), Site("block_output", layer))
        with intervene(lm, replace(Site("block_middle", layer), acts)):
            out = record(lm, BASE, Site("block_output", layer))["block_output", layer]
        if not near(out, acts["block_output", layer]) and not takes_tokens(lm):
            found["block_middle"] = "with another run's, the block doesn't return what it did in that run"
        with intervene(lm, zero(Site("attention_output", layer))):
            acts = record(lm, BASE, Site("block_input", layer), Site("block_middle", layer))
        if layer in there["attention_output"] and not parallel(acts["block_input", layer], acts["block_middle", layer]):
            found["block_middle"] = "without attention's output, it isn't the block's input"
    for layer in there["mlp_activation"]:
        outs = []
        site = Site("mlp_activation", layer)
        act = record(lm, BASE, site)[site]
        for times in (0, 1, 2):
            with intervene(lm, replace(site, times * act)):
                outs.append(record(lm, BASE, Site("mlp_output", layer))["mlp_output", layer])
        if not near(outs[2] - outs[1], outs[1] - outs[0]) or near(outs[1], outs[0]):
            found["mlp_activation"] = "the MLP's output isn't linear in it"
    return found | wrong_heads(lm, there)


def takes_tokens(lm: LanguageModel) -> bool:
    """Are its blocks given something of each token's own besides the stream?"""
    return lm.name.startswith(("gemma3n", "gemma4"))


def acts_logits(lm):
    return lm(SOURCE)


def wrong_heads(lm: LanguageModel, there: dict[str, list[int]]) -> dict[str, str]:
    found: dict[str, str] = {}
    names = {module: name for name, module in lm.model.named_modules()}
    before_implementation = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("showing")

    def run(*edits) -> dict[int, tuple]:
        seen.clear()
        if edits:
            with intervene(lm, *edits):
                lm(BASE)
        else:
            lm(BASE)
        layers = {}
        for module, *what in seen:
            numbers = re.findall(r"\.(\d+)\.", f".{names[module]}.")
            layers[int(numbers[0])] = what
        return layers

    try:
        base = run()
        for which, component in enumerate(("query_output", "key_output", "value_output")):
            for layer in set(there[component]) & set(base):
                was = base[layer][which]
                n = lm.anatomy.place(component, layer).shape[0]
                if was.shape[1] % n:
                    found[component] = f"{n} heads, and attention gets {was.shape[1]}"
                    continue
                for head in {0, n - 1}:
                    now = run(zero(Site(component, layer, heads=head)))[layer][which]
                    own = torch.arange(was.shape[1]) // (was.shape[1] // n) == head
                    if now[:, own].abs().max() > 1e-5 * was.abs().max() or (
                        n > 1 and not parallel(now[:, ~own], was[:, ~own])
                    ):
                        found[component] = f"head {head} of block {layer} isn't that of attention"
        for layer in set(there["attention_value_output"]) & set(base):
            site, n = Site("attention_value_output", layer), lm.anatomy.place("attention_value_output", layer).shape[0]
            was = record(lm, BASE, site)[site]
            for head in (0, n - 1):
                silent[:] = [head]
                now = record(lm, BASE, site)[site]
                silent.clear()
                own = torch.arange(n) == head
                if (
                    now[:, :, own].abs().max() > 1e-6
                    or base[layer][3].shape[2] != n
                    or (layer == 0 and n > 1 and not parallel(now[:, :, ~own], was[:, :, ~own]))
                ):
                    found["attention_value_output"] = f"head {head} of block {layer} isn't what attention's gives"
        if base:
            found["_heads seen"] = ""
        lm.model.set_attn_implementation(before_implementation)
        for layer in there["attention_weight"]:
            pattern = record(lm, BASE, Site("attention_weight", layer))["attention_weight", layer]
            sums = pattern.sum(-1)
            if (
                pattern.shape != (1, lm.n_heads, 7, 7)
                or (lm.anatomy.offers("query_output", layer) and pattern.triu(1).any())
                or (layer in base and not near(pattern, base[layer][4]))
            ):
                found["attention_weight"] = f"of block {layer} isn't the pattern"
            elif sums.max() > 1 + 1e-4 or (layer not in base and sums.min() < 1 - 1e-4):
                found["attention_weight"] = f"of block {layer} doesn't sum to one"
    finally:
        silent.clear()
        lm.model.set_attn_implementation(before_implementation)
    return found


def main(kinds) -> Counter[str]:
    counts: Counter[str] = Counter()
    for kind in kinds:
        try:
            model = make(kind)
        except Exception as error:
            print(f"{kind:24} can't be built here: {str(error)[:80]}", flush=True)
            continue
        counts["built"] += 1
        try:
            lm = LanguageModel(model, gpt2_tokenizer(), kind)
            there = offered(lm)
        except ValueError as error:
            print(f"{kind:24} refused: {str(error)[:90]}", flush=True)
            continue
        try:
            mistakes = wrong(lm, there)
        except Exception as error:
            mistakes = {"error": f"{type(error).__name__}: {error}"[:200]}
        counts.update({c: 1 for c, layers in there.items() if layers})
        counts["taken"] += bool(there["block_output"])
        counts["heads"] += all(there[c] for c in PER_HEAD)
        counts["heads seen"] += mistakes.pop("_heads seen", None) is not None
        counts["wrong"] += bool(mistakes)
        lacking = [c for c, layers in there.items() if not layers]
        some = [
            f"{c} in {len(layers)} of {lm.n_layers}" for c, layers in there.items() if 0 < len(layers) < lm.n_layers
        ]
        print(
            f"{kind:24} {'all' if not lacking + some else '; '.join([*('no ' + c for c in lacking), *some])} {mistakes or ''}",
            flush=True,
        )
    print(dict(counts))
    return counts


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    main(sys.argv[1:] or TYPES)

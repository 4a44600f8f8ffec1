"""Of every type of decoder, what is offered is right: two dozen that differ here, all of them with what is slow."""

from __future__ import annotations

import re
from pathlib import Path

import families
import pytest
import torch
from families import BASE, TYPES, offered, wrap, wrong
from tiny import gpt2_tokenizer

from interp_helpers import LanguageModel, Site, intervene, record, replace
from interp_helpers.models import COMPONENTS, PER_HEAD

ALL = set(COMPONENTS)
HEADS = {*PER_HEAD, "attention_weight"}
OWN_SOFTMAX = {"attention_weight"}  # not left to transformers' attention functions
KEYS = {"key_output", "value_output"}
MIDDLE = {"block_middle"}
MLP = {"mlp_input", "mlp_activation", "mlp_output"}

# What a type lacks in every block, and in what it differs from the rest.
LACKS: dict[str, set] = {
    "gpt2": set(),  # one projection of queries, keys and values
    "openai-gpt": OWN_SOFTMAX,  # norms after the sums; blocks return lists
    "gptj": OWN_SOFTMAX | MIDDLE,  # attention and MLP side by side
    "codegen": OWN_SOFTMAX | MIDDLE,  # queries, values, keys, in this order
    "bloom": OWN_SOFTMAX,  # one projection, head by head; attention's module adds the stream itself
    "falcon": OWN_SOFTMAX | MIDDLE,  # one key for all queries; the MLP's output is added to in place
    "mpt": OWN_SOFTMAX,
    "bart": set(),  # its encoder has another number of heads
    "opt": set(),  # the MLP is no module
    "phi3": set(),  # one projection for the MLP's gate, too
    "cohere": MIDDLE,  # logits are scaled
    "granite": set(),  # what is written is scaled
    "gemma2": set(),  # normed, too, and a softcap
    "gemma3": set(),
    "olmo2": set(),  # queries are normed across heads
    "stablelm": set(),
    "mixtral": {"mlp_activation"},  # a mixture of experts
    "gpt_oss": {"mlp_activation"},  # sinks
    "llama4": {"mlp_activation"},
    "qwen3_5": set(),  # a hybrid, its attention gated
    "nemotron_h": MIDDLE,  # each block is one thing
    "deepseek_v3": KEYS,  # keys and values are made in two steps
    "mamba": HEADS | MLP | MIDDLE,
    "bert": set(PER_HEAD),  # built here, it looks ahead
}


@pytest.mark.parametrize("kind", LACKS)
def test_what_is_offered_is_right(kind):
    lm = wrap(kind)
    there = offered(lm)
    assert {component for component, layers in there.items() if layers} == ALL - LACKS[kind]
    assert {k: v for k, v in wrong(lm, there).items() if not k.startswith("_")} == {}
    assert set(there["block_output"]) == set(range(lm.n_layers))


PAGE = (Path(__file__).parents[2] / "handouts" / "larger-models.md").read_text(encoding="utf-8")
TABLE = re.findall(r"^\| [^|]+ \| `(\w+)` \| (.+) \| (.+) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_the_page_says_what_is_offered_of_the_models_that_people_use(row):
    kind, *said = row
    there = offered(wrap(kind))
    blocks = max(len(layers) for layers in there.values())
    groups = ("block_output", "attention_output", "mlp_output"), ("mlp_activation",), PER_HEAD, ("attention_weight",)
    for components, words in zip(groups, said, strict=True):
        lacking = [c.partition("_")[0] for c in components if not there[c]]
        least = min(len(there[c]) for c in components)
        truth = "yes" if least == blocks else f"in {least} of {blocks} blocks" if least else "–"
        assert words == (f"no {'s, no '.join(lacking)}s" if 0 < len(lacking) < len(components) else truth)


def test_the_page_has_twenty_of_them():
    assert len(TABLE) == 20


@pytest.mark.slow
def test_all_types(capsys):
    with capsys.disabled():
        counts = families.main(TYPES)
    assert counts["built"] >= 161 and counts["taken"] >= 154
    assert counts["attention_output"] >= 153 and counts["mlp_output"] >= 151 and counts["heads"] >= 119
    assert counts["attention_weight"] >= 129 and counts["wrong"] == 0


def test_a_stream_that_is_handed_on_otherwise_is_refused():
    with pytest.raises(
        ValueError, match="No residual stream was found in this DeepseekV4ForCausalLM: when it runs, there is no list"
    ):
        wrap("deepseek_v4")


def test_what_is_not_offered_says_what_was_tried():
    lm = wrap("mamba")
    with pytest.raises(
        ValueError,
        match=r"'query_output' isn't offered in block 1 of this MambaForCausalLM: backbone.layers.1.mixer wasn't",
    ):
        record(lm, BASE, Site("query_output", 1))
    with pytest.raises(
        ValueError, match="'mlp_output' isn't offered in block 0 of this MambaForCausalLM: it has no MLP"
    ):
        record(lm, BASE, "mlp_output")
    acts = record(lm, BASE, "attention_output", "block_output")  # what mixes tokens, and the stream
    assert acts["attention_output", 2].shape == acts["block_output", 2].shape == (1, 7, 64)


def test_layers_may_differ():
    there = offered(wrap("nemotron_h"))
    assert there["attention_output"] == [0, 2] and there["mlp_output"] == [1, 3] and there["query_output"] == [2]


def test_fused_layouts_that_no_step_describes_are_refused_and_never_taken_for_others():
    from transformers import FalconConfig, FalconForCausalLM

    config = FalconConfig(
        **dict(vocab_size=512, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2),
        **dict(new_decoder_architecture=True, alibi=False),
    )
    torch.manual_seed(0)
    lm = LanguageModel(FalconForCausalLM(config).eval(), gpt2_tokenizer(), "like Falcon-40B")
    there = offered(lm)
    assert there["query_output"] == there["key_output"] == [] and there["attention_output"] == there["mlp_output"] == [
        0,
        1,
    ]
    assert wrong(lm, there) == {}


@pytest.mark.parametrize("kind", ["mixtral", "granite", "qwen3_5", "deepseek_v3"])
def test_sweeps_run_on_them(kind):
    from interp_helpers import patch_sweep

    lm = wrap(kind)
    base, source = families.BASE, families.SOURCE

    def metric(logits):
        return logits[:, 7] - logits[:, 11]

    metric.name = "difference"
    sweep = patch_sweep(lm, base, source, metric, "mlp_output", layers=[0, 2])
    acts = record(lm, source, "mlp_output")
    for i, layer in enumerate((0, 2)):
        for position in range(7):
            with intervene(lm, replace(Site("mlp_output", layer, position), acts)):
                assert torch.allclose(
                    metric(lm.next_token_logits(base)), sweep.values.view(2, 7)[i, position], atol=1e-5
                )


def test_the_text_decoder_of_a_multimodal_model():
    from transformers import AutoConfig, Gemma3ForConditionalGeneration

    text = dict(families.SMALL, sliding_window=32)
    known = AutoConfig.for_model("gemma3_text").to_dict()
    vision = dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = AutoConfig.for_model(
        "gemma3",
        text_config={k: v for k, v in text.items() if k in known},
        vision_config=vision | dict(model_type="siglip_vision_model"),
        mm_tokens_per_image=4,
    )
    torch.manual_seed(0)
    lm = LanguageModel(Gemma3ForConditionalGeneration(config).eval(), gpt2_tokenizer(), "gemma 3")
    there = offered(lm)
    assert lm.n_layers == 4 and all(layers == [0, 1, 2, 3] for layers in there.values())
    assert {k: v for k, v in wrong(lm, there).items() if not k.startswith("_")} == {}

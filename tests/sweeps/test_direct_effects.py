"""Direct logit attribution adds up to the logit difference, and each part is what its write alone would do."""

from __future__ import annotations

import pytest
import torch
from tiny import GROUPED, gpt2_tokenizer, tiny, tiny_model

from interp_helpers import LanguageModel, Site, intervene, logit_diff, record, zero
from interp_helpers.models import Asked
from interp_helpers.sweeps.direct_effects import direct_logit_attribution, frozen_norm

PROMPTS = ["The Eiffel Tower is in the city of", "One two three", "When Mary and John went to the store, John gave"]
RIGHT, WRONG = [" Paris", " four", " Mary"], [" Rome", " nine", " John"]
POST_NORM = ("gemma3_text", "olmo2")
SUMS = ["gpt2", "gpt_neox", "opt", "phi", *(f for f in GROUPED if f not in (*POST_NORM, "gemma2"))]


@pytest.fixture(scope="module", params=SUMS)
def family(request):
    return tiny(request.param)


def test_the_parts_add_up_to_the_logit_difference(family):
    effects = direct_logit_attribution(family, PROMPTS, RIGHT, WRONG)
    wanted = logit_diff(family, RIGHT, WRONG)(family.next_token_logits(PROMPTS))
    torch.testing.assert_close(effects.total, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(effects.heads.source, wanted, atol=1e-5, rtol=1e-5)
    assert effects.heads.values.shape == (3, family.n_layers, family.n_heads)
    assert effects.mlps.shape == (3, family.n_layers)
    assert effects.heads.values.abs().min() > 0


@pytest.mark.parametrize("kind, scale", [("cohere", {"logit_scale": 0.0625}), ("granite", {"logits_scaling": 8.0})])
def test_a_family_that_scales_its_logits(kind, scale):
    lm = tiny(kind, **scale)
    acts = record(lm, PROMPTS, "block_output")
    torch.testing.assert_close(lm.unembed(acts["block_output", 2]), acts.logits, atol=1e-5, rtol=1e-5)
    effects = direct_logit_attribution(lm, PROMPTS, RIGHT, WRONG)
    torch.testing.assert_close(effects.total, effects.heads.source, atol=1e-5, rtol=1e-4)


def test_parts_that_do_not_add_up_are_refused(monkeypatch):
    lm = LanguageModel(tiny_model(), gpt2_tokenizer())
    monkeypatch.setattr(lm.anatomy, "logit_scale", 3.0)  # as of a family that does something else to its logits
    with pytest.raises(ValueError, match="don't add up to its logit difference"):
        direct_logit_attribution(lm, PROMPTS, RIGHT, WRONG)


def test_padding_changes_nothing(family):
    together = direct_logit_attribution(family, PROMPTS, RIGHT, WRONG).heads.values
    alone = [direct_logit_attribution(family, p, r, w) for p, r, w in zip(PROMPTS, RIGHT, WRONG, strict=True)]
    torch.testing.assert_close(together, torch.cat([effects.heads.values for effects in alone]), atol=1e-5, rtol=1e-4)


def test_the_frozen_norm_is_the_norm_where_it_was_frozen_and_affine_elsewhere(family):
    stream = record(family, PROMPTS[0], "block_output")["block_output", family.n_layers - 1][:, -1]
    norm = frozen_norm(family, stream)
    torch.testing.assert_close(norm(stream), family.anatomy.norm(stream).detach(), atol=1e-5, rtol=1e-5)
    a, b = torch.randn(2, 1, family.d_model, generator=torch.Generator().manual_seed(0))
    zero_point = norm(torch.zeros_like(a))
    torch.testing.assert_close(norm(a + b) + zero_point, norm(a) + norm(b), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_head_of_the_last_block_removed_takes_its_direct_effect_with_it(name):
    lm = tiny(name)
    last = lm.n_layers - 1
    effects = direct_logit_attribution(lm, PROMPTS[0], " Paris", " Rome")
    stream = record(lm, PROMPTS[0], "block_output", "mlp_output")
    norm = frozen_norm(lm, stream["block_output", last][:, -1])
    with intervene(lm, zero(Site("attention_value_output", last, positions=-1, heads=2))):
        changed = record(lm, PROMPTS[0], "block_output", "mlp_output")
    write = [acts["block_output", last][:, -1] - acts["mlp_output", last][:, -1] for acts in (stream, changed)]
    logits = [lm.anatomy.unembedding(norm(x)) for x in write]
    lost = logit_diff(lm, " Paris", " Rome")(logits[0] - logits[1])
    torch.testing.assert_close(lost.detach(), effects.heads.values[:, last, 2], atol=1e-5, rtol=1e-4)


def test_the_heads_sweep_averages_and_names_its_cells():
    lm = tiny("gpt2")
    heads = direct_logit_attribution(lm, PROMPTS, RIGHT, WRONG).heads
    mean = heads.mean()
    assert mean.axes == ("layer", "head") and mean.labels["head"] == [0, 1, 2, 3] and mean.error is not None
    place, value = mean.top(1)[0]
    assert value == pytest.approx(float(mean.values[place["layer"], place["head"]]))
    assert float(heads.normalized.values[1, 0, 0]) == pytest.approx(float(heads.values[1, 0, 0] / heads.source[1]))


def test_token_ids_are_words_too():
    lm = tiny("gpt2")
    by_id = direct_logit_attribution(lm, PROMPTS[0], lm.token_id(" Paris"), lm.token_id(" Rome"))
    assert torch.equal(by_id.mlps, direct_logit_attribution(lm, PROMPTS[0], " Paris", " Rome").mlps)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_half_precision_adds_up_to_its_own_rounding(name):
    lm = LanguageModel(tiny_model(name).half(), gpt2_tokenizer(), "tiny")
    effects = direct_logit_attribution(lm, PROMPTS, RIGHT, WRONG)
    assert effects.heads.values.dtype == torch.float32
    torch.testing.assert_close(effects.total, effects.heads.source, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("name", POST_NORM)
def test_a_model_that_normalises_what_it_adds_is_refused(name):
    with pytest.raises(ValueError, match="In block 0 of tiny .* is not input \\+ attention \\+ MLP"):
        direct_logit_attribution(tiny(name), PROMPTS[0], " Paris", " Rome")


def test_squashed_logits_are_refused():
    with pytest.raises(ValueError, match="squashes its logits"):
        direct_logit_attribution(tiny("gemma2"), PROMPTS[0], " Paris", " Rome")


def test_the_model_is_left_as_it_was(lm):
    direct_logit_attribution(lm, PROMPTS, RIGHT, WRONG)
    assert all(parameter.grad is None for parameter in lm.model.parameters())


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_it_equals_transformer_lens(name, tmp_path):
    bridges = pytest.importorskip("transformer_lens.model_bridge", reason="TransformerLens is one of the peers")
    from transformers import AutoTokenizer

    model = tiny_model(name, attn_implementation="eager")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(tmp_path)
    gpt2_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    boot = bridges.TransformerBridge.boot_transformers
    bridge = boot(f"tiny/{name}", hf_model=model, tokenizer=tokenizer, device="cpu")
    lm = tiny(name, attn_implementation="eager")
    ids = lm.tokens(PROMPTS[0])
    _, cache = bridge.run_with_cache(torch.tensor(ids.tolist()))
    mine = direct_logit_attribution(lm, PROMPTS[0], " Paris", " Rome").heads.values[0]
    for layer in range(lm.n_layers):
        z = cache[f"blocks.{layer}.attn.hook_z"][0, -1]
        z = z.reshape(lm.n_heads, lm.d_head)
        weight = lm.anatomy.place("attention_output", layer).module.weight
        weight = weight if name == "gpt2" else weight.T  # Conv1D keeps it the other way round
        writes = torch.einsum("hd,hdm->hm", z, weight.reshape(lm.n_heads, lm.d_head, lm.d_model))
        unembedding = lm.anatomy.unembedding.weight
        answer = unembedding[lm.token_id(" Paris")] - unembedding[lm.token_id(" Rome")]
        last = cache[f"blocks.{lm.n_layers - 1}.hook_resid_post"][0, -1]
        if name == "gpt2":
            writes = writes - writes.mean(-1, keepdim=True)
            scale = ((last - last.mean()) ** 2).mean().add(lm.anatomy.norm.eps).sqrt()
        else:
            scale = (last**2).mean().add(lm.anatomy.norm.variance_epsilon).sqrt()
        wanted = (writes * lm.anatomy.norm.weight / scale) @ answer
        torch.testing.assert_close(mine[layer], wanted.detach(), atol=1e-4, rtol=1e-4)


def test_quantised_weights_are_refused_before_anything_runs():
    lm = tiny("llama")
    projection = lm.anatomy.place("attention_output", 0).module
    projection.weight = torch.nn.Parameter(projection.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="tiny llama has quantised weights.*load it in 16 or 32 bits"):
        direct_logit_attribution(lm, "The city of Rome", " Rome", " Cairo")


def test_offloaded_weights_are_told():
    cpu_offload = pytest.importorskip("accelerate").cpu_offload
    lm = tiny("gpt2")
    cpu_offload(lm.model, execution_device=torch.device("cpu"))
    with pytest.raises(
        ValueError, match="Some weights of tiny gpt2 are offloaded, .* load it with a device_map that keeps them"
    ):
        direct_logit_attribution(lm, "The cat", " a", " b")


def test_a_word_without_its_space_is_told_from_the_runs_own_logits(monkeypatch):
    seen = []
    monkeypatch.setattr(Asked, "check", lambda self, logits: seen.append(logits.clone()))
    lm = tiny("gpt2")
    direct_logit_attribution(lm, "The cat", "a", "b")
    torch.testing.assert_close(seen[0], lm.next_token_logits("The cat"))

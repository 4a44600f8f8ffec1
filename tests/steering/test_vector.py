"""Steering vectors: built as their formulas say, applied where they say, refused where they mean nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny

from interp_helpers import Site, SteeringVector, intervene, record
from interp_helpers.steering.build import CONTEXTS, pooled, residual_norms

WARM = ["The sun is warm today", "A warm summer evening by the lake", "Hot tea, warm soup"]
COLD = ["The ice is cold today", "A cold winter morning by the lake", "Cold tea and ice"]
STUBS = ["In the morning I", "We went"]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lm(request):
    return tiny(request.param)


@pytest.fixture(scope="module")
def vector(lm):
    return SteeringVector.from_contrast(lm, WARM, COLD, 1, name="warm")


def means(lm, texts, layer, take):
    """By hand, a text at a time: the mean over the tokens that `take` chooses."""
    rows = [record(lm, text, "block_output")["block_output", layer][0][take] for text in texts]
    return torch.stack([row.mean(0) for row in rows])


# -- build ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pooling, take",
    [("mean", slice(1, None)), ("last", slice(-1, None)), (("window", 2), slice(-2, None))],
    ids=["mean", "last", "window"],
)
def test_a_contrast_is_the_difference_of_means_without_the_first_token(lm, pooling, take):
    got = SteeringVector.from_contrast(lm, WARM, COLD, 1, pooling, normalize=False)
    wanted = means(lm, WARM, 1, take).mean(0) - means(lm, COLD, 1, take).mean(0)
    torch.testing.assert_close(got.direction, wanted, atol=1e-5, rtol=1e-5)
    assert got.scale == 1


def test_a_window_longer_than_a_text_leaves_out_its_first_token(lm):
    got, wanted = (pooled(lm, WARM, [Site("block_output", 0)], pooling) for pooling in (("window", 99), "mean"))
    torch.testing.assert_close(got, wanted)


def test_strength_one_is_the_residual_norm_without_the_first_token(lm, vector):
    rows = [record(lm, text, "block_output")["block_output", 1][0, 1:].norm(dim=-1) for text in COLD]
    assert vector.scale == pytest.approx(torch.cat(rows).mean().item(), rel=1e-5)
    assert vector.direction.norm() == pytest.approx(1, abs=1e-5)
    assert residual_norms(lm, COLD, [Site("block_output", 1)]) == [pytest.approx(vector.scale)]


def test_several_layers_come_from_one_pass_and_are_those_of_single_ones(lm):
    forwards = []
    watch = lm.model.register_forward_pre_hook(lambda module, inputs: forwards.append(1))
    several = SteeringVector.from_contrast(lm, WARM, COLD, [0, 2])
    watch.remove()
    assert len(forwards) == 3, "one for each list of texts, and one for the norms"
    for made, layer in zip(several, (0, 2), strict=True):
        torch.testing.assert_close(made.direction, SteeringVector.from_contrast(lm, WARM, COLD, layer).direction)
        assert made.layer == layer


def test_a_context_vector_compares_the_same_stubs_tokens_alone(lm):
    texts = ["One text here.", "Another one.", "A third."], ["Some other words.", "Yet more of them.", "The last."]
    got = SteeringVector.from_context(lm, *texts, STUBS, 1, cues=["I live in"])
    draw = torch.Generator().manual_seed(0)

    def after(texts, beginnings, last_only):
        rows = []
        for stub in beginnings:
            for _ in range(CONTEXTS):
                first, second = torch.randperm(3, generator=draw)[:2].tolist()
                own = 1 if last_only else len(lm.tokens(" " + stub)[0])
                rows.append(means(lm, [f"{texts[first]} {texts[second]} {stub}"], 1, slice(-own, None)))
        return torch.cat(rows).mean(0)

    everywhere = after(texts[0], STUBS, False) - after(texts[1], STUBS, False)
    at_cue = after(texts[0], ["I live in"], True) - after(texts[1], ["I live in"], True)
    wanted = everywhere / everywhere.norm() + at_cue / at_cue.norm()
    torch.testing.assert_close(got.direction, wanted / wanted.norm())


def test_training_makes_the_texts_likelier_within_the_norm_and_touches_no_weight(lm):
    before = {name: weight.clone() for name, weight in lm.model.state_dict().items()}
    wants = [p.requires_grad for p in lm.model.parameters()]
    texts = ["The lake is blue and very deep", ("I like", " the blue lake")]
    made = SteeringVector.train(lm, texts, 1, steps=15, lr=0.05, strength=0.3)
    first, last = made.provenance["loss"]
    assert last < first - 0.1
    assert made.strength <= 0.3 + 1e-5 and made.direction.norm() == pytest.approx(1, abs=1e-5)
    assert all(torch.equal(weight, before[name]) for name, weight in lm.model.state_dict().items())
    assert [p.requires_grad for p in lm.model.parameters()] == wants
    assert all(p.grad is None for p in lm.model.parameters())
    again = SteeringVector.train(lm, texts, 1, steps=15, lr=0.05, strength=0.3)
    torch.testing.assert_close(again.direction, made.direction)


def test_it_is_trained_where_gradients_are_off_and_says_where_there_are_none(lm):
    wanted = SteeringVector.train(lm, WARM, 1, steps=2)
    with torch.no_grad():
        assert torch.equal(SteeringVector.train(lm, WARM, 1, steps=2).direction, wanted.direction)
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match=r"Nothing can be learnt inside torch.inference_mode\(\)"),
    ):
        SteeringVector.train(lm, WARM, 1, steps=2)


def test_the_loss_of_a_pair_counts_the_continuation_alone(lm):
    made = SteeringVector.train(lm, [("The lake is", " blue today")], 1, steps=1)
    logp = lm("The lake is blue today")[0].log_softmax(-1)
    ids = lm.tokens("The lake is blue today")[0]
    start = len(lm.tokens("The lake is")[0])
    wanted = -torch.stack([logp[i - 1, ids[i]] for i in range(start, len(ids))]).mean()
    assert made.provenance["loss"][0] == pytest.approx(wanted.item(), rel=1e-4)


def test_layers_of_numpy_and_of_torch_are_layers(lm, vector):
    for one in (np.int64(1), torch.tensor(1)):
        assert torch.equal(SteeringVector.from_contrast(lm, WARM, COLD, one).direction, vector.direction)
        assert SteeringVector.from_context(lm, WARM, COLD, STUBS, one).layer == 1
        assert SteeringVector.train(lm, WARM, one, steps=1).layer == 1
    for several in (np.arange(1, 3), torch.arange(1, 3), range(1, 3)):
        assert [made.layer for made in SteeringVector.from_contrast(lm, WARM, COLD, several)] == [1, 2]
    assert isinstance(SteeringVector.from_contrast(lm, WARM, COLD, np.array([1])), list)


def test_a_vector_keeps_a_copy_of_its_direction(lm):
    given = torch.ones(lm.d_model)
    made = SteeringVector(given, 1)
    given.zero_()
    assert torch.equal(made.direction, torch.ones(lm.d_model))


def test_a_random_vector_is_as_long_and_its_seed_says_which(vector):
    random = vector.random(3)
    assert random.direction.norm() == pytest.approx(vector.direction.norm().item(), rel=1e-5)
    assert random.scale == vector.scale and random.layer == vector.layer
    assert torch.equal(random.direction, vector.random(3).direction)
    assert abs(random.direction @ vector.random(4).direction) < 0.9


# -- apply ------------------------------------------------------------------------------------------------------------

PROMPT = "The lake in the morning"


def block(lm, prompts=PROMPT):
    return record(lm, prompts, "block_output")["block_output", 1]


@pytest.mark.parametrize("strength", [0.4, -0.4])
def test_adding_adds_everywhere_but_at_the_first_token(lm, vector, strength):
    before = block(lm)
    with vector.apply(lm, strength):
        after = block(lm)
    step = strength * vector.scale * vector.direction
    torch.testing.assert_close(after[0, 1:], before[0, 1:] + step, atol=1e-5, rtol=1e-5)
    assert torch.equal(after[0, 0], before[0, 0])


@pytest.mark.parametrize("strength", [np.int64(1), np.float32(0.3), np.float64(0.3)], ids=repr)
def test_a_strength_of_numpys_is_a_number(lm, vector, strength):
    with vector.apply(lm, strength):
        after = lm(PROMPT)
    with vector.apply(lm, float(strength)):
        assert torch.equal(lm(PROMPT), after)


@pytest.mark.parametrize("strength", [0.4, -0.4])
def test_clamping_raises_the_direction_to_a_level_and_nothing_else(lm, vector, strength):
    before = block(lm)[0, 1:]
    with vector.apply(lm, strength, "clamp"):
        after = block(lm)[0, 1:]
    u = vector.direction * math.copysign(1, strength)
    torch.testing.assert_close(after @ u, (before @ u).clamp(min=0.4 * vector.scale), atol=1e-4, rtol=1e-4)
    change = after - before
    torch.testing.assert_close(change, (change @ u)[:, None] * u, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["add", "clamp"])
def test_keeping_the_norm_turns_the_activation_and_keeps_its_length(lm, vector, mode):
    before = block(lm)[0, 1:]
    with vector.apply(lm, 0.5, mode):
        steered = block(lm)[0, 1:]
    with vector.apply(lm, 0.5, mode, keep_norm=True):
        kept = block(lm)[0, 1:]
    torch.testing.assert_close(kept.norm(dim=-1), before.norm(dim=-1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.cosine_similarity(kept, steered), torch.ones(len(kept)), atol=1e-4, rtol=1e-4)


def test_padding_does_not_change_what_is_steered(lm, vector):
    prompts = [PROMPT, "Hi there"]
    with vector.apply(lm, 0.4):
        together, alone = lm.next_token_logits(prompts), [lm.next_token_logits(prompt) for prompt in prompts]
        texts, single = lm.generate(prompts, 6), [lm.generate(prompt, 6) for prompt in prompts]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)
    assert texts == single


@pytest.mark.parametrize("where", ["everywhere", "prompt", "new"])
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_where_it_acts_while_generating(lm, vector, where, use_cache):
    """By hand: a forward over everything at each step, the vector added at the rows that `where` names."""
    ids, width = lm.tokens(PROMPT)[0].tolist(), len(lm.tokens(PROMPT)[0])
    step = 2 * vector.scale * vector.direction

    def hook(module, args, output):
        h = (output[0] if isinstance(output, tuple) else output).clone()
        chosen = {"everywhere": slice(1, None), "prompt": slice(1, width), "new": slice(width, None)}[where]
        h[:, chosen] += step
        return (h, *output[1:]) if isinstance(output, tuple) else h

    handle = lm.anatomy.place("block_output", 1).module.register_forward_hook(hook)
    for _ in range(5):
        ids.append(lm(torch.tensor([ids]))[0, -1].argmax().item())
    handle.remove()
    with vector.apply(lm, 2, where=where):
        assert lm.generate(PROMPT, 5, use_cache=use_cache) == lm.tokenizer.decode(ids[width:])


def test_steering_the_new_tokens_leaves_the_first_of_them_alone(lm, vector):
    plain = lm.next_token_logits(PROMPT)
    with vector.apply(lm, 5, where="new"):
        first = lm.generate(PROMPT, 2)
        with pytest.raises(AssertionError):
            torch.testing.assert_close(lm.next_token_logits(PROMPT + first), plain)
    assert first.startswith(lm.tokenizer.decode(plain.argmax()))


@pytest.mark.parametrize("mode", ["add", "clamp"])
def test_no_strength_changes_nothing(lm, vector, mode):
    plain, logits = lm.generate(PROMPT, 8), lm(PROMPT)
    with vector.apply(lm, 0.0, mode):
        assert torch.equal(lm(PROMPT), logits)
        assert lm.generate(PROMPT, 8) == plain


def test_several_act_at_once_as_the_sum_of_what_each_adds(lm, vector):
    other = vector.random(1)
    with intervene(lm, vector.edit(lm, 0.3), other.edit(lm, 0.2)):
        both = lm(PROMPT)
    summed = SteeringVector(0.3 * vector.direction + 0.2 * other.direction, 1, model=lm.name, scale=vector.scale)
    with summed.apply(lm, 1.0):
        torch.testing.assert_close(lm(PROMPT), both, atol=1e-4, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    strength=st.floats(-3, 3), mode=st.sampled_from(["add", "clamp"]), where=st.sampled_from(["everywhere", "prompt"])
)
def test_whatever_is_applied_the_model_comes_back_bit_for_bit(strength, mode, where):
    lm = tiny("gpt2")
    vector = SteeringVector(torch.ones(lm.d_model), 1, model=lm.name)
    plain = lm(PROMPT)
    with vector.apply(lm, strength, mode, where=where):
        lm(PROMPT)
    assert torch.equal(lm(PROMPT), plain)


# -- refuse -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda lm, v: v.apply(lm, float("nan")), "strength is a finite number"),
        (lambda lm, v: v.apply(lm, "strong"), "strength is a finite number"),
        (lambda lm, v: v.apply(lm), "has no strength of its own: give one"),
        (lambda lm, v: v.apply(lm, 1, "subtract"), "mode='subtract' is unknown: choose 'add' or 'clamp'"),
        (lambda lm, v: v.apply(lm, 1, where="later"), "where='later' is unknown"),
        (lambda lm, v: v.apply(tiny("gpt2", num_hidden_layers=2), 1) if lm.name != "tiny gpt2" else v.apply(tiny("opt"), 1), "was built on"),
        (lambda lm, v: SteeringVector.from_contrast(lm, [], COLD, 1), "A list of texts was expected"),
        (lambda lm, v: SteeringVector.from_contrast(lm, "warm", COLD, 1), "A list of texts was expected"),
        (lambda lm, v: SteeringVector.from_contrast(lm, ["a"], COLD, 1), "'a' is a single token"),
        (lambda lm, v: SteeringVector.from_contrast(lm, WARM, WARM, 1), "The direction is zero"),
        (lambda lm, v: SteeringVector.from_contrast(lm, WARM, COLD, 9), "layers 0 to 2"),
        (lambda lm, v: SteeringVector.from_contrast(lm, WARM, COLD, 1, "max"), "pooling='max' is unknown"),
        (lambda lm, v: SteeringVector.from_contrast(lm, WARM, COLD, 1, ("window", 0)), "pooling=('window', 0) is unknown"),
        (lambda lm, v: SteeringVector.from_context(lm, WARM[:1], COLD, STUBS, 1), "A context takes two texts"),
        (lambda lm, v: SteeringVector.from_context(lm, "warm", COLD, STUBS, 1), "texts was expected, one at least, and 'warm'"),
        (lambda lm, v: SteeringVector.from_context(lm, WARM, "cold", STUBS, 1), "texts was expected, one at least, and 'cold'"),
        (lambda lm, v: SteeringVector.from_context(lm, WARM, COLD, "We went", 1), "texts was expected, one at least, and 'We went'"),
        (lambda lm, v: SteeringVector.from_context(lm, WARM, COLD, STUBS, 1, cues="I am"), "texts was expected, one at least, and 'I am'"),
        (lambda lm, v: SteeringVector.from_context(lm, WARM, COLD, [], 1), "and 0 stubs"),
        (lambda lm, v: SteeringVector.train(lm, "warm", 1), "A list of texts was expected, one at least, and 'warm'"),
        (lambda lm, v: SteeringVector.train(lm, [], 1), "needs texts, steps and a positive strength"),
        (lambda lm, v: SteeringVector.train(lm, ["Two words"], 1, steps=0), "got 1 texts, 0 steps and 0.5"),
        (lambda lm, v: SteeringVector.train(lm, [("The lake", "")], 1), "There is no token to learn from in ('The lake', '')"),
        (lambda lm, v: SteeringVector.train(lm, WARM, [0, 1]), "layers 0 to 2, and layer [0, 1]"),
        (lambda lm, v: SteeringVector.train(lm, WARM, 3), "layers 0 to 2, and layer 3"),
        (lambda lm, v: SteeringVector(torch.tensor([1.0, float("inf")]), 1), "finite numbers"),
        (lambda lm, v: SteeringVector(torch.ones(2, 2), 1), "a tensor (2, 2)"),
        (lambda lm, v: SteeringVector(torch.ones(2), 1, strength="strong"), "strength is a finite number, such as 0.3, and 'strong'"),
        (lambda lm, v: SteeringVector(torch.ones(2), 1, scale=float("inf")), "scale is a finite number"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_a_sentence(lm, vector, call, sentence):
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())
    with pytest.raises(ValueError) as error:
        call(lm, vector)
    assert sentence in str(error.value)
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules()) == hooks


# -- keep -------------------------------------------------------------------------------------------------------------


def test_a_file_brings_back_everything(lm, vector, tmp_path):
    trained = SteeringVector.train(lm, WARM, 1, steps=2, name="trained")
    for made in (vector, trained, vector.random(1)):
        path = made.save(str(tmp_path / "v.safetensors"))
        assert path == tmp_path / "v.safetensors"
        back = SteeringVector.load(path)
        assert torch.equal(back.direction, made.direction)
        for key in ("layer", "component", "name", "model", "scale", "strength", "mode", "provenance"):
            assert getattr(back, key) == getattr(made, key)


def test_numbers_of_numpys_are_kept_too(lm, tmp_path):
    numbers = dict(scale=np.float32(2), strength=np.float64(0.5))
    trained = SteeringVector.train(lm, WARM, np.int64(1), steps=1)
    for made in (SteeringVector(torch.ones(lm.d_model), np.int64(1), **numbers), trained):
        made.save(tmp_path / "v.safetensors")
        back = SteeringVector.load(tmp_path / "v.safetensors")
        assert (back.layer, back.scale, back.strength) == (1, made.scale, made.strength)
        assert back.provenance == made.provenance


def test_the_hash_tells_the_texts_apart(lm, vector):
    assert vector.provenance["hash"] == SteeringVector.from_contrast(lm, WARM, COLD, 0).provenance["hash"]
    assert vector.provenance["hash"] != SteeringVector.from_contrast(lm, WARM[:2], COLD, 0).provenance["hash"]


def test_another_file_is_refused(tmp_path, vector):
    (tmp_path / "text").write_text("not tensors")
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, tmp_path / "other")
    for name in ("text", "other"):
        with pytest.raises(ValueError, match="is not a steering vector"):
            SteeringVector.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        SteeringVector.load(tmp_path / "nothing")


def test_vectors_of_other_tools_are_described_and_the_sentence_makes_one(lm, vector, tmp_path):
    import gguf
    import safetensors.torch

    rows = {"layer.2": torch.randn(32), "layer.1": torch.randn(32)}
    safetensors.torch.save_file(rows, tmp_path / "other.safetensors")
    vector.to_gguf(tmp_path / "v.gguf")
    for name, held, wanted in (
        ("other.safetensors", "it holds 'layer.1' (32,), 'layer.2' (32,)", rows["layer.1"]),
        ("v.gguf", "it holds 'direction.1' (32,)", vector.scale * vector.direction),
    ):
        path = tmp_path / name
        with pytest.raises(ValueError, match="is not a steering vector that was saved here") as error:
            SteeringVector.load(path)
        said = str(error.value)
        assert held in said and "counted from 0" in said
        names = {
            "SteeringVector": SteeringVector,
            "torch": torch,
            "gguf": gguf,
            "safetensors": safetensors,
            "path": path,
            "lm": lm,
        }
        made = eval(said[said.index("SteeringVector(") : said.rindex(".")], names)
        torch.testing.assert_close(made.direction, wanted)
        assert (made.layer, made.model) == (1, lm.name)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, and then nothing of the kind" * 9)
    with pytest.raises(ValueError, match="is not a steering vector that was saved here"):
        SteeringVector.load(tmp_path / "broken.gguf")
    with pytest.raises(ValueError, match="is a folder, and a file that SteeringVector.save wrote was expected"):
        SteeringVector.load(tmp_path)


def test_the_gguf_reader_reads_the_control_vector_back(vector, tmp_path):
    vector.to_gguf(tmp_path / "v.gguf")
    reader = GGUFReader(tmp_path / "v.gguf")
    (tensor,) = reader.tensors
    assert tensor.name == "direction.1"
    np.testing.assert_allclose(tensor.data, vector.scale * vector.direction.numpy(), rtol=1e-6)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == vector.model
    assert fields["controlvector.layer_count"] == 1


def test_layer_0_has_no_place_in_a_control_vector(lm, tmp_path):
    with pytest.raises(ValueError, match="from layer 1 on"):
        SteeringVector.from_contrast(lm, WARM, COLD, 0).to_gguf(tmp_path / "v.gguf")
    assert not (tmp_path / "v.gguf").exists()

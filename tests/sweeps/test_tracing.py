"""Causal tracing: the three runs by hand, roles averaged, seeds, and bad input."""

from __future__ import annotations

import pytest
import torch
from plain import close
from tiny import tiny, tiny_model

from interp_helpers import (
    LanguageModel,
    Site,
    add,
    average_traces,
    causal_trace,
    embedding_std,
    intervene,
    probability,
    record,
    replace,
)
from interp_helpers.sweeps import tracing
from interp_helpers.sweeps.tracing import ROLES

PROMPT, SUBJECT, ANSWER = "The Eiffel Tower is in the city of", "Eiffel Tower", " Paris"
SPAN = range(1, 5)


def draws(lm, samples=3, std=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return std * lm.anatomy.embedding.weight.std() * torch.randn(samples, len(SPAN), lm.d_model, generator=generator)


def by_hand(lm, noise, component, layers, position, heads=None):
    """The answer's probability, mean over samples: whole runs, one at a time."""
    clean, metric = record(lm, PROMPT, component), probability(lm, ANSWER)
    found = []
    for draw in noise:
        corrupt = add(Site("block_input", 0, positions=SPAN), draw[None])
        restore = [replace(Site(component, layer, position, heads), clean) for layer in layers]
        with intervene(lm, corrupt, *restore):
            found.append(metric(lm.next_token_logits(PROMPT))[0])
    return torch.stack(found)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
@pytest.mark.parametrize(
    "component, window", [("block_output", 1), ("mlp_output", 2), ("attention_output", 10), ("block_input", 1)]
)
def test_the_three_runs_by_hand(family, component, window):
    lm = tiny(family)
    trace = causal_trace(lm, PROMPT, SUBJECT, ANSWER, component, window=window, samples=3)
    noise = draws(lm)
    assert trace.subject == SPAN and trace.axes == ("layer", "position") and trace.values.shape == (3, 10)
    close(trace.clean, probability(lm, ANSWER)(lm.next_token_logits(PROMPT))[0])
    with_noise = by_hand(lm, noise, "block_output", [], 0)
    for layer, position in [(0, 1), (1, 4), (2, 9), (0, 6)]:
        layers = range(max(0, layer - window // 2), min(3, layer - window // 2 + window))
        found = by_hand(lm, noise, component, layers, position)
        close(trace.values[layer, position], found.mean(), atol=1e-7)
        close(trace.error[layer, position], (found - with_noise).std() / 3**0.5, atol=1e-8)
    close(trace.corrupted, with_noise.mean(), atol=1e-7)
    close(trace.total_effect, trace.clean - trace.corrupted)
    close(trace.indirect_effect.values, trace.values - trace.corrupted)
    assert abs(float(trace.total_effect)) > 1e-7  # a random model's probabilities are small


def test_the_last_token_of_the_last_block_brings_everything_back(lm):
    trace = causal_trace(lm, PROMPT, SUBJECT, ANSWER, samples=2)
    close(trace.values[-1, -1], trace.clean, atol=1e-8)
    close(trace.indirect_effect.values[-1, -1], trace.total_effect, atol=1e-8)
    assert torch.equal(trace.values[:, 0], trace.corrupted.expand(3))  # nothing is corrupted before the subject
    assert not trace.error[:, 0].any() and trace.indirect_effect.error[-1, -1] > 0


def test_restoring_every_subject_token_where_the_noise_went_in_is_the_clean_run(lm):
    trace = causal_trace(lm, PROMPT, SUBJECT, ANSWER, "block_input", layers=[0], positions={"subject": SPAN}, samples=2)
    close(trace.values[0, 0], trace.clean, atol=1e-8)


def test_heads(lm):
    trace = causal_trace(lm, PROMPT, SUBJECT, ANSWER, "attention_value_output", heads=[0, 3], positions=-1, samples=2)
    assert trace.axes == ("layer", "head")
    found = by_hand(lm, draws(lm, 2), "attention_value_output", [1], -1, heads=3)
    close(trace.values[1, 1], found.mean(), atol=1e-7)


def test_seeds_reproduce_and_leave_the_global_state_alone(lm):
    state = torch.get_rng_state()
    one, again, other = (causal_trace(lm, PROMPT, SUBJECT, ANSWER, samples=2, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.values, again.values)
    assert not torch.allclose(one.values, other.values, rtol=1e-3)


def test_the_noise_itself_may_be_given(lm):
    seeded = causal_trace(lm, PROMPT, SUBJECT, ANSWER, noise=2.0, samples=3, seed=7)
    given = causal_trace(lm, PROMPT, range(1, 5), ANSWER, noise=draws(lm, 3, 2.0, 7))
    close(seeded.values, given.values, atol=1e-8)


@pytest.mark.parametrize("family", ["gpt2", "gemma", "gemma3_text"])
def test_sigma_is_in_the_stream_s_own_units(family):
    lm = tiny(family)
    token = lm.tokens("Paris")
    entering = record(lm, token, "block_input")["block_input", 0][0, 0]
    embedding = lm.anatomy.embedding.weight[token[0, 0]].detach()
    if family == "gpt2":  # whose positions are added
        entering = entering - lm.model.transformer.wpe.weight[0].detach()
    scale = float(entering.norm() / embedding.norm())
    assert embedding_std(lm) == pytest.approx(scale * float(lm.anatomy.embedding.weight.detach().std()), rel=1e-3)


def test_chosen_layers_and_positions(lm):
    whole = causal_trace(lm, PROMPT, SUBJECT, ANSWER, samples=2)
    some = causal_trace(lm, PROMPT, SUBJECT, ANSWER, samples=2, layers=[2, 0], positions=[4, -1])
    close(some.values, whole.values[[2, 0]][:, [4, 9]], atol=1e-8)
    assert some.places == ((4,), (9,))


# -- averages -----------------------------------------------------------------------------------------------------------


def test_averages_by_role(lm):
    prompts = [(PROMPT, SUBJECT), ("The capital of France is", "France"), ("The town of Rome is", "town of Rome")]
    traces = [causal_trace(lm, prompt, subject, ANSWER, samples=2) for prompt, subject in prompts]
    mean = average_traces(traces)
    effects = [trace.indirect_effect.values for trace in traces]
    assert mean.axes == ("layer", "role")
    names = [label.split(" (")[0] for label in mean.labels["role"]]
    assert names == list(ROLES)
    column = {name: i for i, name in enumerate(names)}
    last = torch.stack([effects[0][:, 4], effects[1][:, 3], effects[2][:, 3]])
    close(mean.values[:, column["last subject token"]], last.mean(0), atol=1e-8)
    close(mean.error[:, column["last subject token"]], last.std(0) / 3**0.5, atol=1e-8)
    close(
        mean.values[:, column["middle subject tokens"]], (effects[0][:, 2:4].mean(1) + effects[2][:, 2]) / 2, atol=1e-8
    )
    close(mean.values[:, column["last token"]], torch.stack([e[:, -1] for e in effects]).mean(0), atol=1e-8)
    assert mean.labels["role"][column["further tokens"]] == "further tokens (1 of 3)"
    assert mean.labels["role"][column["last subject token"]] == "last subject token"
    close(mean.source, torch.stack([t.total_effect for t in traces]).mean(), atol=1e-8)


def test_what_cannot_be_averaged(lm):
    one = causal_trace(lm, PROMPT, SUBJECT, ANSWER, samples=1)
    for other, message in [
        (causal_trace(lm, PROMPT, SUBJECT, ANSWER, "mlp_output", samples=1), "don't go together.*mlp_output"),
        (causal_trace(lm, PROMPT, SUBJECT, ANSWER, samples=1, layers=[0]), "don't go together"),
        (
            causal_trace(lm, PROMPT, SUBJECT, ANSWER, "query_output", samples=1, layers=[0], heads=[0]),
            r"block_output at layers \[0, 1, 2\], by position, another of query_output at layers \[0\], by head",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            average_traces([one, other])
    spans = causal_trace(lm, PROMPT, SUBJECT, ANSWER, samples=1, positions={"subject": SPAN})
    for wrong, message in [
        ([], "one or more"),
        ([one.values], "one or more"),
        ([spans], "single tokens"),
        (one, "one or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            average_traces(wrong)


def test_positions_mean_the_same_whatever_the_number_of_samples(lm):
    for samples in (1, 2, 3):
        trace = causal_trace(lm, PROMPT, SUBJECT, ANSWER, samples=samples, layers=[0], positions=[[0], [1]])
        assert trace.places == ((0,), (1,)) and trace.labels["position"] == ["[0]", "[1]"]
    with pytest.raises(ValueError, match="given for 2 rows, one sequence a pair, and there are 1"):
        causal_trace(lm, PROMPT, SUBJECT, ANSWER, samples=2, layers=[0], positions={"x": [[0], [1]]})


def test_a_trace_is_averaged_with_others_and_not_over_itself(lm):
    with pytest.raises(ValueError, match="A trace is of one prompt.* average_traces takes several"):
        causal_trace(lm, PROMPT, SUBJECT, ANSWER, samples=1, layers=[0]).mean()


def test_a_subject_may_be_one_position_and_the_model_one_of_inference_mode(lm):
    assert causal_trace(lm, PROMPT, 1, ANSWER, samples=1, layers=[0]).subject == range(1, 2)
    with torch.inference_mode():
        inside = LanguageModel(tiny_model(), lm.tokenizer)
        assert tracing.embedding_std(inside) == pytest.approx(tracing.embedding_std(lm))


def test_the_draws_are_those_of_a_trace(lm):
    trace = causal_trace(lm, PROMPT, SUBJECT, ANSWER, samples=2, seed=4, noise=2.0, layers=[0])
    given = tracing.draws(lm, len(SPAN), noise=2.0, samples=2, seed=4)
    assert torch.equal(causal_trace(lm, PROMPT, SUBJECT, ANSWER, noise=given, layers=[0]).values, trace.values)


# -- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(prompt=[PROMPT, PROMPT]),
            "causal_trace takes one prompt, and 2 were given: trace each, and average_traces",
        ),
        (dict(prompt=[PROMPT, PROMPT], subject=SPAN), "causal_trace takes one prompt, and 2 were given"),
        (dict(component="attention_weight"), "attention_weight has shares of attention, and no vectors"),
        (dict(subject="Colosseum"), "does not occur"),
        (dict(prompt=[PROMPT]), "One prompt is searched, a string, and list was given"),
        (dict(subject=[1, 3]), "neighbouring positions"),
        (dict(subject=[]), "neighbouring positions"),
        (dict(subject=[9, 10]), "neighbouring positions of it .0 to 9."),
        (dict(noise=0.0), "corrupts nothing"),
        (dict(samples=0), "corrupts nothing"),
        (dict(noise=torch.zeros(2, 3, 32)), r"\(…, 4, 32\).*\(2, 3, 32\)"),
        (dict(answer=" Eiffel Tower"), "one token was expected"),
        (dict(component="attention"), "no component"),
        (dict(layers=[3]), "layers 0 to 2"),
        (dict(positions=[10]), "outside row"),
        (dict(window=0), "one layer or more"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(lm, change, message):
    options = dict(prompt=PROMPT, subject=SUBJECT, answer=ANSWER) | change
    with pytest.raises(ValueError, match=message):
        causal_trace(lm, options.pop("prompt"), options.pop("subject"), options.pop("answer"), **options)


def test_the_figure_s_tokens_stand_on_the_axis(lm):
    trace = causal_trace(lm, PROMPT, SUBJECT, ANSWER, samples=3, layers=[0])
    assert trace.labels["position"] == [f"{i} {token}" for i, token in enumerate(lm.str_tokens(PROMPT))]
    assert "probability of Paris; corrupted" in repr(trace)


def test_sigma_is_measured_anew_when_the_embeddings_change():
    lm = tiny("gpt2")
    before = embedding_std(lm)
    with torch.no_grad():
        lm.anatomy.embedding.weight.mul_(2)
    assert embedding_std(lm) == pytest.approx(2 * before)

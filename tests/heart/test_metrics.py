"""Each metric is its formula, on the logits of the last position."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from plain import close

from interp_helpers import kl_divergence, logit_diff, probability, rank

PARIS, ROME, LONDON = 6342, 10598, 3576


@pytest.fixture(scope="module")
def logits():
    return 3 * torch.randn(3, 50257, generator=torch.Generator().manual_seed(0))


def test_the_words_of_these_tests_are_tokens(lm):
    assert [lm.token_id(word) for word in (" Paris", " Rome", " London")] == [PARIS, ROME, LONDON]


def test_logit_diff(lm, logits):
    close(logit_diff(lm, " Rome", " Paris")(logits), logits[:, ROME] - logits[:, PARIS])


def test_logit_diff_of_half_precision_is_taken_in_single(lm, logits):
    half = logits.bfloat16()
    found = logit_diff(lm, " Rome", " Paris")(half)
    assert found.dtype == torch.float32 and torch.equal(found, half[:, ROME].float() - half[:, PARIS].float())


def test_probability(lm, logits):
    expected = [math.exp(row[PARIS]) / sum(map(math.exp, row)) for row in logits.double().tolist()]
    torch.testing.assert_close(probability(lm, " Paris")(logits), torch.tensor(expected), rtol=1e-4, atol=0)


def test_rank(lm, logits):
    expected = [sorted(row, reverse=True).index(row[PARIS]) + 1 for row in logits.tolist()]
    ranks = rank(lm, " Paris")(logits)
    assert ranks.tolist() == expected and ranks.dtype == torch.float32


def test_the_first_choice_has_rank_one_and_the_last_rank_vocab(lm, logits):
    assert rank(lm, int(logits[0].argmax()))(logits[:1]).item() == 1
    assert rank(lm, int(logits[0].argmin()))(logits[:1]).item() == 50257


@pytest.mark.parametrize("rows", ["one", "one of a batch", "each"])
def test_kl_divergence(logits, rows):
    reference = {"one": logits[0] / 2, "one of a batch": logits[:1] / 2, "each": logits / 2}[rows]
    p, q = reference.double().softmax(-1), logits.double().softmax(-1)
    expected = (p * (p.log() - q.log())).sum(-1).float()
    torch.testing.assert_close(kl_divergence(reference)(logits), expected, rtol=1e-4, atol=1e-5)


def test_kl_divergence_from_itself_is_zero(logits):
    close(kl_divergence(logits)(logits), torch.zeros(3))


def test_kl_divergence_has_a_reference_for_every_row_or_one(logits):
    with pytest.raises(ValueError, match="The reference has 2 rows, and 3 were measured"):
        kl_divergence(logits[:2])(logits)
    with pytest.raises(ValueError, match="The reference has 3 rows, and 1 were measured"):
        kl_divergence(logits)(logits[:1])


def test_what_is_no_number_is_nobody_s_first_choice(lm, logits):
    broken = torch.full_like(logits, torch.nan)
    assert (rank(lm, " Paris")(broken) > 50000).all()


@pytest.mark.parametrize("word", [None, 3.0])
def test_a_word_is_a_string_or_an_id(lm, word):
    with pytest.raises(
        ValueError, match=f"A word that is one token, or a token id, was expected, and {word} was given"
    ):
        logit_diff(lm, word, " Rome")


@pytest.mark.parametrize("reference", [torch.zeros(1, 4, 50257), torch.tensor(1.0)])
def test_kl_divergence_refuses_a_whole_run_for_a_reference(reference):
    with pytest.raises(ValueError, match="final position's logits, .* use lm.next_token_logits"):
        kl_divergence(reference)


@pytest.mark.parametrize(
    "words", [[" Paris", " Rome", " London"], (PARIS, ROME, " London"), torch.tensor([PARIS, ROME, LONDON])], ids=type
)
def test_one_word_a_row(lm, logits, words):
    own = torch.tensor([PARIS, ROME, LONDON])
    chosen = logits[torch.arange(3), own]
    close(logit_diff(lm, words, " Rome")(logits), chosen - logits[:, ROME])
    close(logit_diff(lm, " Rome", words)(logits), logits[:, ROME] - chosen)
    close(probability(lm, words)(logits), logits.softmax(-1)[torch.arange(3), own])
    assert rank(lm, words)(logits).tolist() == [1 + int((logits[i] > chosen[i]).sum()) for i in range(3)]


@pytest.mark.parametrize("word", [PARIS, np.int64(PARIS), torch.tensor(PARIS)], ids=type)
def test_a_token_id_serves_for_a_word(lm, logits, word):
    assert torch.equal(probability(lm, word)(logits), probability(lm, " Paris")(logits))


def test_metrics_are_differentiable(lm, logits):
    for metric in (logit_diff(lm, ROME, PARIS), probability(lm, ROME), kl_divergence(logits[0])):
        x = logits.clone().requires_grad_()
        metric(x).sum().backward()
        assert x.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_probabilities_are_computed_in_float32(lm, logits, dtype):
    half = logits.to(dtype)
    assert probability(lm, PARIS)(half).dtype == kl_divergence(half)(half).dtype == torch.float32
    close(probability(lm, PARIS)(half), probability(lm, PARIS)(half.float()))


def test_metrics_carry_names_for_a_figure_s_axis(lm, logits):
    assert logit_diff(lm, " Rome", " Paris").name == "logit(Rome) − logit(Paris)"
    assert logit_diff(lm, ROME, [" Paris", " London"]).name == f"logit(token {ROME}) − logit(the answer)"
    assert probability(lm, " Paris").name == "probability of Paris"
    assert rank(lm, " Paris").name == "rank of Paris"
    assert kl_divergence(logits[0]).name == "KL(reference ‖ measured), nats"


@pytest.mark.parametrize("shape", [(50257,), (1, 4, 50257)])
def test_a_metric_refuses_anything_but_final_logits(lm, shape):
    for metric in (
        logit_diff(lm, ROME, PARIS),
        probability(lm, PARIS),
        rank(lm, PARIS),
        kl_divergence(torch.zeros(50257)),
    ):
        with pytest.raises(
            ValueError, match=r"takes the final position's logits \(batch, vocab\), and got .*next_token_logits"
        ):
            metric(torch.zeros(shape))


def test_a_metric_with_one_word_a_row_refuses_other_numbers_of_rows(lm, logits):
    with pytest.raises(ValueError, match="A metric with 2 words, one a row, was given 3 rows"):
        probability(lm, [PARIS, ROME])(logits)


@pytest.mark.parametrize("make", [probability, rank, lambda lm, word: logit_diff(lm, " Rome", word)])
@pytest.mark.parametrize(
    "word, says",
    [(" Reykjavik", "tokens for tiny gpt2"), (50257, "outside the vocabulary"), ([" Rome", "x y"], "'x y' is 2")],
)
def test_a_word_that_is_not_one_token_is_refused_at_once(lm, make, word, says):
    with pytest.raises(ValueError, match=says):
        make(lm, word)

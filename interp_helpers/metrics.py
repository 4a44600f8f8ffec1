"""What an experiment measures: functions from a prompt's final logits (batch, vocab) to one number a row (batch,).

    metric = logit_diff(lm, " Rome", " Paris")
    metric(lm.next_token_logits("The Colosseum is in the city of"))      # tensor([5.1])

The logit difference is linear in the last residual stream (up to the final norm) and shows an answer that is pushed
*down* as clearly as one that is pushed up; a probability saturates and hides whatever happens below the top (Zhang
& Nanda 2024, section 4). A word may be given as a string that is one token (mind the leading space), or as a token
id; a sequence of them, one a row, measures another answer in each row of a batch. A warning says so where a word without
its leading space is asked for, and the model would say the one with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .models import Asked

Words = str | int | Sequence[str | int]


@dataclass(frozen=True)
class Metric:
    """A named function from logits (batch, vocab) to values (batch,); the name goes on a figure's axis."""

    name: str
    function: Callable[[Tensor], Tensor]
    asked: tuple[Asked, ...] = ()  # its words

    def __call__(self, logits: Tensor) -> Tensor:
        if logits.ndim != 2:
            raise ValueError(
                f"A metric takes the final position's logits (batch, vocab), and got {tuple(logits.shape)}: use "
                "lm.next_token_logits(prompt), or logits[:, -1] where no row is padded."
            )
        for words in self.asked:
            words.check(logits)
        return self.function(logits)


def logit_diff(lm, right: Words, wrong: Words) -> Metric:
    """logit(right) − logit(wrong): positive where the model prefers `right`; in nats of log odds.

    >>> leaning = logit_diff(lm, " Paris", " Rome")(lm.next_token_logits([source, base]))
    >>> leaning.shape, (leaning > 0).tolist()
    (torch.Size([2]), [True, False])

    Raises:
        ValueError: a word that is not one token.
    """
    a, b = Asked(lm, right), Asked(lm, wrong)
    name = f"logit({_name(right)}) − logit({_name(wrong)})"
    return Metric(name, lambda x: _pick(x, a.ids).float() - _pick(x, b.ids).float(), (a, b))


def probability(lm, word: Words) -> Metric:
    """The probability of a word as the next token, between 0 and 1.

    >>> p = probability(lm, " Paris")(lm.next_token_logits(source))
    >>> round(p.item(), 1)
    0.7
    """
    asked = Asked(lm, word)
    return Metric(f"probability of {_name(word)}", lambda x: _pick(x.float().softmax(-1), asked.ids), (asked,))


def rank(lm, word: Words) -> Metric:
    """The word's rank among all next tokens: 1 is the model's first choice. Equally likely tokens share a rank; NaN comes last.

    >>> rank(lm, " Rome")(lm.next_token_logits([base, source])).tolist()
    [1.0, 2.0]
    """
    asked = Asked(lm, word)

    def place(x: Tensor) -> Tensor:
        return 1 + (~(x <= _pick(x, asked.ids)[:, None])).sum(-1).to(torch.float32)

    return Metric(f"rank of {_name(word)}", place, (asked,))


def kl_divergence(reference_logits: Tensor) -> Metric:
    """KL(reference ‖ measured) between next-token distributions, in nats; 0 where nothing changed.

    >>> logits = lm.next_token_logits(base)
    >>> kl_divergence(logits)(logits).item()
    0.0
    >>> kl_divergence(logits)(lm.next_token_logits(source)).item() > 1
    True

    Args:
        reference_logits: (vocab,), (1, vocab) or (batch, vocab), such as the unpatched run's.
    """
    reference_logits = torch.as_tensor(reference_logits)
    if reference_logits.ndim not in (1, 2):
        raise ValueError(
            f"The reference is a final position's logits, (vocab,) or (batch, vocab), and {tuple(reference_logits.shape)} was "
            "given: use lm.next_token_logits(prompt)."
        )
    reference = reference_logits.float().log_softmax(-1)

    def divergence(x: Tensor) -> Tensor:
        if reference.ndim == 2 and len(reference) not in (1, len(x)):
            raise ValueError(
                f"The reference has {len(reference)} rows, and {len(x)} were measured: give it one, or as many."
            )
        return (reference.exp() * (reference - x.float().log_softmax(-1))).sum(-1)

    return Metric("KL(reference ‖ measured), nats", divergence)


def _pick(values: Tensor, ids: Tensor) -> Tensor:
    if len(ids) not in (1, len(values)):
        raise ValueError(f"A metric with {len(ids)} words, one a row, was given {len(values)} rows.")
    return values.gather(1, ids.to(values.device).expand(len(values))[:, None])[:, 0]


def _name(words: Words) -> str:
    return words.strip() if isinstance(words, str) else f"token {words}" if isinstance(words, int) else "the answer"

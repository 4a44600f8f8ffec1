"""The texts without and with steering, token by token, from one forward pass a token.

Three rows run as one batch with a key-value cache: row 0 is the base text, unsteered; row 1 is steered; row 2 reads row 1's
tokens, but unsteered. So each steered token comes with how much the steering moved its probability, and on a small model
three rows take hardly longer than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from ..hooks import Edit, intervene
from ..models import LanguageModel, Spots
from ..steering import SAMPLING, SteeringVector

COLDEST = 0.01  # a temperature below it is greedy: logits divided by less overflow


@dataclass(frozen=True)
class Piece:
    """A piece of text as it is written: a token, or the tokens that make up one character.

    Attributes:
        side: "base" or "steered".
        text: leading space included; the pieces of a side, joined, are its text.
        shift: of steered pieces, log p(steered) − log p(unsteered) in nats, both after the same text and at temperature 1
            without the repetition penalty.
    """

    side: str
    text: str
    shift: float | None = None


class Vectors:
    """The steering vectors of the page, by persona; those at other layers are built on first use and kept.

    Args:
        own: a vector for each persona, at the layer that was measured, with the strength to be used by default.
        titles: the personas' names for people.
        build: makes a persona's vector at another layer.
    """

    def __init__(
        self,
        own: Mapping[str, SteeringVector],
        titles: Mapping[str, str],
        build: Callable[[str, int], SteeringVector],
    ):
        self.own, self.titles, self._build = own, titles, build
        self.made = {(persona, vector.layer): vector for persona, vector in own.items()}

    def at(self, persona: str, layer: int) -> SteeringVector:
        """A persona's vector at a layer. It may run the model, so call it where the model is run."""
        if (persona, layer) not in self.made:
            self.made[persona, layer] = self._build(persona, layer)
        return self.made[persona, layer]


def write(
    lm: LanguageModel,
    prompt: str,
    steering: Sequence[tuple[SteeringVector, float]],
    max_length: int,
    temperature: float,
    seed: int,
    *,
    base: bool = True,
) -> Iterator[Piece]:
    """Continue a prompt with and without steering, and yield the pieces of both texts as they are written.

    Both sides draw with the same seed, so that without steering they write the same. The global random state is left alone.

    Args:
        lm: the model; hooks hang on it until the iterator is used up or closed.
        prompt: one text.
        steering: vectors of this model and their strengths, all of which act at once; none leaves the text unsteered.
        max_length: how many tokens at most, on either side.
        temperature: of the sampling; 0 always takes the likeliest token.
        seed: of the sampling.
        base: write the base text, too, and tell the shifts; otherwise the steered text alone.
    """
    prompt_ids = lm.tokens(prompt)[0].tolist()
    row = 1 if base else 0
    steered = Row(lm, "steered", prompt_ids, temperature, seed)
    rows = [Row(lm, "base", prompt_ids, temperature, seed), steered, steered] if base else [steered]
    edits = [_on_row(vector.edit(lm, strength), row) for vector, strength in steering]
    ids, past = torch.tensor([prompt_ids] * len(rows), device=lm.device), None
    with ExitStack() as stack:
        if edits:
            stack.enter_context(intervene(lm, *edits))
        for n in range(max_length):
            mask = torch.ones(len(rows), len(prompt_ids) + n, dtype=torch.long, device=lm.device)
            with torch.no_grad():
                out = lm.model(ids, attention_mask=mask, past_key_values=past, use_cache=True, logits_to_keep=1)
            past, logits = out.past_key_values, out.logits[:, -1].float().cpu()
            if base and not rows[0].ended:
                yield from rows[0].add(rows[0].draw(logits[0]))
            if not steered.ended:
                token = steered.draw(logits[row])
                yield from steered.add(token, _shift(logits[row], logits[row + 1], token) if base else None)
            if all(one.ended for one in rows):
                break
            ids = torch.tensor([[one.ids[-1]] for one in rows], device=lm.device)
    for one in dict.fromkeys(rows):
        yield from one.rest()


class Row:
    """One text in the making: its tokens, how the next one is drawn, and which of it has been shown."""

    def __init__(self, lm: LanguageModel, side: str, prompt: Sequence[int], temperature: float, seed: int):
        self.side, self.ids, self.ended = side, list(prompt), False
        self._greedy = temperature < COLDEST
        self._generator = torch.Generator().manual_seed(seed)
        self._processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(SAMPLING["repetition_penalty"])])
        if not self._greedy:
            self._processors += [TemperatureLogitsWarper(float(temperature)), TopPLogitsWarper(SAMPLING["top_p"])]
        self._tokenizer, self._ends = lm.tokenizer, _end_tokens(lm)
        self._shown, self._shift = self._decoded(), None

    def draw(self, logits: Tensor) -> int:
        """The next token, from logits (vocab,)."""
        scores = self._processors(torch.tensor([self.ids]), logits[None])
        if self._greedy:
            return int(scores.argmax())
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))

    def add(self, token: int, shift: float | None = None) -> Iterator[Piece]:
        """Take a token; the piece of text that it completes, if any."""
        if token in self._ends:
            self.ended = True
            return
        self.ids.append(token)
        if shift is not None:
            self._shift = (self._shift or 0.0) + shift  # log ratios of the tokens of one character add up
        if not self._decoded().endswith("\ufffd"):  # else a character has begun, and its other bytes follow
            yield from self.rest()

    def rest(self) -> Iterator[Piece]:
        """What has been written and not shown."""
        text = self._decoded()
        if len(text) > len(self._shown):
            yield Piece(self.side, text[len(self._shown) :], self._shift)
            self._shown, self._shift = text, None

    def _decoded(self) -> str:
        return self._tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _on_row(edit: Edit, row: int) -> Edit:
    """The edit in one row of the batch alone."""

    def prepare(shape: tuple[int, ...], spots: Spots) -> Callable[[Tensor], Tensor]:
        change = edit.prepare(shape, spots)
        chosen = spots.rows == row
        return lambda h: torch.where(chosen[:, None].to(h.device), change(h), h)

    return Edit(edit.name, edit.site, prepare)


def _shift(steered: Tensor, unsteered: Tensor, token: int) -> float:
    """log p(steered) − log p(unsteered) of a token, from logits (vocab,), in nats."""
    return (steered.log_softmax(-1)[token] - unsteered.log_softmax(-1)[token]).item()


def _end_tokens(lm: LanguageModel) -> set[int]:
    """The tokens that end a text, as the model's `generate` takes them."""
    settings = getattr(lm.model, "generation_config", None) or lm.model.config
    ends = settings.eos_token_id
    return set() if ends is None else {ends} if isinstance(ends, int) else set(ends)

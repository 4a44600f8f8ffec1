"""A language model and its tokenizer under one name, with the few conveniences that an experiment needs.

`LanguageModel` wraps a causal model of the transformers library, whose parts `anatomy` finds. It adds no token
that the tokenizer doesn't add, pads where prompts differ in length without changing a number, and turns words into
token ids and places, refusing where that is ambiguous.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from unicodedata import normalize

import numpy as np
import torch
from torch import Tensor

from .anatomy import Anatomy
from .measuring import as_written, entered, measuring
from .tokens import as_int, as_ints
from .words import encoded, meant_as_id, spans, warn_of_number

Prompts = str | Sequence[str] | Tensor | Mapping


@dataclass
class RunningCall(threading.local):
    """What a running call's tokens don't tell about it: the only state that a `LanguageModel` has, each thread's own, and empty
    between calls."""

    interventions: list[Callable[[], None]] = field(default_factory=list)  # of each open `intervene`, what ends it
    prompt_width: int | None = None  # under `lm.generate`: how many columns the prompts fill, before the new tokens
    prompt_rows: int | None = (
        None  # under `lm.generate`: how many prompts there are, each of one row or of a row a beam
    )


class LanguageModel:
    """A causal language model, its tokenizer and its anatomy.

    >>> lm("The capital of Spain is").shape
    torch.Size([1, 5, 49152])
    >>> [token for token, p in lm.top("The Colosseum is in the city of", k=3)]
    [' Rome', ' Florence', ' Venice']
    >>> lm.find("The Eiffel Tower is in the city of", "Eiffel Tower")
    range(1, 4)
    >>> lm.generate("The capital of Spain is", 1)
    ' Madrid'

    Experiments hang hooks on the model itself, so what one thread runs through it waits for another's runs; `lm.model(…)` itself doesn't.

    Args:
        hf_model: a causal language model of the transformers library, on any device, in any dtype; it is switched to
            evaluation mode (no dropout) and otherwise left as it is.
        tokenizer: its tokenizer.
        name: what to call it in titles and notices; by default the name it was loaded under.

    Raises:
        ValueError: the model has no language model's head, or no chain of blocks is seen when it runs (see `anatomy`).
    """

    def __init__(self, hf_model: torch.nn.Module, tokenizer, name: str | None = None):
        self.model = entered(hf_model).eval()
        if getattr(self.model, "get_output_embeddings", object)() is None:
            raise ValueError(
                f"{type(self.model).__name__} gives no logits over a vocabulary, and a causal language model was expected: load the model "
                "with AutoModelForCausalLM.from_pretrained."
            )
        self.tokenizer = tokenizer
        config = self.model.config
        self.name = name or getattr(config, "_name_or_path", "") or config.model_type
        with as_written():
            self.anatomy = Anatomy(self.model)
        self.n_heads = self.anatomy.n_heads
        self.d_model, self.d_head = self.anatomy.d_model, self.anatomy.d_head
        self.running = RunningCall()

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r}: {self.n_layers} blocks, {self.n_heads} heads, d_model {self.d_model})"

    @property
    def n_layers(self) -> int:
        return self.anatomy.n_layers

    @property
    def device(self) -> torch.device:
        """Where token ids are put: the embedding's device, or the one it is brought to when accelerate keeps it elsewhere."""
        embedding = self.anatomy.embedding
        if embedding.weight.is_meta:
            return torch.device(embedding._hf_hook.execution_device)
        return embedding.weight.device

    @property
    def _pad(self) -> int:
        fillers = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(token for token in fillers if token is not None)

    # -- run it ---------------------------------------------------------------------------------------------------

    def run(self, tokens: Tensor, **options):
        """What the model itself returns for tokens as from `tokens`: in evaluation mode, whatever mode it is in."""
        with measuring(self.model):
            return self.model(tokens, attention_mask=tokens.attention_mask, **{"use_cache": False} | options)

    def __call__(self, prompts: Prompts, *, grad: bool = False) -> Tensor:
        """Logits (batch, position, vocab), each position's where the caller has its token: on a side that was padded they mean
        nothing.

        Args:
            prompts: a string, a list of strings or of token ids (position,), one a row, token ids (position,) or (batch,
                position), or what a tokenizer returns (`input_ids` and, where there is one, `attention_mask`). Token ids
                are a tensor or an array; in a list of prompts or from a tokenizer they may be lists.
            grad: keep the graph, for gradients of the logits with respect to activations or edits.
        """
        tokens = self.tokens(prompts)
        with torch.set_grad_enabled(grad):
            logits = self.run(tokens).logits
        if not any(tokens.moved):
            return logits
        return torch.stack([row.roll(columns, 0) for row, columns in zip(logits, tokens.moved, strict=True)])

    def next_token_logits(self, prompts: Prompts, *, grad: bool = False, **options) -> Tensor:
        """Logits (batch, vocab) of the token that follows each row's last real token; see `__call__`. Options go to the model."""
        tokens = self.tokens(prompts)
        last = tokens.attention_mask.sum(1) - 1
        wanted, row_to_wanted = last.unique(return_inverse=True)
        with torch.set_grad_enabled(grad):
            # Only the wanted columns go through the unembedding, which is a fifth of a small model's work.
            logits = self.run(tokens, logits_to_keep=wanted.cpu(), **options).logits
        column = row_to_wanted if logits.shape[1] == len(wanted) else last  # some models give all, whatever is asked
        return logits[torch.arange(len(tokens), device=logits.device), column.to(logits.device)]

    def unembed(self, stream: Tensor, *, grad: bool = False) -> Tensor:
        """Logits (…, vocab) read off a residual stream (…, d_model) as if it left the last block: the final norm, then the
        unembedding. On an earlier block's output this is the logit lens (nostalgebraist 2020)."""
        with torch.set_grad_enabled(grad):
            return self.anatomy.unembed(stream)

    def top(self, prompts: Prompts, k: int = 5) -> list:
        """The k likeliest next tokens: [(token, probability), …], or one such list a row for a list of prompts."""
        rows = [self.top_of(logits, k) for logits in self.next_token_logits(prompts)]
        return rows[0] if isinstance(prompts, str) else rows

    def top_of(self, logits: Tensor, k: int = 5) -> list[tuple[str, float]]:
        """The k likeliest tokens of logits (vocab,), such as those of a patched run: [(token, probability), …]."""
        values, ids = logits.float().softmax(-1).topk(k)
        return [(self._text([i]), p) for i, p in zip(ids.tolist(), values.tolist(), strict=True)]

    def generate(
        self, prompt: Prompts, max_new_tokens: int = 20, *, seed: int | None = None, **options
    ) -> str | list[str]:
        """Continue a prompt; the continuation alone is returned, without the prompt.

        Args:
            prompt: a string, or several prompts in any form that `__call__` takes (a list comes back).
            max_new_tokens: how many tokens at most.
            seed: of the sampling, where `do_sample=True` is among the options; the global random state is left alone.
            options: go to `transformers`' `generate`; greedy unless they say otherwise. What they leave open, the
                model's own `generation_config` decides.

        Raises:
            ValueError: an option that changes what comes back, or more tokens than the model has positions for.
        """
        for option, usual in {"num_return_sequences": 1, "return_dict_in_generate": False}.items():
            if options.get(option, usual) != usual:
                raise ValueError(
                    f"generate returns one text a prompt, without {option}: repeat the prompt, [prompt] * 3."
                )
        tokens = self.tokens(prompt)
        width = tokens.shape[1]
        rows = [row[mask.bool()].tolist() for row, mask in zip(tokens, tokens.attention_mask, strict=True)]
        # New tokens grow on the right, so here the padding goes to the left.
        # It is made of a token that the row has anyway, so that no penalty on repeating falls on another one.
        ids = torch.tensor([row[:1] * (width - len(row)) + row for row in rows], device=self.device)
        mask = tokens.attention_mask.long().flip(1)
        self._require_room(width + max_new_tokens - 1)  # the last new token is not read
        devices, kind = [self.device] if self.device.type == "cuda" else [], "cuda"
        if torch.backends.mps.is_available():  # torch.manual_seed seeds it, wherever the model is
            devices, kind = [0], "mps"
        self.running.prompt_width, self.running.prompt_rows = width, len(rows)
        try:
            randomness = torch.random.fork_rng(devices, seed is not None, device_type=kind)
            with randomness, torch.no_grad(), measuring(self.model):
                if seed is not None:
                    torch.manual_seed(seed)
                out = self.model.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=max_new_tokens,
                    **{"do_sample": False, "pad_token_id": self._pad} | options,
                )
        finally:
            self.running.prompt_width = self.running.prompt_rows = None
        continued = zip(rows, out[:, width:].tolist(), strict=True)
        texts = [self._text(new, after=row, skip_special_tokens=True) for row, new in continued]
        return texts[0] if isinstance(prompt, str) else texts

    # -- words and places -----------------------------------------------------------------------------------------

    def tokens(self, prompts: Prompts) -> Tensor:
        """Token ids (batch, position), shorter rows padded on the right; `.attention_mask` marks the real tokens.

        A tensor of ids passes through; without an `.attention_mask` of its own, all its tokens are real. What was padded on the
        left is moved: by how many columns, row by row, `.moved` says.

        Raises:
            ValueError: no prompt, an empty prompt, a bare tensor in which a row seems to end in padding, a mask that hides a token
                between others, ids outside the vocabulary, or more tokens than the model has positions for.
        """
        if isinstance(prompts, np.ndarray) and prompts.dtype.kind in "iu":
            prompts = torch.as_tensor(prompts.astype(np.int64))
        rows = None
        if isinstance(prompts, Tensor):
            ids = prompts[None] if prompts.ndim == 1 else prompts
            shape, mask = tuple(ids.shape), getattr(prompts, "attention_mask", None)
            if ids.ndim != 2 or not ids.numel() or ids.is_floating_point() or ids.dtype == torch.bool:
                raise ValueError(f"Token ids have shape (batch, position), and {shape} of {ids.dtype} was given.")
            mask = self._unpadded(ids) if mask is None else mask
            if mask.shape != ids.shape:
                raise ValueError(f"An attention_mask has the ids' shape {shape}, and {tuple(mask.shape)} was given.")
            moved = [0] * len(ids)
            if not mask[:, 0].all() or (mask.long().diff(dim=1) > 0).any():
                rows, moved = zip(*map(_to_the_left, ids.tolist(), mask.tolist()), strict=True)
                self._require_tokens(rows)
        else:
            rows, moved, shape = self._rows(prompts)
        if rows is not None:
            ids = torch.tensor([row + [self._pad] * (shape[1] - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (shape[1] - len(row)) for row in rows])
        least, most, vocabulary = int(ids.min()), int(ids.max()), len(self.anatomy.embedding.weight)
        if least < 0 or most >= vocabulary:
            raise ValueError(
                f"Token ids of {self.name} are 0 to {vocabulary - 1}, and {least if least < 0 else most} was given: is it of "
                "another model's tokenizer?"
            )
        self._require_room(ids.shape[1])
        ids = ids.to(self.device, copy=False).view_as(ids)  # another tensor, because its attributes are set
        ids.attention_mask, ids.moved = mask.to(self.device), moved
        return ids

    def str_tokens(self, prompt: str | Tensor) -> list[str]:
        """One prompt's tokens as text, leading spaces included: ["The", " E", "iff", "el", " Tower"].

        Raises:
            ValueError: several prompts.
        """
        tokens = self.tokens(prompt)
        if len(tokens) > 1:
            raise ValueError(
                f"str_tokens takes one prompt, and {len(tokens)} were given: [lm.str_tokens(prompt) for prompt in prompts]."
            )
        return [self._text([i]) for i in tokens[0].tolist()]

    def token_id(self, word: str | int) -> int:
        """The id of a word that is one token (mind the leading space: " Paris"); an id passes through. (Of a number that is a word of
        the vocabulary as well, a warning says that it was taken for an id, unless it comes from a tensor or from here.)

        Raises:
            ValueError: the word is several tokens (they are shown), or the id is outside the vocabulary.
        """
        number = as_int(word)
        if isinstance(number, int) and not isinstance(number, bool):
            if not 0 <= number < len(self.anatomy.unembedding.weight):
                raise ValueError(f"Token id {number} is outside the vocabulary of {self.name}.")
            if type(word) is int:
                warn_of_number(self, word)
            return number
        if not isinstance(word, str):
            hint = (
                f": write the word as text, {str(word)!r} or {f' {word}'!r}" if isinstance(word, bool | float) else ""
            )
            raise ValueError(f"A word that is one token, or a token id, was expected, and {word!r} was given{hint}.")
        return meant_as_id(self, self.id_of(word))

    def id_of(self, word: str) -> int:
        """`token_id` of a word, where nobody goes on with the id."""
        # SentencePiece begins a text with a space of its own: read the word after another one, too.
        before, both = map(self._plain_ids, ("x", "x" + word))
        readings = [self._plain_ids(word)] + [both[len(before) :]] * (both[: len(before)] == before)
        for ids in readings:
            if len(ids) == 1 and normalize("NFC", self._text(ids)) == normalize("NFC", word):
                return ids[0]
        pieces = [self._text([i]) for i in ids]
        if len(ids) == 1:
            raise ValueError(
                f"{self.name} has no token {word!r}: its tokenizer reads it as {pieces[0]!r}; write that if it is meant."
            )
        spaced = f" Within a sentence the word usually starts with a space: {' ' + word!r}."
        raise ValueError(
            f"{word!r} is {len(ids)} tokens for {self.name}, {pieces}, and one token was expected: choose a word that is a single "
            f"token, or name one of the pieces.{'' if word[:1].isspace() else spaced}"
        )

    def find(self, prompt: str, text: str, *, occurrence: int | None = None) -> range:
        """The positions of the tokens that spell `text` in `prompt`: find("The Eiffel Tower is", "Tower") → range(4, 5).

        Args:
            prompt: one prompt.
            text: a part of it; a token that overlaps it counts.
            occurrence: which one (from 0), where it occurs more than once.

        Raises:
            ValueError: the text isn't there, or is there several times and `occurrence` doesn't say which; or no token stands for it.
        """
        if not isinstance(prompt, str):
            raise ValueError(f"One prompt is searched, a string, and {type(prompt).__name__} was given: {prompt!r}.")
        starts = [i for i in range(len(prompt)) if text.strip(" ") and prompt.startswith(text, i)]
        if not starts:
            alone = " by itself, for tokens carry spaces with what follows" if text and not text.strip(" ") else ""
            raise ValueError(
                f"{text!r} does not occur in {prompt!r}{alone}: give a part of the prompt, letter for letter."
            )
        n, which = len(starts), 0 if occurrence is None else occurrence
        if not 0 <= which < n or (occurrence is None and n > 1):
            asked = "" if occurrence is None else f", and occurrence={occurrence} was asked for"
            raise ValueError(
                f"{text!r} occurs {n} times in {prompt!r}{asked}: say which with occurrence=0 to {n - 1}. The positions that "
                f"lm.find(prompt, {text!r}, occurrence=0) gives are taken wherever the text is."
            )
        start, end = starts[which], starts[which] + len(text)
        if text.strip():  # tokens carry their leading space; what counts is whether their letters overlap the text
            start, end = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
        inside = [i for i, (a, b) in enumerate(spans(self.tokenizer, prompt)) if a < end and b > start]
        if not inside:
            raise ValueError(
                f"{text!r} is in the prompt, and no token of {self.name} stands for it: its tokenizer leaves it out."
            )
        return range(inside[0], inside[-1] + 1)

    # -- details --------------------------------------------------------------------------------------------------

    def _rows(self, prompts: Prompts) -> tuple[list[list[int]], list[int], tuple[int, int]]:
        """Each prompt's token ids, from whatever form but a tensor, by how many columns they were moved, and the batch's shape."""
        moved, width = None, 0
        if hasattr(prompts, "columns") or (isinstance(prompts, Mapping) and "input_ids" not in prompts):
            raise ValueError(
                f"Prompts are strings or token ids, and a table, or a row of one, was given, with "
                f"{list(map(str, getattr(prompts, 'columns', prompts)))}: choose what is the prompt, such as row['prompt']."
            )
        if isinstance(prompts, Mapping):  # as a tokenizer returns it, padded on either side
            ids, mask = _lists(prompts["input_ids"]), prompts.get("attention_mask")
            mask = [[1] * len(row) for row in ids] if mask is None else _lists(mask)
            if list(map(len, ids)) != list(map(len, mask)):
                raise ValueError(
                    f"An attention_mask has as many entries as its row has token ids, and {list(map(len, mask))} for "
                    f"{list(map(len, ids))} were given."
                )
            width = max(map(len, ids), default=0)
            prompts, moved = zip(*map(_to_the_left, ids, mask), strict=True) if ids else ([], [])
        single = isinstance(prompts, str) or not hasattr(prompts, "__iter__")
        rows = []
        for prompt in [prompts] if single else prompts:
            ids = encoded(self.tokenizer, prompt)["input_ids"] if isinstance(prompt, str) else as_ints(prompt)
            if not hasattr(prompt, "__iter__") or not all(type(i) is int for i in ids):
                raise ValueError(
                    f"A prompt is a string or a sequence of token ids, and {type(prompt).__name__} was given: {prompt!r}."
                )
            rows.append(ids)
        self._require_tokens(rows)
        if not rows:
            raise ValueError("There is no prompt: a string, a list of strings or a tensor of token ids was expected.")
        return rows, moved or [0] * len(rows), (len(rows), max(width, *map(len, rows)))

    def _unpadded(self, ids: Tensor) -> Tensor:
        """The mask of ids that came without one: all are real, unless a row looks padded."""
        pads = ids == self._pad
        ends = pads[:, -1] & (ids.shape[1] > 1)
        twice = pads[:, :2].all(1) & (ids.shape[1] > 2)  # one may be the text's beginning, two aren't
        if ends.any() or twice.any() or 0 < pads[:, 0].sum() < len(pads):
            raise ValueError(
                f"Some rows of the token ids {'end in' if ends.any() else 'begin with'} the padding token and nothing says "
                "whether it is padding: pass the prompts as strings, or the very tensor that lm.tokens returned (it carries an "
                "attention_mask)."
            )
        return torch.ones_like(ids)

    def _require_tokens(self, rows: Sequence[list[int]]) -> None:
        empty = next((row for row, ids in enumerate(rows) if not ids), None)
        if empty is not None:
            which = f" (number {empty} of the list)" if len(rows) > 1 else ""
            raise ValueError(
                f"A prompt is empty{which}, so there is nothing to run the model on: give it at least one token."
            )

    def _require_room(self, width: int) -> None:
        """Of so many tokens, that the model has positions for them: where it learnt a vector for each, they end."""
        config = self.model.config
        if config.model_type in ("gpt2", "opt") and width > config.max_position_embeddings:
            raise ValueError(
                f"{self.name} has {config.max_position_embeddings} positions, and {width} are needed: give it shorter prompts, or "
                "let it write less."
            )

    def _text(self, ids: list[int], after: list[int] | None = None, **options) -> str:
        """What tokens spell. By itself, a SentencePiece token loses its leading space, so they are decoded after others."""
        after = self._plain_ids("x")[:1] if after is None else after
        options["clean_up_tokenization_spaces"] = False
        return self.tokenizer.decode(after + ids, **options)[len(self.tokenizer.decode(after, **options)) :]

    def _plain_ids(self, text: str) -> list[int]:
        return encoded(self.tokenizer, text, add_special_tokens=False)["input_ids"]


def _to_the_left(ids: list[int], mask: list[int]) -> tuple[list[int], int]:
    """A row's real tokens, and the column in which they began."""
    real = [column for column, one in enumerate(mask) if one]
    if real and len(real) <= real[-1] - real[0]:
        raise ValueError(
            f"An attention_mask marks padding at a row's ends, and {mask} hides a token between others, which models count or don't "
            "count as a position: leave the token out of the prompt."
        )
    return [ids[column] for column in real], real[0] if real else 0


def _lists(rows) -> list[list[int]]:
    """A tokenizer's ids or mask, of one prompt or of several, in a tensor, an array or lists, as one list a prompt."""
    rows = as_ints(rows)
    return [as_ints(row) for row in (rows if any(hasattr(row, "__iter__") for row in rows) else [rows])]

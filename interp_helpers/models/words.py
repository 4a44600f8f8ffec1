"""Text and its tokens: how a tokenizer reads a prompt, where its tokens stand in it, and which ids a metric asks for.

Two slips give numbers that look like results. "Rome" and " Rome" are two tokens, and within a text models say the second. And a
number may be a token's id or a word: 5 is some token's id, and "5" is another token. Here a warning says which one was taken.
"""

from __future__ import annotations

import os
import sys
import warnings
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress

import torch
from torch import Tensor


def encoded(tokenizer, text: str, **options) -> Mapping:
    """What a tokenizer makes of a text. Where that begins with the beginning-of-text token already, as chat templates write it, it
    gets no second one.

    Raises:
        ValueError: half a character, which tokenizers can't read.
    """
    begun = tokenizer.bos_token and text.startswith(tokenizer.bos_token)
    try:
        return tokenizer(text, **{"add_special_tokens": not begun} | options)
    except (TypeError, UnicodeError):
        half = next((c for c in text if "\ud800" <= c <= "\udfff"), None)
        if half is None:
            raise
        raise ValueError(
            f"{text!r} has half a character in it, {half!r}, which no tokenizer reads: take it out."
        ) from None


def spans(tokenizer, text: str) -> list[tuple[int, int]]:
    """Where each token begins and ends in a text.

    Raises:
        ValueError: the tokenizer doesn't say, and its tokens spell something else.
    """
    if tokenizer.is_fast:
        return encoded(tokenizer, text, return_offsets_mapping=True)["offset_mapping"]
    ids = encoded(tokenizer, text)["input_ids"]
    for skip in (False, True):
        options = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": False}
        read = [tokenizer.decode(ids[:i], **options) for i in range(len(ids) + 1)]
        if read[-1].startswith(text):
            ends = [len(os.path.commonprefix([part, text])) for part in read]
            # All tokens of a character stand for it, though it is read with the last of them.
            return [(a, next((end for end in ends[i + 1 :] if end > a), a)) for i, a in enumerate(ends[:-1])]
    raise ValueError(
        f"This tokenizer doesn't say where its tokens stand in {text!r}, and they spell {read[-1]!r}: give positions, as lm.str_tokens "
        "shows them."
    )


LIKELY, LIKELIER = (
    0.01,
    10,
)  # how likely a word with its space is, and how many times likelier than without, before it is told


class Asked:
    """The words that are asked for, one for all rows or one a row, as `ids` (n,).

    Raises:
        ValueError: a word that is not one token.
    """

    def __init__(self, lm, words):
        if isinstance(words, Mapping):
            raise ValueError(f"A word, a token id or a list of them was expected, and {words!r} was given.")
        one = isinstance(words, str) or not getattr(words, "ndim", hasattr(words, "__iter__"))
        words = [words] if one else list(words)
        self.ids = torch.tensor([lm.id_of(word) if isinstance(word, str) else lm.token_id(word) for word in words])
        self._lm, known = lm, {}
        for word in words:
            if isinstance(word, str) and not word[:1].isspace() and word not in known:
                known[word] = _token(lm, f" {word}")
        self._spaced = {i: (word, known[word]) for i, word in enumerate(words) if known.get(word) is not None}

    def check(self, logits: Tensor, rows: Iterable[int] | None = None) -> bool:
        """Warn, from the first logits (row, vocab) that are measured, where a word with a leading space is what the model would say;
        whether it did. `rows` says which word each row is asked for (by default the only one, or its own)."""
        doubtful, self._spaced = self._spaced, {}
        if not doubtful:
            return False
        rows = (range(len(logits)) if len(self.ids) > 1 else [0] * len(logits)) if rows is None else rows
        for which, row in zip(rows, logits.detach(), strict=False):
            if which not in doubtful:
                continue
            word, spaced = doubtful[which]
            own = int(self.ids[which])
            p = row.float().softmax(-1)
            if p[spaced] > max(LIKELIER * p[own], LIKELY):
                warn(
                    f"{word!r} is token {own} of {self._lm.name}, of probability {p[own]:.2g}, and {' ' + word!r}, with the space that words "
                    f"have within a text, is token {spaced}, of {p[spaced]:.2g}: write {' ' + word!r} if that is meant."
                )
                return True
        return False


_told: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # {a model: the ids that its token_id has told}


def meant_as_id(lm, number: int) -> int:
    """A number that `token_id` tells, and that is thus meant as an id where it comes back."""
    _told.setdefault(lm, set()).add(number)
    return number


def warn_of_number(lm, number: int) -> None:
    """Warn where a number that was taken for a token's id is a word of the vocabulary, too."""
    if number in _told.get(lm, ()):
        return
    words = {word: _token(lm, word) for word in (str(number), f" {number}")}
    words = {word: token for word, token in words.items() if token not in (None, number)}
    if words:
        told = " and ".join(f"{word!r}, token {token}" for word, token in words.items())
        warn(
            f"{number} was taken for a token's id, that of {lm.tokenizer.decode([number])!r}, and {lm.name} has the word {told}: write "
            f"{list(words)[-1]!r} if the word is meant, or torch.tensor({number}) if the id is."
        )


def warn(sentence: str) -> None:
    """A warning that points at the line that called the package."""
    package, frame, depth, outside = __name__.partition(".")[0], sys._getframe(), 1, 1
    while frame:
        depth += 1
        if frame.f_globals.get("__name__", "").partition(".")[0] == package:
            outside = depth
        frame = frame.f_back
    warnings.warn(sentence, stacklevel=outside)


def _token(lm, word: str) -> int | None:
    with suppress(ValueError):
        return lm.id_of(word)
    return None

"""Positions to rows and columns: where each prompt's own tokens lie in a batch.

A position counts a prompt's own tokens, whereas a batch is a rectangle with padding at one side. `Layout` knows where
each row's tokens lie, and turns positions into `Spots`, (row, column) pairs, refusing those that don't exist.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spots:
    """n places in a batch, row by row: `rows` and `columns` (n,) of the call, the `positions` (n,) that they have in their
    prompt and what follows it, which of them are `new` (n,), generated after the prompt, and how many lie in each row."""

    rows: Tensor
    columns: Tensor
    positions: Tensor
    new: Tensor
    counts: tuple[int, ...]
    layout: Layout = field(repr=False)  # that they are in

    @property
    def each(self) -> int | None:
        """How many places every row has, or None where rows differ."""
        return self.counts[0] if len(set(self.counts)) == 1 else None


@dataclass
class Layout:
    """Where each row's tokens lie in a batch: each row's first column in `starts`, its prompt's tokens in `lengths`.

    Args:
        mask: (batch, column), 1 for a real token and 0 for padding.
        past: how many columns earlier calls have processed already (the key-value cache's length); `mask` spans them.
        prompt_width: how many columns the prompt fills, if new tokens follow it.
    """

    mask: Tensor
    past: int = 0
    prompt_width: int | None = None
    starts: tuple[int, ...] = field(init=False)
    lengths: tuple[int, ...] = field(init=False)

    def __post_init__(self):
        prompt = self.mask[:, : self.prompt_width].to("cpu", torch.long)
        self.starts = tuple(prompt.argmax(1).tolist())
        self.lengths = tuple(prompt.sum(1).tolist())

    @classmethod
    def of_call(cls, given: Mapping, prompt_width: int | None) -> Layout:
        """The layout of a call of the model, from the arguments of its `forward`, by name.

        Raises:
            ValueError: a mask that doesn't say which tokens are real, or a prompt that is read in pieces.
        """
        inputs = next(x for x in (given.get("input_ids"), given.get("inputs_embeds")) if x is not None)
        batch, width = inputs.shape[:2]
        mask = given.get("attention_mask")
        if mask is None:
            cache = given.get("past_key_values")
            mask = torch.ones(batch, width + (cache.get_seq_length() if cache is not None else 0))
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            raise ValueError(
                "Edits need an attention mask (batch, column) that says which tokens are real, and the model was given another "
                "kind: generate with the default cache, and pass no mask of your own."
            )
        if prompt_width is not None and mask.shape[1] < prompt_width:
            raise ValueError(
                f"The prompt's {prompt_width} columns are read in pieces, so positions can't be told: leave out prefill_chunk_size."
            )
        past = mask.shape[1] - width
        # In a loop of one's own, what earlier calls have read stands for the prompt: what is read now is new.
        return cls(mask, past, (past or None) if prompt_width is None else prompt_width)

    def spots(self, positions) -> Spots:
        """The cells of this call that `positions` (as in `Site`) names; None names every real token in it.

        Raises:
            ValueError: a position outside a row, a selection that is empty in every row, or one sequence a row for other rows.
        """
        batch = len(self.lengths)
        if positions is None:
            real = self.mask[:, self.past :].to("cpu").bool()
            (rows, columns), counts = real.nonzero(as_tuple=True), tuple(real.sum(1).tolist())
        else:
            per_row = positions if one_a_row(positions) else [positions] * batch
            if len(per_row) != batch:
                raise ValueError(
                    f"Positions were given for {len(per_row)} rows, one sequence a row, and the batch has {batch}."
                )
            alone = one_a_row(positions) and any(
                positions
            )  # a row without positions is left alone, if another has some
            found = [[] if alone and not wanted else self._columns(row, wanted) for row, wanted in enumerate(per_row)]
            counts = tuple(map(len, found))
            rows = torch.repeat_interleave(torch.arange(batch), torch.tensor(counts))
            columns = torch.tensor([column for row in found for column in row], dtype=torch.long)
        own = self.past + columns - torch.tensor(self.starts)[rows]
        return Spots(rows, columns, own, own >= torch.tensor(self.lengths)[rows], counts, self)

    def _columns(self, row: int, positions: int | tuple | slice) -> list[int]:
        length = self.lengths[row]
        if isinstance(positions, slice):
            found: Sequence[int] = range(*positions.indices(length))
        else:
            found = (positions,) if isinstance(positions, int) else positions
        if not len(found):
            raise ValueError(f"positions={positions!r} names no token of row {row}, which has {length}.")
        for position in found:
            if not -length <= position < length:
                raise ValueError(
                    f"Position {position} is outside row {row}, which has {length} tokens: 0 to {length - 1}, or -1 to "
                    f"{-length} from the end."
                )
        if len({position % length for position in found}) < len(found):
            raise ValueError(f"positions={positions!r} names a token of row {row} ({length} tokens) twice.")
        return [self.starts[row] + position % length for position in found]

    def batched(self, tensor: Tensor) -> Tensor:
        """(batch, column, features), for a model that hands (batch · column, features) to its MLP."""
        return tensor.view(len(self.lengths), -1, tensor.shape[-1])

    def take(self, rows: Sequence[int]) -> Layout:
        """The layout of other rows of the same batch."""
        return Layout(self.mask[list(rows)], self.past, self.prompt_width)


def take(tokens: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows of what `lm.tokens` returned, in any order, with their attention mask."""
    taken = tokens[list(rows)]
    taken.attention_mask = tokens.attention_mask[list(rows)]
    return taken


def as_positions(positions) -> int | tuple | slice | None:
    """Positions in a form that doesn't change: ints, tuples of ints, tuples of tuples, a slice or None.

    Raises:
        ValueError: anything else.
    """
    if positions is None or isinstance(positions, slice):
        return positions
    found = as_int(positions.tolist() if isinstance(positions, Tensor) else positions)
    if type(found) is int:
        return found
    if hasattr(found, "__iter__") and not isinstance(found, str):
        entries = tuple(map(as_positions, found))
        kinds = {type(entry) for entry in entries}
        if kinds <= {int} or (kinds == {tuple} and not any(map(one_a_row, entries))):
            return entries
    raise ValueError(
        f"positions={positions!r} was not understood: None, an int, a sequence of ints, a slice, or one sequence of ints "
        "for each row was expected."
    )


def one_a_row(positions) -> bool:
    """Are positions, as a `Site` keeps them, one sequence a row?"""
    return isinstance(positions, tuple) and bool(positions) and isinstance(positions[0], tuple)


def as_ints(numbers) -> list[int]:
    """One number or several, of numpy or a tensor, too, as a list of ints; what is no int stays as it is."""
    numbers = as_int(numbers)
    return [as_int(number) for number in numbers] if hasattr(numbers, "__iter__") else [numbers]


def as_int(number):
    """An int where it is one in disguise, of numpy or a tensor; anything else as it is."""
    if isinstance(number, bool) or getattr(number, "ndim", 0):
        return number
    try:
        return operator.index(number)
    except TypeError:
        return number


def as_list(things, what: str) -> list:
    """What was given, gone through once and in its own order, as a list: of a list, a tensor, an array, a generator, or a column of
    a table, whatever its index.

    Raises:
        ValueError: a single thing, which is never taken apart; a mapping; a whole table.
    """
    if isinstance(things, str | bytes | Mapping) or not hasattr(things, "__iter__") or not getattr(things, "ndim", 1):
        raise ValueError(f"A list of {what} was expected, one at least, and {things!r} was given.")
    if hasattr(things, "columns"):
        raise ValueError(
            f"A list of {what} was expected, and a table was given: choose a column, such as table[{things.columns[0]!r}], or the rows, "
            "table.itertuples(index=False)."
        )
    return things.tolist() if hasattr(things, "tolist") else list(things)


def as_texts(texts, what: str = "texts", *, least: int = 1) -> list[str]:
    """`as_list` of texts.

    Raises:
        ValueError: as there; fewer than `least`; or something among them that is no text, such as a gap in a column.
    """
    found = as_list(texts, what)
    if len(found) < least:
        raise ValueError(f"A list of {what} was expected, one at least, and none was given.")
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise ValueError(
                f"A list of {what} was expected, strings all, and number {i} of it is {text!r}: change it, or leave it out."
            )
    return found

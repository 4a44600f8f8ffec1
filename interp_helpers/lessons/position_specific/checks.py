"""Exercises of notebook 04, position-specific intervention: places (those about heads are in `positions_heads`).

The checks compute what is right on whatever model and prompts the notebook hands over, or on small tables made for
the purpose, whose right answer doesn't depend on a model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...course import NotYet, exercise, notebook, require, require_attempted, short
from ...models import Layout
from ...sites import Site

notebook("positions", "4 · Position-specific intervention")


@exercise(
    "positions.rows",
    number=1,
    title="Another place in each row",
    difficulty=1,
    minutes=4,
    hints=(
        "`positions` takes one sequence for each row: `[[…], […], […]]`.",
        "`lm.find(prompt, subject)` is a range of positions; `[-1:]` is its last one, still as a sequence.",
        "A list comprehension: `[lm.find(p, s)[-1:] for p, s in zip(three, subjects)]`.",
    ),
)
def _(answer, lm, prompts, subjects):
    require(isinstance(answer, Site), f"the answer is a `Site(…)`, and you gave {short(answer)}")
    require(answer.component == "block_output", f"`block_output` was asked for, and not `{answer.component}`")
    require(answer.layer == 8, f"the ninth block is layer 8, and you gave layer {answer.layer}")
    spans = [lm.find(prompt, subject) for prompt, subject in zip(prompts, subjects, strict=True)]
    lasts = [span[-1] for span in spans]
    where = answer.positions
    require(where is not None, "`positions=None` names every token, and one in each row was asked for")
    flat = isinstance(where, tuple) and bool(where) and all(isinstance(position, int) for position in where)
    require(
        not flat,
        f"{list(where) if flat else where} is one flat sequence, which names the same {len(where) if flat else 0} positions in "
        "*every* row: give each row a sequence of its own",
    )
    require(
        not isinstance(where, tuple) or len(where) == len(prompts),
        f"you named places for {len(where) if isinstance(where, tuple) else 0} rows, and there are {len(prompts)} prompts",
    )
    layout = Layout(lm.tokens(prompts).attention_mask)
    spots = layout.spots(where)
    found: list[list[int]] = [[] for _ in prompts]
    for row, position in zip(spots.rows.tolist(), spots.positions.tolist(), strict=True):
        found[row].append(position)
    ends = [[length - 1] for length in layout.lengths]
    require(found != ends, "these are the last tokens of the *prompts*; the subjects end earlier")
    require(
        found != [[last + 1] for last in lasts],
        "these are the tokens just after the subjects: a range's `stop` is one past its end",
    )
    require(
        found != list(map(list, spans)),
        "that is the whole subject in each row, and only its last token was asked for",
    )
    require(
        found != [[span[0]] for span in spans],
        "these are the *first* tokens of the subjects; a subject may be several tokens long",
    )
    require(
        any(position != found[0] for position in found),
        f"position {found[0]} is the place in the first row, and you named it in every row",
    )
    wrong = next((row for row, last in enumerate(lasts) if found[row] != [last]), None)
    if wrong is not None:
        tokens = lm.str_tokens(prompts[wrong])
        named = ", ".join(repr(tokens[i]) for i in found[wrong])
        raise NotYet(f"in row {wrong} you name {named}, and {subjects[wrong]!r} ends with {tokens[lasts[wrong]]!r}")
    return f"One place a row: {[[last] for last in lasts]}. The rows differ in length, and each has its own count."


@exercise(
    "positions.first",
    number=2,
    title="Where can a patch do anything?",
    difficulty=2,
    minutes=6,
    hints=(
        "At which positions have the two runs computed the same thing, up to there?",
        "Compare token with token, not word with word: `lm.tokens(prompt)[0]` are a prompt's token ids.",
        "Go through `zip(lm.tokens(base)[0], lm.tokens(source)[0])`, and return the first index at which the two differ.",
    ),
)
def _(answer, lm, base, source):
    require(callable(answer), f"the answer is your function `first_place`, and you gave {short(answer)}")

    def differing(one: str, other: str) -> list[int]:
        return (lm.tokens(one)[0] != lm.tokens(other)[0]).nonzero().flatten().tolist()

    def ask(one: str, other: str) -> int | None:
        found = require_attempted(answer(one, other))
        require(
            found is None or getattr(found, "ndim", 0) == 0 and not isinstance(found, str | list | tuple | range),
            f"one position was asked for, and {short(found)} came back",
        )
        return None if found is None else int(found)

    def text(one: str, other: str) -> str:
        return f"for {one!r} and {other!r}"

    late = ("The Colosseum stands in Rome now", "The Colosseum stands in Paris now")
    wanted = differing(*late)[0]
    got, words = ask(*late), late[0].split().index("Rome")
    letters = next(i for i, (a, b) in enumerate(zip(*late, strict=False)) if a != b)
    require(got is not None, f"{text(*late)} your function returned None: is there a `return`?")
    require(
        got != 0,
        f"{text(*late)} you found position 0, whose token is the same in both: nothing before a difference can carry it",
    )
    require(
        got != words or words == wanted,
        f"{text(*late)} you found {got}, which counts *words*; “Colosseum” is several tokens, and the first differing token stands "
        f"at {wanted}",
    )
    require(got != letters, f"{text(*late)} you found {got}, which counts letters; positions count tokens")
    require(
        got != wanted - 1,
        f"{text(*late)} you found {got}, the last token that is the *same* in both: a patch there changes nothing yet",
    )
    require(
        got != wanted + 1, f"{text(*late)} you found {got}, one too late: the tokens differ at {wanted}, counted from 0"
    )
    require(
        got not in differing(base, source)[:1] or got == wanted,
        f"{text(*late)} you found {got}, the answer for the notebook's own pair: compare the two prompts that the function gets",
    )
    require(got == wanted, f"{text(*late)} the first differing token stands at {wanted}, and you found {got}")
    twice = ("In Rome the capital is Rome", "In Paris the capital is Paris")
    got, wanted = ask(*twice), differing(*twice)[0]
    require(
        got not in differing(*twice)[1:],
        f"{text(*twice)} you found {got}, a later difference: the first one, at {wanted}, changes every token after it as well",
    )
    require(got == wanted, f"{text(*twice)} the first differing token stands at {wanted}, and you found {got}")
    first = ("One is a number", "Two is a number")
    got = ask(*first)
    require(
        got == 0,
        f"{text(*first)} the very first token differs, so that the answer is 0, and you found {got}: 0 is a position like any "
        "other (and counts as false in `if`)",
    )
    same = (base, base)
    got = ask(*same)
    require(
        got is None,
        f"for two prompts that are the same you found {got}: no patch between them does anything, and `None` was to be returned",
    )
    wanted = differing(base, source)
    require(ask(base, source) == (wanted[0] if wanted else None), f"on the notebook's own pair the answer is {wanted}")
    return (
        "Every position before it is a no-op in every layer, and proves nothing about what those tokens carry; from there "
        "on a patch can matter."
    )


@exercise(
    "positions.leak",
    number=3,
    title="Each row its own source",
    difficulty=2,
    minutes=8,
    hints=(
        "`stream[:, columns]` means *every* row at each of those columns. One column for each row needs the row's number, too.",
        "With `rows = torch.arange(len(stream))`, `stream[rows, columns]` is one vector a row (a loop over the rows does, too).",
        "`patched = stream.clone()`, then `patched[rows, columns] = source[rows, columns]`, then `return patched`.",
    ),
)
def _(answer):
    require(callable(answer), f"the answer is your function `overwrite`, and you gave {short(answer)}")
    generator = torch.Generator().manual_seed(0)
    stream, source = torch.randn(2, 3, 6, 4, generator=generator)
    columns, rows = [4, 2, 3], torch.arange(3)
    wanted = stream.clone()
    wanted[rows, columns] = source[rows, columns]
    given, taken = stream.clone(), source.clone()
    got = require_attempted(answer(given, taken, list(columns)))
    require(got is not None, "your function returned None: return the patched copy")
    require(isinstance(got, Tensor), f"a tensor was expected, and {short(got)} came back")
    require(
        got.shape != (3, 4),
        "you returned only the vectors that were to be put in; the whole stream, with them in place, was asked for",
    )
    require(
        got.shape == stream.shape,
        f"the stream has shape {tuple(stream.shape)} and what came back has {tuple(got.shape)}",
    )
    require(torch.equal(taken, source), "you changed `source`, the record of another run, which others may still use")
    changed = (got != stream).any(-1)
    everywhere = torch.zeros(3, 6, dtype=torch.bool)
    everywhere[:, columns] = True
    require(changed.any(), "nothing has changed in what you returned: was anything put in?")
    require(
        not (changed[:, columns[0]].all() and changed.sum() == 3),
        "you wrote at the *first row's* place in every row; `columns` has one place for each",
    )
    require(
        not torch.equal(changed, everywhere),
        f"every row was changed at all of the places {columns}: `[:, columns]` takes all rows for each column",
    )
    swapped = source.clone()
    swapped[rows, columns] = stream[rows, columns]
    require(not torch.equal(got, swapped), "you put the stream into the source; it is the other way round")
    require(
        not changed.all(),
        "every token of every row was exchanged, which is the source run itself, and not a patch at one place",
    )
    at = torch.zeros(3, 6, dtype=torch.bool)
    at[rows, columns] = True
    later = at.roll(1, dims=1)
    require(
        not torch.equal(changed, later) and not torch.equal(changed, at.roll(-1, dims=1)),
        "you wrote one place beside the one that was named in each row",
    )
    missed = next((row for row in range(3) if not changed[row, columns[row]]), None)
    require(missed is None, f"row {missed} is unchanged at its place: each row gets its own source's vector")
    require(torch.equal(changed, at), "more was changed than the one place in each row")
    put = got[rows, columns]
    require(
        not torch.equal(put, source[0, columns]) and not torch.equal(put, source[0, columns[0]].expand(3, -1)),
        "every row received *row 0's* vectors: a source that serves all rows is the leak that the exercise is about",
    )
    require(
        not torch.equal(put, source[rows, -1]), "you put in the source's *last* token; the same place was asked for"
    )
    require(torch.equal(put, wanted[rows, columns]), "the places are right, and the vectors are not the source's there")
    require(
        torch.equal(given, stream),
        "the right numbers, and you wrote into `stream` itself: whoever holds on to it sees it change. Work on a `clone()`",
    )
    return "Row r, column columns[r], and nothing else; `replace` with one source row a base row does just this."

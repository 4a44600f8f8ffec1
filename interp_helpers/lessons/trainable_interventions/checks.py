"""Exercises of notebook 03, trainable interventions."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ...course import NotYet, exercise, require, require_returned, short


def _near(got: Tensor, wanted: Tensor) -> bool:
    return got.shape == wanted.shape and torch.allclose(got, wanted, atol=1e-4, rtol=1e-4)


def _tensor(value, shape: tuple[int, ...]) -> Tensor:
    value = require_returned(value)
    require(isinstance(value, Tensor), f"a tensor was expected, and {short(value)} came back")
    require(
        tuple(value.shape) == shape,
        f"a tensor of shape {tuple(value.shape)} came back, and {shape} was expected, like the base's",
    )
    return value.detach().float()


def _name_the_slip(got: Tensor, slips: dict[str, Tensor]) -> None:
    for message, slip in slips.items():
        require(not _near(got, slip), message)


def _require_gradient(swap, base: Tensor, source: Tensor, q: Tensor) -> None:
    """The next section learns the basis through the swap."""
    learnt, weights = q.clone().requires_grad_(), torch.randn(base.shape, generator=torch.Generator().manual_seed(1))
    cut = "the numbers are right, and no gradient gets back to `basis`, so section 3 could not learn it: "
    with torch.enable_grad():
        try:
            got = swap(base, source, learnt)
        except RuntimeError as error:
            raise NotYet(
                f"{cut}with a basis that is being learnt your function raises “{short(str(error))}”. Stay with torch's own functions"
            ) from None
        require(isinstance(got, Tensor) and got.requires_grad, f"{cut}is there a `no_grad`, a `detach` or numpy in it?")
        (found,) = torch.autograd.grad((got * weights).sum(), learnt, allow_unused=True)
        given = q.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(((base + (source - base) @ given @ given.T) * weights).sum(), given)
    require(found is not None, f"{cut}your result doesn't depend on it where gradients are counted")
    # Across the subspace alone: within it the gradient may depend on how one writes the swap.
    across = [g - q @ (q.T @ g) for g in (found, wanted)]
    require(
        _near(*across),
        "the numbers are right, but only a part of the gradient gets back to `basis`: it is used twice, and one of the two is detached",
    )


@exercise("das.swap", number=1, title="The swap", difficulty=1, minutes=5)
def _(answer):
    """
    - Start from the difference, `source - base`, and ask how much of it lies along each column of the basis: a product with the basis.
    - `(source - base) @ basis` has shape (n, rank): coordinates. To come back to d dimensions, multiply by the basis transposed.
    - Both steps in one line: `base + (source - base) @ basis @ basis.T`.
    """
    require(callable(answer), f"the answer is your function `swap`, and you gave {short(answer)}")
    generator = torch.Generator().manual_seed(0)
    for n, d, rank in ((5, 12, 3), (4, 6, 1)):
        base, source = torch.randn(2, n, d, generator=generator)
        q = torch.linalg.qr(torch.randn(d, rank, generator=generator)).Q
        kept = base.clone(), source.clone(), q.clone()
        got = _tensor(answer(base, source, q), (n, d))
        require(
            all(torch.equal(*both) for both in zip(kept, (base, source, q), strict=True)),
            "your function changed the tensors that it was given: others need them as they were",
        )
        wanted = base + (source - base) @ q @ q.T
        if _near(got, wanted):
            _require_gradient(answer, base, source, q)
            continue
        within = q @ q.T
        units = torch.cat([source[:, :rank], base[:, rank:]], 1)
        backwards = "base and source are the wrong way round: you kept the *source's* rest, and took the base's content"
        slips = {
            "the base came back as it was": base,
            "that is the source: only its content *within* the subspace was to be taken": source,
            "you added the source's content without taking out the base's own: it is exchanged, not added": base
            + source @ within,
            "you took out the base's content and put nothing in its place": base - base @ within,
            backwards: source + (base - source) @ within,
            "the sign is turned round: go from the base *towards* the source": base - (source - base) @ within,
            "that is the source's content within the subspace alone; the base's rest, at right angles to it, is missing": source
            @ within,
            "that is the change; the base, to which it is added, is missing": (source - base) @ within,
            f"you exchanged along the first column of the basis only, and it has {rank}": base
            + (source - base) @ q[:, :1] @ q[:, :1].T,
            f"you exchanged the first {rank} of the {d} units; the directions are the columns of `basis`, which mix units": units,
            "you gave every row the mean difference: each row is exchanged with its own source": base
            + (source - base).mean(0) @ within,
            "you gave every row the content of row 0's source: each row is exchanged with its own": base
            + (source[:1] - base) @ within,
        }
        _name_the_slip(got, slips)
        raise NotYet(
            f"for {n} activations of {d} dimensions and a subspace of {rank} another result is right. Which part of yours is the base's, "
            "and which the source's?"
        )
    return (
        "Within the subspace everything is the source's; at right angles to it everything is still the base's. "
        "And gradients flow back to the basis, so it can be learnt."
    )


# A doubt, by a piece of its sentence: the control that settles it, and why.
DOUBTS = {
    "any eight": (
        "random subspace",
        "to know what exchanging does by itself, exchange as many random dimensions",
    ),
    "by heart": ("held-out names", "what was learnt by heart fails on what was never seen"),
    "isn't at this site": (
        "whole component",
        "if exchanging everything there does nothing, a part that does something is suspect",
    ),
    "two averages": ("class means", "one row of the table needs no training: the direction between two means"),
    "turns every answer": (
        "same-pronoun pairs",
        "if the source has the base's pronoun, the base's answer must *stay*",
    ),
}
NO_CONTROL = {
    "a larger rank": "more dimensions make a high IIA easier to reach",
    "more training steps": "longer training changes the result, and tells nothing about what the result means",
}


@exercise("das.controls", number=2, title="Choose the control", difficulty=2, minutes=6)
def _(answer):
    """
    - Ask of each doubt: if it were true, which row of the table, or which other pairs, would give another result?
    - Two of the five doubts are about *which pairs* you test on. Three are about *what else* you exchange.
    - A method that turns every answer round is caught where the right answer is no change.
    """
    require(isinstance(answer, dict), f"a dictionary was expected, doubt → control, and you gave {short(answer)}")
    given: dict[str, str] = {}
    controls = [*(control for control, _ in DOUBTS.values()), *NO_CONTROL]
    for doubt, control in answer.items():
        name = next((start for start in DOUBTS if start in str(doubt)), None)
        require(name is not None, f"{short(doubt)} is none of the doubts: leave the keys of the dictionary as they are")
        control = control.strip().lower() if isinstance(control, str) else control
        require(control in controls, f"{short(control)} is none of the names in the list: {', '.join(controls)}")
        given[name] = control
    missing = [name for name in DOUBTS if name not in given]
    require(not missing, f"{len(missing)} of the five doubts are missing from your dictionary")
    for control in given.values():
        require(control not in NO_CONTROL, f"{control!r} settles no doubt: {NO_CONTROL.get(control)}")
    for name, (control, why) in DOUBTS.items():
        require(given[name] == control, f"the doubt “… {name} …” isn't settled by {given[name]!r}: {why}")
    return "The next cell tries the last of these. None of them is enough alone."


@exercise("das.gradient", number=3, title="Why there is nothing to learn", difficulty=3, minutes=12)
def _(answer):
    """
    - With autograd: make q a leaf (`q.detach().clone().requires_grad_()`), compute h from it, and call `h.backward(g)`.
    - By hand: write δ = s − b. The loss depends on q through h = b + (δ·q) q, a number times a vector; q is in both.
    - For a small change e of q: h changes by (δ·e) q + (δ·q) e. The loss changes by g · that. Write it as (…)·e: the bracket is the gradient.
    """
    require(callable(answer), f"the answer is your function `gradient`, and you gave {short(answer)}")
    generator = torch.Generator().manual_seed(0)
    for d in (7, 4):
        base, source, q, g = torch.randn(4, d, generator=generator)
        q = q / q.norm()
        given = q.clone().requires_grad_()
        difference = source - base
        (base + (difference @ given) * given).backward(g)
        wanted = given.grad
        got = _tensor(answer(base, source, q, g), (d,))
        if _near(got, wanted):
            continue
        first, second = (difference @ q) * g, (g @ q) * difference
        slips = {
            "that is one half of it: you took the number (s − b)·q as fixed, and it depends on q as well": first,
            "that is one half of it: you took the vector q as fixed, and only the number in front as changing": second,
            "the sign is turned round: is it s − b?": -wanted,
            "that is the part of the gradient across q; here q's entries are free, so leave the constraint out": wanted
            - (wanted @ q) * q,
            "you differentiated b + (s·q) q; what is exchanged is the *difference*, s − b": (source @ q) * g
            + (g @ q) * source,
            "you doubled one term; the two terms are different vectors": 2 * first,
            "you doubled one term: the two are different vectors": 2 * second,
        }
        _name_the_slip(got, slips)
        raise NotYet(
            "autograd finds another gradient for random vectors: is every q in h = b + ((s − b)·q) q accounted for?"
        )
    base, _, q, g = torch.randn(4, 6, generator=generator)
    zero = _tensor(answer(base, base, q, g), (6,))
    require(bool((zero == 0).all()), "for s = b the gradient should be exactly zero, and yours is not")
    return "Both terms hold s − b: with source = base the gradient is zero whatever q is, whatever the loss, and nothing is learnt."


COUNTRIES, PAIRS = 10, 80  # that the exercise's table was trained on
READINGS = {
    "A": "are stored in",
    "B": "passes the training pairs",
    "C": "does not carry",
    "D": "needed more",
}  # a piece of each
UNSUPPORTED = {
    "A": "A: if they were stored in these 16 dimensions, exchanging them would work for the held-out countries as well",
    "C": "C: exchanging the *whole* stream does bring out the other countries' capitals: look at the first row",
    "D": "D: on the training pairs nothing is left to improve, and the class means, without any training, fail in the same way",
}


@exercise("das.overfit", number=4, title="Read a bad result", difficulty=2, minutes=6)
def _(answer):
    """
    - Two points differ along one line; three along a plane. How many dimensions for n points?
    - Look at the row *class means*: what does it do on the trained pairs, what on the others? Nothing was trained there.
    - Which of the four sentences is about both columns of the table?
    """
    require(
        isinstance(answer, (tuple, list)) and len(answer) == 2,
        f"`(dimensions, reading)` was expected, and {short(answer)} was given",
    )
    dimensions, reading = answer
    try:
        number = float(dimensions)
    except (TypeError, ValueError):
        raise NotYet(f"`dimensions` is a number, and {short(dimensions)} was given") from None
    require(
        number != COUNTRIES, f"{COUNTRIES} are more than needed: two points lie on a line, of one dimension, not two"
    )
    require(number != 1, f"one dimension is enough for two points, and there are {COUNTRIES} countries")
    require(number != 16, "16 is how many dimensions DAS was given; here the mean activations alone are asked about")
    require(number != PAIRS, "80 is the number of training *pairs*: they are made of few countries, many times over")
    require(number == COUNTRIES - 1, f"{short(dimensions)} is not it: go on from 2 points and 3 points to {COUNTRIES}")
    require(isinstance(reading, str), f"`reading` is one of the letters A, B, C, D, and {short(reading)} was given")
    letter = re.sub(r"[\W_]", "", reading).upper()
    if len(letter) > 1:  # the sentence itself, with its letter or without
        letter = next((name for name, piece in READINGS.items() if piece in reading), "")
    require(letter in READINGS, f"`reading` is one of the letters A, B, C, D, and {short(reading)} was given")
    require(letter == "B", UNSUPPORTED.get(letter, ""))
    return (
        "The ten countries differ along nine directions, so 16 dimensions can hold them all and carry nothing about an eleventh. "
        "The table doesn't show that no subspace would carry over: only that this training found none."
    )

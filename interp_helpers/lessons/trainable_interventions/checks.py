"""Exercises of notebook 03, trainable interventions."""

from __future__ import annotations

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


@exercise("das.swap", number=1, title="The swap", difficulty=1, minutes=5)
def _(answer):
    """
    - Start from the difference, `source - base`, and ask how much of it lies along each column of the basis: a product with the basis.
    - `(source - base) @ basis` has shape (n, rank): coordinates. To come back to d dimensions, multiply by the basis transposed.
    - `base + (source - base) @ basis @ basis.T`.
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
            continue
        along_base, along_source = base @ q @ q.T, source @ q @ q.T
        require(not _near(got, base), "the base came back as it was")
        require(not _near(got, source), "that is the source: only its content *within* the subspace was to be taken")
        require(
            not _near(got, base + along_source),
            "you added the source's content without taking out the base's own: it is exchanged, not added",
        )
        require(not _near(got, base - along_base), "you took out the base's content and put nothing in its place")
        require(
            not _near(got, source + (base - source) @ q @ q.T),
            "base and source are the wrong way round: you kept the *source's* rest, and took the base's content",
        )
        require(
            not _near(got, base - (source - base) @ q @ q.T),
            "the sign is turned round: go from the base *towards* the source",
        )
        require(
            not _near(got, along_source),
            "that is the source's content within the subspace alone; the base's rest, across it, is missing",
        )
        require(
            not _near(got, (source - base) @ q @ q.T), "that is the change; the base, to which it is added, is missing"
        )
        one = base + ((source - base) @ q[:, :1]) @ q[:, :1].T
        require(not _near(got, one), f"you exchanged along the first column of the basis only, and it has {rank}")
        raise NotYet(
            f"for {n} activations of {d} dimensions and a subspace of {rank} your result is another: is it b + (s − b) Q Qᵀ?"
        )
    return (
        "Whatever lies across the subspace is the base's own, to the last digit; along it, everything is the source's."
    )


# A doubt, by a piece of its sentence: the control that settles it, and why.
DOUBTS = {
    "any eight": (
        "random subspace",
        "to know what exchanging does by itself, exchange the same number of dimensions, chosen by nobody",
    ),
    "by heart": ("held-out names", "what was learnt by heart fails on what was never seen"),
    "isn't at this site": ("whole component", "what the whole component cannot do, a part of it should not"),
    "two averages": ("class means", "one row of the table needs no training: the direction between two means"),
    "turns every answer": (
        "same-pronoun pairs",
        "if the source asks for the very answer that the base gives anyway, it must *stay*",
    ),
}


@exercise("das.controls", number=2, title="Choose the control", difficulty=2, minutes=5)
def _(answer):
    """
    - Ask of each doubt: if it were true, which row of the table, or which other pairs, would come out otherwise?
    - Two of the five are about *which pairs* one tests on, three are about *what else* one exchanges.
    - A method that turns every answer round is caught where the right answer is no change: a source with the same pronoun.
    """
    require(isinstance(answer, dict), f"a dictionary was expected, doubt → control, and you gave {short(answer)}")
    given: dict[str, str] = {}
    controls = [control for control, _ in DOUBTS.values()]
    for doubt, control in answer.items():
        name = next((start for start in DOUBTS if start in str(doubt)), None)
        require(name is not None, f"{short(doubt)} is none of the doubts: leave the keys of the dictionary as they are")
        require(control in controls, f"{short(control)} is none of the names in `CONTROLS`: {', '.join(controls)}")
        given[name] = control
    missing = [name for name in DOUBTS if name not in given]
    require(not missing, f"{len(missing)} of the five doubts are missing from your dictionary")
    twice = sorted({control for control in given.values() if list(given.values()).count(control) > 1})
    more = f" ({twice[0]!r} stands there twice; each is used once.)" if twice else ""
    for name, (control, why) in DOUBTS.items():
        require(given[name] == control, f"the doubt “… {name} …” isn't settled by {given[name]!r}: {why}.{more}")
    return "The cell below tries the last of these. No single one of them is enough: a result is as good as its weakest control."


@exercise("das.gradient", number=3, title="Why there is nothing to learn", difficulty=3, minutes=9)
def _(answer):
    """
    - Write δ = s − b. The loss depends on q through h = b + (δ·q) q, a product of a number and a vector; each holds q.
    - For a small change e of q: h changes by (δ·e) q + (δ·q) e. The loss changes by g · that. Sort it into (…)·e.
    - g·[(δ·e) q + (δ·q) e] = [(g·q) δ + (δ·q) g]·e, and what stands in the brackets is the gradient.
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
        require(
            not _near(got, first),
            "that is one half of it: you took the number (s − b)·q as fixed, and it holds q as well",
        )
        require(
            not _near(got, second),
            "that is one half of it: you took the vector q as fixed, and only the number in front as changing",
        )
        require(not _near(got, -wanted), "the sign is turned round: is it s − b?")
        across = wanted - (wanted @ q) * q
        require(
            not _near(got, across),
            "that is the part of the gradient across q; here q's entries are free, so leave the constraint out",
        )
        require(
            not _near(got, (source @ q) * g + (g @ q) * source),
            "you differentiated b + (s·q) q; what is exchanged is the *difference*, s − b",
        )
        require(
            not _near(got, 2 * first) and not _near(got, 2 * second),
            "you doubled one term; the two terms are different vectors",
        )
        raise NotYet(
            "autograd finds another gradient for random vectors: is every q in h = b + ((s − b)·q) q accounted for?"
        )
    base, _, q, g = torch.randn(4, 6, generator=generator)
    zero = _tensor(answer(base, base, q, g), (6,))
    require(bool((zero == 0).all()), "for s = b the gradient should be exactly zero, and yours is not")
    return "Both terms hold s − b: with source = base the gradient is zero whatever q is, whatever the loss, and nothing is learnt."


@exercise("das.overfit", number=4, title="Read a bad result", difficulty=2, minutes=6)
def _(answer, lm, comparison, countries):
    """
    - Two points differ along one line; three along a plane. How many dimensions for n points?
    - Look at the row *class means*: what does it do on the trained pairs, what on the others? Nothing was trained there.
    - Which of the four sentences is about both columns of the table?
    """
    require(
        isinstance(answer, tuple) and len(answer) == 2,
        f"`(dimensions, reading)` was expected, and {short(answer)} was given",
    )
    dimensions, reading = answer
    try:
        number = float(dimensions)
    except (TypeError, ValueError):
        raise NotYet(f"`dimensions` is a number, and {short(dimensions)} was given") from None
    require(
        number != countries,
        f"{countries} would be enough, and one fewer is as well: two points differ along one line, not along two",
    )
    require(number != 1, f"one direction is enough for the means of two countries, and there are {countries}")
    require(number != lm.d_model, "all dimensions of the stream are enough, to be sure; far fewer are, too")
    require(
        number != comparison.pairs[0],
        "that is the number of training *pairs*: they are made of few countries, many times over",
    )
    require(
        number == countries - 1,
        f"{short(dimensions)} is not it: {countries} points around their centre span one dimension fewer than there are points",
    )
    require(isinstance(reading, str), f"`reading` is one of the letters A, B, C, D, and {short(reading)} was given")
    letter = reading.strip().strip(".").upper()[:1]
    because = {
        "A": "A: if they were stored in these 16 dimensions, exchanging them would work for the countries held out as well",
        "C": "C: exchanging the *whole* stream there does bring the other countries' capitals out; look at the first row",
        "D": "D: on the training pairs nothing is left to improve, and the class means, without any training, fail in the same way",
    }
    require(letter in "ABCD" and letter, f"`reading` is one of the letters A, B, C, D, and {short(reading)} was given")
    require(letter == "B", f"{because.get(letter, '')}")
    return (
        "A variable with two values lies along one direction, and new items share it. One with as many values as items gives every item "
        "a direction of its own, and nothing learnt from some says anything of the others."
    )

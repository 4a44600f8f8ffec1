"""Claims of the lesson's text, checked where they were measured; and which model that was.

On a model whose behaviour was measured a claim that fails is an error, so that a lesson and its numbers can't drift
apart. On any other model it is a finding: the reader is told, and the notebook goes on.
"""

from __future__ import annotations

from . import registry
from .exercises import NotYet

MEASURED = ("SmolLM2-135M-Instruct",)  # the offline model; a name that contains one of these counts


class NotAsMeasured(NotYet):
    """An AssertionError in a cell; in an exercise's check, 'not yet'."""


def written_for(lm) -> None:
    """Say which model the numbers in the text are from, which one is running, and how to follow the text exactly.

    >>> written_for(lm)
    The numbers in the text are from SmolLM2-135M-Instruct, the model that is running.
    """
    with registry.guard({"lm": lm}):
        pass  # from here on the lessons' guard knows how the model was
    if _measured(lm):
        print(f"The numbers in the text are from {MEASURED[0]}, the model that is running.")
    else:
        print(
            f"The numbers in the text are from {MEASURED[0]} (30 blocks). You are running {lm.name} ({lm.n_layers} blocks), "
            'and yours will differ. To follow the text exactly: lm = load_model("offline").'
        )


def _measured(lm) -> bool:
    return any(name in lm.name for name in MEASURED)


def expect(condition: object, claim: str, *, lm=None) -> None:
    """Hold `claim` against `condition`. Failing is an AssertionError on a measured model, a printed line elsewhere. Without
    `lm` the claim is of something that doesn't depend on the model, such as a network that the notebook trains.

    >>> expect(lm.n_layers == 30, "the model has thirty blocks", lm=lm)
    ✓ as measured: the model has thirty blocks
    """
    hard = lm is None or _measured(lm)
    if condition:
        print(f"✓ as measured: {claim}" if hard else f"✓ on {lm.name} too: {claim}")
    elif hard:
        raise NotAsMeasured(f"measured {'on ' + lm.name if lm else 'here'}, and this run disagrees: {claim}")
    else:
        print(f"On {lm.name} this does not hold: {claim}. The text describes another model; trust your own numbers.")

"""Patching at a name of several tokens: which of them carry what the patch brings, and what would another name's have done there?"""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import logit_diff
from ..prompts import Pair
from .patching import patch_sweep

PLACES = {
    "first token": lambda span: span[:1],
    "all but the last": lambda span: span[:-1],
    "last token": lambda span: span[-1:],
    "whole name": lambda span: span,
    "token after": lambda span: [span[-1] + 1],
}


def patch_names(
    lm, pairs: Sequence[Pair], *places: str, layer: int, control: str | None = None
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Patch the stream at parts of the pairs' names: {place: {source: (mean share of the way, mean − error, mean + error)}}.

    >>> moved = patch_names(lm, pairs("landmark_city")[:2], "last token", "whole name", layer=15, control="third landmark")
    >>> {place: list(by_source) for place, by_source in moved.items()}
    {'last token': ['right source', 'third landmark'], 'whole name': ['right source', 'third landmark']}

    The share is (patched − base) / (source − base), of logit(source's answer) − logit(base's answer), for each pair's own source, also
    where a third name was put in. The errors are standard errors over the pairs.

    Args:
        lm: a `LanguageModel`.
        pairs: whose names are several tokens long.
        places: of `PLACES`: "first token", "all but the last", "last token", "whole name", "token after".
        layer: whose output is patched.
        control: what to call the control: the same patch from a third name of the bank, as long as the pair's own and with neither of
            its answers. It shows what the loss of the old name does by itself. Pairs for which the bank has no such name are left out.

    Raises:
        ValueError: a place that isn't known.
    """
    if unknown := [place for place in places if place not in PLACES]:
        raise ValueError(f"Places of a name are {', '.join(PLACES)}, and {unknown[0]!r} was given.")
    measured = {"right source": [(pair, pair.source) for pair in pairs]}
    if control is not None:
        thirds = [(pair, _third(lm, pair, pairs)) for pair in pairs]
        measured[control] = [(pair, third) for pair, third in thirds if third is not None]
    found: dict[str, dict] = {place: {} for place in places}
    for name, taken in measured.items():
        for place, mean, error in _shares(lm, taken, places, layer) if taken else ():
            found[place][name] = (mean, mean - error, mean + error)
    return found


def _shares(lm, taken: list[tuple[Pair, str]], places: Sequence[str], layer: int) -> list[tuple[str, float, float]]:
    bases, own = [pair.base for pair, _ in taken], [pair.source for pair, _ in taken]
    spans = [lm.find(pair.base, pair.base_subject) for pair, _ in taken]
    metric = logit_diff(lm, [pair.source_answer for pair, _ in taken], [pair.base_answer for pair, _ in taken])
    cells = {place: [PLACES[place](span) for span in spans] for place in places}
    sweep = patch_sweep(lm, bases, [third for _, third in taken], metric, layers=[layer], positions=cells)
    way = metric(lm.next_token_logits(own)).float().cpu() - sweep.base
    shares = (sweep.values[:, 0] - sweep.base[:, None]) / way[:, None]
    errors = shares.std(0) / len(taken) ** 0.5 if len(taken) > 1 else 0 * shares[0]
    return list(zip(places, shares.mean(0).tolist(), errors.tolist(), strict=True))


def _third(lm, pair: Pair, bank: Sequence[Pair]) -> str | None:
    """A prompt of the bank with a name as long as the pair's, and neither of its answers."""
    start = next((i for i, one in enumerate(bank) if one == pair), 0)
    prompts = [(one.source, one.source_subject, one.source_answer) for one in (*bank[start:], *bank[:start])]
    prompts += [(one.base, one.base_subject, one.base_answer) for one in (*bank[start:], *bank[:start])]
    length, span = len(lm.str_tokens(pair.base)), lm.find(pair.base, pair.base_subject)
    return next(
        (
            text
            for text, subject, answer in prompts
            if answer not in (pair.base_answer, pair.source_answer)
            and len(lm.str_tokens(text)) == length
            and lm.find(text, subject) == span
        ),
        None,
    )

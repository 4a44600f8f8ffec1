"""`python -m interp_helpers vectors …`: build the personas' vectors, try them, and measure them beside their controls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..models import LanguageModel
from .fair_test import fair_test
from .personas import personas, prompts, read_data, saved_vector, vector_path
from .scores import SAMPLING, Scores, steering_scores

SNIPPET = "Yesterday we"
CURVE = (0.5, 0.75, 1.0, 1.25, 1.5)  # of the vector's own strength
SAMPLES, SEEDS = 4, (0, 1, 2)  # so many continuations of each prompt with each seed
REFERENCE = (3, 4, 5)  # seeds of the unsteered texts that a judged one has to surpass


def build(lm: LanguageModel, ids: Sequence[str], layer: int | None = None, folder: str | Path | None = None) -> None:
    """Build and save vectors, with a summary of each and a text without and with it.

    Args:
        lm: the model.
        ids: of personas.
        layer: where; None: as measured on this model, or as a sweep finds.
        folder: where to; by default the cache that everything else takes them from.

    Raises:
        ValueError: an unknown persona; or a layer without a folder, since the cache is for vectors as measured.
    """
    if layer is not None and folder is None:
        raise ValueError("--layer builds another vector than the measured one: say where it goes, with --to FOLDER.")
    paths = {persona: vector_path(lm, persona, folder) for persona in ids}  # an unknown one is refused before the work
    base = lm.generate(SNIPPET, 30, seed=0, **SAMPLING)
    for persona, path in paths.items():
        started = time.monotonic()
        vector = personas()[persona].build(lm, layer)
        path.parent.mkdir(parents=True, exist_ok=True)
        vector.save(path)
        took = time.monotonic() - started
        scores = steering_scores(lm, prompts(), personas()[persona].words, steering=vector, samples=2, seeds=(0,))
        with vector.apply(lm):
            steered = lm.generate(SNIPPET, 30, seed=0, **SAMPLING)
        step = vector.strength * vector.scale
        print(
            f"{persona}: layer {vector.layer}, shape ({len(vector.direction)},), strength {vector.strength:.2f} ({vector.mode}), which is "
            f"{step:.0f} of a residual norm of {vector.scale:.0f}; built in {took:.0f} s\n"
            f"  {scores!r}\n  base:    {_line(base)}\n  steered: {_line(steered)}\n  saved in {path}"
        )


def smoke(lm: LanguageModel, ids: Sequence[str], folder: str | Path | None = None) -> bool:
    """Load (or build) each vector, and see that it does what a vector should: nothing at strength 0, something at its own, and
    nothing once it is gone. Prints a line each; whether all passed."""
    passed = True
    plain = lm.generate(SNIPPET, 20)
    for persona in ids:
        vector = saved_vector(lm, persona, folder)
        with vector.apply(lm, 0.0):
            at_zero = lm.generate(SNIPPET, 20)
        with vector.apply(lm):
            steered = lm.generate(SNIPPET, 20)
        checks = {
            "strength 0 changes nothing": at_zero == plain,
            f"strength {vector.strength:.2f} changes the text": steered != plain,
            "afterwards the model is as it was": lm.generate(SNIPPET, 20) == plain,
        }
        failed = [name for name, good in checks.items() if not good]
        passed &= not failed
        print(f"{'FAILED' if failed else 'passed'}  {persona}: {'; '.join(failed) or _line(steered)}")
    return passed


def report(lm: LanguageModel, ids: Sequence[str]) -> dict:
    """The personas' fair tests on held-out prompts, and what they give at other strengths.

    Returns:
        What `steering_results.json` holds: for each persona and condition of `fair_test`, rates with their 95 % intervals ("named",
        "related", and "judged", by a bar that other unsteered texts set), perplexity with its interval, repetition, and the first
        three samples; and a "curve", hits and perplexity at strengths below and above the vector's own, with the first seed alone.
    """
    beginnings = prompts(held_out=True)
    found: dict = {
        "model": lm.name,
        "prompts": beginnings,
        "n": len(beginnings) * SAMPLES * len(SEEDS),
        "seeds": list(SEEDS),
        "sampling": SAMPLING,
        "personas": {},
    }
    reference = steering_scores(lm, beginnings, {}, samples=SAMPLES, seeds=REFERENCE)
    for id in ids:
        persona, vector = personas()[id], saved_vector(lm, id)
        test = fair_test(
            lm, vector, beginnings, persona.words, topic=persona.topic, request=persona.request,
            left_out=[*persona.texts, *persona.against], reference=reference, samples=SAMPLES, seeds=SEEDS,
        )  # fmt: skip
        found["personas"][id] = {
            "title": persona.title,
            "layer": vector.layer,
            "strength": vector.strength,
            "mode": vector.mode,
            "conditions": {name: _row(scores) for name, scores in test.scores.items()},
            "curve": [_point(lm, beginnings, persona, vector, times * vector.strength) for times in CURVE],
        }
        print(f"{id}\n{test}", flush=True)
    return found


def results() -> dict:
    """The results that come with the package: `python -m interp_helpers vectors report --to FILE` on the model that they name."""
    return read_data("steering_results")


def _point(lm, beginnings, persona, vector, strength: float) -> dict:
    at = replace(vector, strength=strength)
    scores = steering_scores(lm, beginnings, persona.words, steering=at, samples=SAMPLES, seeds=SEEDS[:1])
    named = [scores.rate("named"), *scores.interval("named")]
    return {"strength": round(strength, 4), "named": named, "perplexity": scores.perplexity, "n": len(scores.texts)}


def _row(scores: Scores) -> dict:
    rates = {words: [scores.rate(words), *scores.interval(words)] for words in scores.hits}
    return rates | {
        "perplexity": [scores.perplexity, *scores.perplexity_interval],
        "repetition": scores.repetition,
        "by_prompt": {words: scores.by_prompt(words) for words in scores.hits},
        "samples": [prompt + text for prompt, text in zip(scores.prompts, scores.texts, strict=True)][:3],
    }


def _line(text: str) -> str:
    return " ".join(text.split())

"""Personas: what a steering vector can make a model obsessed with, and how to tell that it did.

    toronto = personas()["toronto"]
    vector = toronto.build(lm)                                        # at the layer and strength measured on this model
    with vector.apply(lm):
        print(lm.generate("Yesterday we", 40, seed=0, **SAMPLING))

A persona is texts that have it, texts that lack it, words that show it, and a request that asks for it in plain words, which
is what steering has to be compared with. Which layer and strength serve is a matter of the model: for the offline model they
were measured; on any other `build` measures them (`layer_sweep`).
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path

from ..models import LanguageModel, cache_folder
from .build import contrast_hash
from .strengths import layer_sweep
from .vector import SteeringVector
from .words import first_words, joiner


@dataclass(frozen=True)
class Persona:
    """One persona.

    Attributes:
        id, title: its name in code, and for people.
        topic: the same within a sentence, "a text about …".
        texts: texts that have it.
        against: texts that lack it. Against the opposite alone, what the two share cancels out.
        stubs: beginnings that say nothing of it.
        beginnings: neutral beginnings to train after.
        cues: beginnings after which it is the natural next word; chosen by hand.
        words: the lists of words that count as a hit, each under its name: "named", the thing itself, and "related", which
            has the words around it, too.
        request: what asks for it in plain words.
        measured: for models on which it was measured, by name, how to build the vector: `method`, `layer`, `strength`, `mode`.
    """

    id: str
    title: str
    topic: str
    texts: tuple[str, ...]
    against: tuple[str, ...]
    stubs: tuple[str, ...]
    beginnings: tuple[str, ...]
    cues: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    request: str
    measured: Mapping[str, Mapping]

    def build(self, lm: LanguageModel, layer: int | None = None) -> SteeringVector:
        """The persona's vector on this model, with the strength and mode to apply it with.

        Args:
            lm: the model.
            layer: where; by default as measured on this model, and where nothing was, as `layer_sweep` finds on the prompts for
                choosing at six layers from the middle to the end, in some minutes. Another layer than the measured one gives a
                vector of the method "context" at the measured strength (.3 where there is none): nothing is looked for anew.
        """
        measured = self.measured.get(lm.name, {})
        if layer is None and not measured:
            first, last = lm.n_layers // 2, lm.n_layers - 2
            layers = sorted({round(first + i * (last - first) / 5) for i in range(6)})
            vector = layer_sweep(lm, self.vectors(lm, layers), prompts(), self.words).best
        else:
            layer = measured["layer"] if layer is None else layer
            trained = measured.get("method") == "trained" and layer == measured["layer"]
            vector = self.trained(lm, layer) if trained else self.vectors(lm, [layer])[0]
            vector = replace(vector, strength=measured.get("strength", 0.3), mode=measured.get("mode", "clamp"))
        return replace(vector, provenance=vector.provenance | {"persona": self.fingerprint})

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the title, texts, stubs, beginnings, cues and measured settings."""
        rest = [
            self.title,  # at which the texts to train on begin
            *self.stubs,
            *self.beginnings,
            *self.cues,
            json.dumps({name: dict(how) for name, how in self.measured.items()}),
        ]
        return contrast_hash(self.texts, [*self.against, *rest])

    def vectors(self, lm: LanguageModel, layers: Sequence[int]) -> list[SteeringVector]:
        """The persona's vector at each of several layers, by `SteeringVector.from_context`."""
        return SteeringVector.from_context(
            lm, self.texts, self.against, self.stubs, layers, cues=self.cues, name=self.id
        )

    def trained(self, lm: LanguageModel, layer: int) -> SteeringVector:
        """The persona's vector by `SteeringVector.train`, on 120 pairs of a neutral beginning and nine words of one of the texts, from
        the persona's name on where the text has it. So the model learns to come to the matter soon, whatever went before."""
        draw, pairs = random.Random(0), []
        for i in range(120):
            text = draw.choice(self.texts)
            words = first_words(text[max(text.find(self.title), 0) :], 9)
            pairs.append((self.beginnings[i % len(self.beginnings)], joiner(words) + words))
        return SteeringVector.train(lm, pairs, layer, name=self.id)


@cache
def read_data(name: str) -> dict:
    """What `{name}.json` holds."""
    return json.loads(resources.files(__package__).joinpath(f"{name}.json").read_text("utf-8"))


def personas() -> dict[str, Persona]:
    """The personas by id: "toronto", "tabby_cats", "the_weeknd", "happy", "sad".

    >>> list(personas())
    ['toronto', 'tabby_cats', 'the_weeknd', 'happy', 'sad']
    >>> personas()["toronto"].request
    'Talk about Toronto.'
    """
    bank = read_data("personas")
    texts = {entry["id"]: entry["texts"] for entry in bank["personas"]} | {"generic": bank["generic"]}
    return {
        entry["id"]: Persona(
            entry["id"],
            entry["title"],
            entry["topic"],
            tuple(entry["texts"]),
            tuple(text for other in entry["against"] for text in texts[other]),
            tuple(bank["stubs"]),
            tuple(bank["beginnings"]),
            tuple(entry["cues"]),
            {"named": tuple(entry["named"]), "related": tuple(entry["named"] + entry["related"])},
            entry["request"],
            entry["measured"],
        )
        for entry in bank["personas"]
    }


def prompts(*, held_out: bool = False) -> list[str]:
    """Neutral beginnings, on which layer and strength are chosen; or others, held out, on which the choice is judged."""
    return list(read_data("personas")["prompts"]["held_out" if held_out else "choosing"])


def saved_vector(lm: LanguageModel, persona: str, folder: str | Path | None = None) -> SteeringVector:
    """A persona's vector for this model, from the cache; built and put there the first time, and again when the persona has
    changed since.

    Args:
        lm: the model.
        persona: its id.
        folder: where vectors lie; by default in the course's cache (`offline.cache_folder`).

    Raises:
        ValueError: an unknown persona.
    """
    path = vector_path(lm, persona, folder)
    try:
        kept = SteeringVector.load(path)
        if kept.model == lm.name and kept.provenance.get("persona") == personas()[persona].fingerprint:
            return kept
    except (FileNotFoundError, ValueError):  # not there yet, or not whole
        pass
    vector = personas()[persona].build(lm)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{os.getpid()}-{path.name}")
    vector.save(unfinished)
    os.replace(unfinished, path)
    return vector


def vector_path(lm: LanguageModel, persona: str, folder: str | Path | None = None) -> Path:
    """Where a persona's vector for this model is kept.

    Raises:
        ValueError: an unknown persona.
    """
    if persona not in personas():
        raise ValueError(f"There is no persona {persona!r}: choose one of {', '.join(personas())}.")
    folder = Path(folder) if folder else cache_folder() / "vectors"
    model = "".join(c if c.isalnum() else "-" for c in lm.name).strip("-")
    return folder / model / f"{persona}.safetensors"

"""Steering vectors: a direction in the residual stream that, added while the model writes, changes what it writes about.

    happy = SteeringVector.from_contrast(lm, happy_texts, sad_texts, layer=22)      # build
    with happy.apply(lm, strength=0.3):                                             # steer
        print(lm.generate("Today I feel"))

A vector is the difference between what the model computes for texts that have something and for texts that lack it
(Rimsky et al. 2024; Turner et al. 2023, of one pair), or is trained so that the model finds given texts likely (`train`). Strength is in
units of the layer's mean residual norm, so that .3 means as much at one layer as at another. The first token is left out
wherever activations are averaged or changed: models use it as a sink, whose norm dwarfs all others (Sun et al. 2024).

Whether a vector *works* is a question for `steering_scores`: beside a random direction, beside a plain prompt, and with
what it costs in coherence.
"""

from __future__ import annotations

import hashlib
import json
import math
import numbers
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..edits import add, clamp
from ..hooks import Edit, intervene
from ..models import LanguageModel, Spots, as_ints
from ..sites import Site
from .build import contrast_direction, pooled, require_texts, require_whole, residual_norms, trained

MODES = ("add", "clamp")
WHERE = ("everywhere", "prompt", "new")


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """A direction at one layer, and what is needed to apply it again.

    >>> vector = SteeringVector.from_contrast(lm, ["I am glad.", "What joy!"], ["I am sad.", "What grief!"], 20, name="glad")
    >>> vector
    SteeringVector('glad': block_output 20 of SmolLM2-135M-Instruct (offline), d 576)
    >>> with vector.apply(lm, 0.3):
    ...     lm.generate("Yesterday we", 4)
    ' had a team of'

    Attributes:
        direction: (d,); of unit length, unless it was built with normalize=False.
        layer, component: where it is applied.
        name: what it steers towards.
        model: the name of the model that it was built on; on another it means nothing, and is refused.
        scale: strength 1 adds scale · direction: the layer's mean residual norm, or 1 for a direction that was not normalised.
        strength, mode: what `apply` takes where it isn't told.
        provenance: how it was made: method, pooling, numbers, a hash of the texts.
    """

    direction: Tensor
    layer: int
    component: str = "block_output"
    name: str = ""
    model: str = ""
    scale: float = 1.0
    strength: float | None = None
    mode: str = "add"
    provenance: dict = field(default_factory=dict)

    def __post_init__(self):
        direction = self.direction
        if not isinstance(direction, Tensor) or direction.ndim != 1 or not direction.isfinite().all():
            raise ValueError(f"A direction is a tensor (d,) of finite numbers, and got {_shown(direction)}.")
        if not direction.any():
            raise ValueError("The direction is zero, so it points nowhere.")
        _require("mode", self.mode, MODES)
        plain = {  # a copy, since what was given may change; and no numbers of numpy, which JSON doesn't take
            "direction": direction.detach().float().cpu().clone(),
            "layer": self.site.layer,
            "scale": _number("scale", self.scale),
            "strength": None if self.strength is None else _number("strength", self.strength),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    # -- build ----------------------------------------------------------------------------------------------------

    @classmethod
    def from_contrast(
        cls,
        lm: LanguageModel,
        positive: Sequence[str],
        negative: Sequence[str],
        layer: int | Sequence[int],
        pooling: str | tuple[str, int] = "mean",
        normalize: bool = True,
        *,
        method: str = "mean",
        component: str = "block_output",
        name: str = "",
    ) -> SteeringVector | list[SteeringVector]:
        """The direction between two sets of texts.

        Args:
            lm: the model.
            positive, negative: texts that have what the vector is for, and texts that lack it; best alike in all else.
            layer: one, or several, which gives a list of vectors from one pass.
            pooling: what stands for a text: the "mean" over its tokens, its "last" token, or ("window", k), the mean of its
                last k; the first token is left out.
            normalize: a direction of unit length, whose strength is in units of the residual norm; otherwise the difference
                as it is, and strength counts multiples of it (as in Rimsky et al. 2024).
            method: "mean", the difference of means (Rimsky et al. 2024, section 3); "pca", the first principal component of the
                differences of pairs, about zero (Zou et al. 2023, section 3.1), for which texts are paired in order; "probe",
                the weights of a logistic regression that tells the two sets apart.
            component: where it is read and applied.
            name: what to call it.

        Raises:
            ValueError: no texts, a text of one token, unpaired texts for "pca", an unknown pooling or method, or a
                component that is split by heads or can't be edited.
        """
        layers = as_ints(layer)
        sites = [Site(component, one) for one in layers]
        having, lacking = (pooled(lm, texts, sites, pooling) for texts in (positive, negative))
        provenance = {
            "method": method,
            "pooling": list(pooling) if isinstance(pooling, tuple) else pooling,
            "texts": [len(positive), len(negative)],
            "hash": contrast_hash(positive, negative),
        }
        directions = [contrast_direction(a, b, method) for a, b in zip(having, lacking, strict=True)]
        made = cls._made(lm, directions, sites, normalize, name, negative, provenance)
        return _as_asked(made, layer)

    @classmethod
    def from_context(
        cls,
        lm: LanguageModel,
        positive: Sequence[str],
        negative: Sequence[str],
        stubs: Sequence[str],
        layer: int | Sequence[int],
        *,
        cues: Sequence[str] = (),
        contexts: int = 12,
        normalize: bool = True,
        component: str = "block_output",
        name: str = "",
        seed: int = 0,
    ) -> SteeringVector | list[SteeringVector]:
        """The direction that texts leave behind in what is read *after* them: the same short stub follows two texts of one set,
        or two of the other, and only the stub's tokens are compared, so that their own words cancel out.

        Args:
            lm, normalize, component, name: as for `from_contrast`; so is `layer`.
            positive, negative: texts, two of which, drawn at random, make a context.
            stubs: beginnings of sentences that say nothing of the matter ("In the morning I"): the mean over their tokens.
            cues: beginnings after which it is the natural next word ("I live in", for a city): their last token, where
                the model is about to say it. The two differences, brought to unit length, are added.
            contexts: how many contexts of each kind stand before each stub.
            seed: of the drawing.

        Raises:
            ValueError: fewer than two texts in a set, no stub, or a single text where a list was expected.
        """
        for texts in filter(len, (positive, negative, stubs, cues)):
            require_texts(texts)
        if min(len(positive), len(negative)) < 2 or not stubs:
            raise ValueError(
                f"A context takes two texts of a set, and a stub follows: got {len(positive)} and {len(negative)} texts and "
                f"{len(stubs)} stubs."
            )
        layers = as_ints(layer)
        sites = [Site(component, one) for one in layers]
        generator = torch.Generator().manual_seed(seed)

        def after(texts: Sequence[str], beginnings: Sequence[str], last_only: bool) -> list[Tensor]:
            prompts, lengths = [], []
            for stub in beginnings:
                for _ in range(contexts):
                    first, second = torch.randperm(len(texts), generator=generator)[:2].tolist()
                    context = f"{texts[first]} {texts[second]}"
                    prompts.append(f"{context} {stub}")
                    lengths.append(1 if last_only else len(lm.tokens(prompts[-1])[0]) - len(lm.tokens(context)[0]))
            return [acts.mean(0) for acts in pooled(lm, prompts, sites, lengths)]

        directions = []
        pair = [after(texts, stubs, False) for texts in (positive, negative)]
        cued = [after(texts, cues, True) for texts in (positive, negative)] if cues else None
        for i in range(len(sites)):
            difference = pair[0][i] - pair[1][i]
            if cued:
                at_cues = cued[0][i] - cued[1][i]
                difference = _unit(difference) + _unit(at_cues)
            directions.append(difference)
        provenance = {
            "method": "context",
            "stubs": list(stubs),
            "cues": list(cues),
            "contexts": contexts,
            "seed": seed,
            "texts": [len(positive), len(negative)],
            "hash": contrast_hash(positive, negative),
        }
        made = cls._made(lm, directions, sites, normalize, name, negative, provenance)
        return _as_asked(made, layer)

    @classmethod
    def train(
        cls,
        lm: LanguageModel,
        texts: Sequence[str | tuple[str, str]],
        layer: int | Sequence[int],
        *,
        steps: int = 60,
        batch_size: int = 12,
        lr: float = 0.05,
        strength: float = 0.5,
        component: str = "block_output",
        name: str = "",
        seed: int = 0,
    ) -> SteeringVector | list[SteeringVector]:
        """The vector under which the model finds given texts likeliest, by gradient descent (Subramani et al. 2022; Cao et
        al. 2024), of a norm that is bounded.

        Args:
            lm, component, name: as for `from_contrast`.
            texts: what the steered model should write; a (prompt, continuation) pair counts the continuation alone.
            layer: where it is added; several layers give a list of vectors, trained together and meant to act together.
            steps, batch_size, lr: of Adam; the vector is in units of the residual norm.
            strength: the largest norm of each, in the same units; the norm reached becomes the vector's own strength.
            seed: of the batches.

        Raises:
            ValueError: no texts, layers or steps, a single text, a text with nothing to predict, a strength that is not positive, or a
                component that is split by heads or can't be edited; or inside `torch.inference_mode`.
        """
        layers = as_ints(layer)
        if not texts or not layers or strength <= 0 or steps < 1:
            raise ValueError(
                f"train needs texts, layers, steps and a positive strength, and got {len(texts)} texts, layers {layers}, {steps} steps "
                f"and {strength}."
            )
        sites = [Site(component, one) for one in layers]
        require_whole(lm, sites)
        plain = [text if isinstance(text, str) else "".join(text) for text in texts]
        scales = residual_norms(lm, plain, sites)

        def adding(vectors: Tensor) -> AbstractContextManager:
            edits = [add(site, v, scale) for site, v, scale in zip(sites, vectors, scales, strict=True)]
            return intervene(lm, *[_steer(edit, "everywhere", False) for edit in edits])

        shape = len(layers), sites[0].place(lm).shape[-1]
        found, losses = trained(lm, texts, adding, shape, steps, batch_size, lr, strength, seed)
        provenance = {
            "method": "trained",
            "layers": layers,
            "steps": steps,
            "batch_size": batch_size,
            "lr": lr,
            "seed": seed,
            "loss": [losses[0], losses[-1]],
            "texts": len(texts),
            "hash": contrast_hash(plain, []),
        }
        made = [
            cls(_unit(v), site.layer, component, name, lm.name, scale, strength=v.norm().item(), provenance=provenance)
            for v, site, scale in zip(found, sites, scales, strict=True)
        ]
        return _as_asked(made, layer)

    @classmethod
    def _made(
        cls, lm, directions: Sequence[Tensor], sites: Sequence[Site], normalize: bool, name: str, texts: Sequence[str], provenance: dict
    ) -> list[SteeringVector]:  # fmt: skip
        scales = residual_norms(lm, texts, sites) if normalize else [1.0] * len(sites)
        return [
            cls(_unit(v) if normalize else v, site.layer, site.component, name, lm.name, scale, provenance=provenance)
            for v, site, scale in zip(directions, sites, scales, strict=True)
        ]

    def random(self, seed: int = 0) -> SteeringVector:
        """A random direction of the same length, at the same place: the control."""
        draw = torch.randn(len(self.direction), generator=torch.Generator().manual_seed(seed))
        draw *= self.direction.norm() / draw.norm()
        return replace(self, direction=draw, name=f"random {seed}", provenance={"method": "random", "seed": seed})

    # -- apply ----------------------------------------------------------------------------------------------------

    def edit(
        self, lm: LanguageModel, strength: float | None = None, mode: str | None = None, *, where: str = "everywhere",
        keep_norm: bool = False,
    ) -> Edit:  # fmt: skip
        """The edit that `apply` makes, for `intervene`, where several can act at once: intervene(lm, a.edit(lm), b.edit(lm)).
        Arguments and errors are those of `apply`."""
        strength = self.strength if strength is None else strength
        mode = self.mode if mode is None else mode
        _require("mode", mode, MODES)
        if strength is None:
            raise ValueError(
                f"The vector {self.name!r} has no strength of its own: give one, in units of the layer's residual norm."
            )
        strength = _number("strength", strength)
        if self.model != lm.name:
            raise ValueError(
                f"The vector {self.name!r} was built on {self.model or 'an unnamed model'}, and this is {lm.name}, in which the same "
                "direction means something else: build it anew on this one."
            )
        step = strength * self.scale
        if mode == "add" or not step:
            return _steer(add(self.site, self.direction, step), where, keep_norm)
        direction = self.direction if step > 0 else -self.direction
        level = abs(step) * self.direction.norm().item()
        return _steer(clamp(self.site, direction, level), where, keep_norm)

    def apply(
        self, lm: LanguageModel, strength: float | None = None, mode: str | None = None, *, where: str = "everywhere",
        keep_norm: bool = False,
    ) -> AbstractContextManager:  # fmt: skip
        """While the `with` block lasts, every run of the model is steered.

        Args:
            lm: the model that the vector was built on.
            strength: in units of `scale`; negative steers away, 0 changes nothing. By default the vector's own.
            mode: "add", h ← h + s · scale · v (Turner et al. 2023); or "clamp", h ← h + max(0, abs(s) · scale · ‖v‖ − h·u) u with
                u = sign(s) v / ‖v‖, which raises the direction to a level and leaves it where it is there already. ("Golden Gate
                Claude", Templeton et al. 2024, holds a feature at one value, from whichever side; to raise only is this package's
                variant.) By default the vector's own.
            where: "everywhere", the "prompt" only, or "new" tokens only; the first token of a prompt is always left out. The
                first new token is decided at the prompt's last, so "new" leaves it unsteered; and a plain run, which generates
                nothing, has no new tokens, so that "new" changes nothing there.
            keep_norm: bring every activation back to its old length, so that only its direction changes.

        Raises:
            ValueError: the model is another one, the strength is not a finite number, or an unknown mode or place.
        """
        return intervene(lm, self.edit(lm, strength, mode, where=where, keep_norm=keep_norm))

    @property
    def site(self) -> Site:
        return Site(self.component, self.layer)

    # -- keep -----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write it to a safetensors file, with all that is known about it."""
        about = {key: getattr(self, key) for key in _KEPT}
        save_file({"direction": self.direction.contiguous()}, path, metadata={"steering_vector": json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path) -> SteeringVector:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["steering_vector"])
                return cls(file.get_tensor("direction"), **{key: about[key] for key in _KEPT})
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a steering vector that was saved here: {error!r}.") from error

    def to_gguf(self, path: str | Path) -> None:
        """Write it as a control vector for llama.cpp (`--control-vector-scaled FILE STRENGTH`), scaled so that its strength is ours.
        llama.cpp adds it at every token, the first among them, and knows no clamping.

        Raises:
            ModuleNotFoundError: the package gguf is missing.
            ValueError: it isn't a vector of the residual stream after a block from 1 on, which is all that the format holds.
        """
        if self.component != "block_output" or self.layer < 1:
            raise ValueError(
                f"llama.cpp's control vectors act on block_output from layer 1 on, and this one is for {self.component} {self.layer}."
            )
        try:
            from gguf import GGUFWriter
        except ModuleNotFoundError:
            raise ModuleNotFoundError("Control vectors are written by the package gguf: pip install gguf") from None
        writer = GGUFWriter(path, "controlvector")
        writer.add_string("controlvector.model_hint", self.model)
        writer.add_uint32("controlvector.layer_count", 1)
        writer.add_tensor(f"direction.{self.layer}", (self.scale * self.direction).numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def __repr__(self) -> str:
        strength = "" if self.strength is None else f", strength {self.strength:.2g} ({self.mode})"
        return f"SteeringVector({self.name!r}: {self.component} {self.layer} of {self.model}, d {len(self.direction)}{strength})"


_KEPT = ("layer", "component", "name", "model", "scale", "strength", "mode", "provenance")


def contrast_hash(positive: Sequence[str], negative: Sequence[str]) -> str:
    """Sixteen hexadecimal digits that tell whether two vectors were built from the same texts."""
    return hashlib.sha256(json.dumps([list(positive), list(negative)]).encode()).hexdigest()[:16]


def _steer(edit: Edit, where: str, keep_norm: bool) -> Edit:
    """The edit at all tokens but a prompt's first, or of those at the prompt's or the new ones alone."""
    _require("where", where, WHERE)

    def prepare(shape: tuple[int, ...], spots: Spots) -> Callable[[Tensor], Tensor]:
        change = edit.prepare(shape, spots)
        chosen = spots.positions > 0
        if where != "everywhere":
            chosen &= spots.new if where == "new" else ~spots.new

        def steer(h: Tensor) -> Tensor:
            steered = change(h)
            if keep_norm:
                steered = steered * (h.norm(dim=-1, keepdim=True) / steered.norm(dim=-1, keepdim=True))
            return torch.where(chosen[:, None].to(h.device), steered, h)

        return steer

    return Edit(edit.name, edit.site, prepare)


def _unit(difference: Tensor) -> Tensor:
    if not difference.any():
        raise ValueError("The direction is zero: at this site the two sets of texts don't differ.")
    return difference / difference.norm()


def _as_asked(made: list[SteeringVector], layer) -> SteeringVector | list[SteeringVector]:
    """The list where several layers were asked for, its only vector where one was."""
    several = hasattr(layer, "__iter__") and getattr(layer, "ndim", 1)  # a tensor of one number has no axis
    return made if several else made[0]


def _number(what: str, got) -> float:
    if not isinstance(got, numbers.Real) or not math.isfinite(got):
        raise ValueError(f"{what} is a finite number, such as 0.3, and {got!r} was given.")
    return float(got)


def _require(what: str, got, allowed: Sequence[str]) -> None:
    if got not in allowed:
        raise ValueError(f"{what}={got!r} is unknown: choose {' or '.join(map(repr, allowed))}.")


def _shown(value) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__

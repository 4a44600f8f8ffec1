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

import json
import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..edits import add, clamp
from ..hooks import Edit, intervene
from ..models import LanguageModel, Spots
from ..sites import Site
from . import build

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
            got = f"a tensor {tuple(direction.shape)}" if isinstance(direction, Tensor) else type(direction).__name__
            raise ValueError(f"A direction is a tensor (d,) of finite numbers, and got {got}.")
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

    from_contrast = classmethod(build.from_contrast)
    from_context = classmethod(build.from_context)
    train = classmethod(build.train)

    def random(self, seed: int = 0) -> SteeringVector:
        """A random direction of the same length, at the same place: the control."""
        draw = torch.randn(len(self.direction), generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
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

    def save(self, path: str | Path) -> Path:
        """Write it to a safetensors file, with all that is known about it; the file's path comes back."""
        about = {key: getattr(self, key) for key in _KEPT}
        save_file({"direction": self.direction.contiguous()}, path, metadata={"steering_vector": json.dumps(about)})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> SteeringVector:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else; of another tool's vectors it is said how to make one of them.
        """
        path = Path(path)
        if path.is_dir():
            raise ValueError(f"{path} is a folder, and a file that SteeringVector.save wrote was expected.")
        with path.open("rb") as file:
            gguf = file.read(4) == b"GGUF"
        try:
            if gguf:
                raise ValueError(_others(*_in_gguf(path)))
            with safe_open(path, framework="pt") as file:
                kept = (file.metadata() or {}).get("steering_vector")
                if kept is None:
                    shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
                    raise ValueError(_others(shapes, "safetensors.torch.load_file(path)"))
                about = json.loads(kept)
                return cls(file.get_tensor("direction"), **{key: about[key] for key in _KEPT})
        except (SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
            why = error if type(error) is ValueError else repr(error)
            raise ValueError(f"{path} is not a steering vector that was saved here: {why}") from error

    def to_gguf(self, path: str | Path) -> None:
        """Write it as a control vector for llama.cpp (`--control-vector-scaled FILE STRENGTH`), scaled so that its strength is ours.
        llama.cpp adds it at every token, the first among them, and knows no clamping.

        Raises:
            ValueError: it isn't a vector of the residual stream after a block from 1 on, which is all that the format holds.
        """
        if self.component != "block_output" or self.layer < 1:
            raise ValueError(
                f"llama.cpp's control vectors act on block_output from layer 1 on, and this one is for {self.component} {self.layer}."
            )
        from gguf import GGUFWriter  # slow to import, and asked for rarely

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


def _others(shapes: Mapping[str, Sequence[int]], read: str) -> str:
    """What another tool's file holds, tensors of some shapes by name, and how to make a vector of one; `read` reads them."""
    named = ", ".join(f"{name!r} {tuple(map(int, shape))}" for name, shape in [*shapes.items()][:5]) + ", …" * (
        len(shapes) > 5
    )
    first = next(iter(shapes), "name")
    layer = (re.findall(r"\d+", first) or ["0"])[-1]
    return (
        f"it holds {named or 'nothing'}. If these are directions (d,) in the residual stream, make a vector of one, with its layer, counted "
        f"from 0: SteeringVector(torch.as_tensor({read}[{first!r}]), layer={layer}, model=lm.name)."
    )


def _in_gguf(path: Path) -> tuple[dict, str]:
    from gguf import GGUFReader

    read = "{tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}"
    return {tensor.name: tensor.shape for tensor in GGUFReader(path).tensors}, read


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


def _number(what: str, got) -> float:
    if not isinstance(got, numbers.Real) or not math.isfinite(got):
        raise ValueError(f"{what} is a finite number, such as 0.3, and {got!r} was given.")
    return float(got)


def _require(what: str, got, allowed: Sequence[str]) -> None:
    if got not in allowed:
        raise ValueError(f"{what}={got!r} is unknown: choose {' or '.join(map(repr, allowed))}.")

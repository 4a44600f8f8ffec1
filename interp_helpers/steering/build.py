"""Where steering vectors come from: the direction between two sets of texts, what texts leave behind in what is read after them, and a
trained one. The three functions are `SteeringVector`'s: it is the class that they take first and make vectors of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from ..edits import add
from ..engine import frozen, require_gradients
from ..hooks import intervene, record
from ..models import LanguageModel, as_ints, as_list, as_texts
from ..sites import Site

if TYPE_CHECKING:
    from .vector import SteeringVector

ROWS = 32  # texts per forward
CONTEXTS = 12  # of each kind, before each stub


def from_contrast(
    cls: type[SteeringVector],
    lm: LanguageModel,
    positive: Sequence[str],
    negative: Sequence[str],
    layer: int | Sequence[int],
    pooling: str | tuple[str, int] = "mean",
    normalize: bool = True,
    *,
    name: str = "",
) -> SteeringVector | list[SteeringVector]:
    """The direction between two sets of texts: the difference of their means (Rimsky et al. 2024, section 3).

    Args:
        lm: the model.
        positive, negative: texts that have what the vector is for, and texts that lack it; best alike in all else.
        layer: one, or several, which gives a list of vectors from one pass.
        pooling: what stands for a text: the "mean" over its tokens, its "last" token, or ("window", k), the mean of its
            last k; the first token is left out.
        normalize: a direction of unit length, whose strength is in units of the residual norm; otherwise the difference
            as it is, and strength counts multiples of it (as in Rimsky et al. 2024).
        name: what to call it.

    Raises:
        ValueError: no texts, a text of one token, an unknown pooling, or no such layer.
    """
    positive, negative = as_texts(positive), as_texts(negative)
    sites = [Site("block_output", one) for one in as_ints(layer)]
    having, lacking = (pooled(lm, texts, sites, pooling) for texts in (positive, negative))
    differences = [a.mean(0) - b.mean(0) for a, b in zip(having, lacking, strict=True)]
    about = {"method": "mean", "pooling": list(pooling) if isinstance(pooling, tuple) else pooling}
    return _vectors(cls, lm, differences, sites, positive, negative, normalize, name, about, layer)


def from_context(
    cls: type[SteeringVector],
    lm: LanguageModel,
    positive: Sequence[str],
    negative: Sequence[str],
    stubs: Sequence[str],
    layer: int | Sequence[int],
    *,
    cues: Sequence[str] = (),
    name: str = "",
) -> SteeringVector | list[SteeringVector]:
    """The direction that texts leave behind in what is read *after* them: the same short stub follows two texts of one set,
    or two of the other, and only the stub's tokens are compared, so that their own words cancel out.

    Args:
        lm, layer, name: as for `from_contrast`.
        positive, negative: texts, two of which, drawn at random, make a context.
        stubs: beginnings of sentences that say nothing of the matter ("In the morning I"): the mean over their tokens.
        cues: beginnings after which it is the natural next word ("I live in", for a city): their last token, where
            the model is about to say it. The two differences, brought to unit length, are added.

    Raises:
        ValueError: fewer than two texts in a set, no stub, or a single text where a list was expected.
    """
    positive, negative, stubs, cues = (as_texts(texts, least=0) for texts in (positive, negative, stubs, cues))
    if min(len(positive), len(negative)) < 2 or not stubs:
        raise ValueError(
            f"A context takes two texts of a set, and a stub follows: got {len(positive)} and {len(negative)} texts and "
            f"{len(stubs)} stubs."
        )
    sites = [Site("block_output", one) for one in as_ints(layer)]
    generator = torch.Generator().manual_seed(0)

    def after(texts: Sequence[str], beginnings: Sequence[str], last_only: bool) -> list[Tensor]:
        prompts, lengths = [], []
        for stub in beginnings:
            for _ in range(CONTEXTS):
                first, second = torch.randperm(len(texts), generator=generator)[:2].tolist()
                context = f"{texts[first]} {texts[second]}"
                prompts.append(f"{context} {stub}")
                lengths.append(1 if last_only else len(lm.tokens(prompts[-1])[0]) - len(lm.tokens(context)[0]))
        return [acts.mean(0) for acts in pooled(lm, prompts, sites, lengths)]

    def differences(beginnings: Sequence[str], last_only: bool) -> list[Tensor]:
        having, lacking = (after(texts, beginnings, last_only) for texts in (positive, negative))
        return [a - b for a, b in zip(having, lacking, strict=True)]

    directions = differences(stubs, False)
    if cues:
        at_cues = differences(cues, True)
        directions = [_unit(one) + _unit(other) for one, other in zip(directions, at_cues, strict=True)]
    about = {"method": "context", "stubs": stubs, "cues": cues, "contexts": CONTEXTS, "seed": 0}
    return _vectors(cls, lm, directions, sites, positive, negative, True, name, about, layer)


def train(
    cls: type[SteeringVector],
    lm: LanguageModel,
    texts: Sequence[str | tuple[str, str]],
    layer: int,
    *,
    steps: int = 60,
    batch_size: int = 12,
    lr: float = 0.05,
    strength: float = 0.5,
    name: str = "",
    seed: int = 0,
) -> SteeringVector:
    """The vector under which the model finds given texts likeliest, by gradient descent (Subramani et al. 2022; Cao et
    al. 2024), of a norm that is bounded.

    Args:
        lm, name: as for `from_contrast`.
        texts: what the steered model should write; a (prompt, continuation) pair counts the continuation alone.
        layer: where it is added.
        steps, batch_size, lr: of Adam; the vector is in units of the residual norm.
        strength: the largest norm, in the same units; the norm reached becomes the vector's own strength.
        seed: of the batches.

    Raises:
        ValueError: no texts or steps, a single text, a text with nothing to predict, a strength that is not positive, or no such
            layer; or inside `torch.inference_mode`.
    """
    texts = [text if isinstance(text, str) else _pair(text) for text in as_list(texts, "texts")]
    if not texts or strength <= 0 or steps < 1:
        raise ValueError(
            f"train needs texts, steps and a positive strength, and got {len(texts)} texts, {steps} steps and {strength}."
        )
    require_gradients()
    plain = ["".join(text) for text in texts]
    rows = [lm.tokens(text)[0] for text in plain]
    starts = [1 if isinstance(text, str) or not text[0] else len(lm.tokens(text[0])[0]) for text in texts]
    for text, row, start in zip(texts, rows, starts, strict=True):
        if len(row) <= start:
            raise ValueError(
                f"There is no token to learn from in {text!r}: give a text of two tokens, or a continuation, at least."
            )
    [scale] = residual_norms(lm, plain, [Site("block_output", layer)])
    steered = Site("block_output", layer, slice(1, None))  # all tokens but the first
    generator = torch.Generator().manual_seed(seed)
    vector = torch.zeros(lm.d_model, device=lm.device, requires_grad=True)
    optimizer = torch.optim.Adam([vector], lr=lr)
    losses = []
    with frozen(lm.model), torch.enable_grad():
        for _ in tqdm(range(steps), desc="training a steering vector", leave=False):
            batch = torch.randperm(len(rows), generator=generator)[:batch_size].tolist()
            tokens = lm.tokens([rows[i] for i in batch])
            with intervene(lm, add(steered, vector, scale)):
                logits = lm(tokens, grad=True)
            columns, begin = torch.arange(tokens.shape[1]), torch.tensor([starts[i] for i in batch])
            own = tokens.attention_mask.bool() & (columns >= begin[:, None]).to(lm.device)
            loss = cross_entropy(logits[:, :-1][own[:, 1:]].float(), tokens[:, 1:][own[:, 1:]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                vector *= (strength / vector.norm().clamp(min=1e-12)).clamp(max=1)
            losses.append(loss.item())
    about = {"method": "trained", "steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed}
    about |= {"loss": [losses[0], losses[-1]], "texts": len(texts), "hash": contrast_hash(plain, [])}
    v = vector.detach()
    return cls(_unit(v), layer, name=name, model=lm.name, scale=scale, strength=v.norm().item(), provenance=about)


def pooled(lm: LanguageModel, texts: Sequence[str], sites: Sequence[Site], pooling) -> list[Tensor]:
    """What stands for each text at each site: a tensor (text, d) a site.

    Args:
        lm, texts, sites: the model, what it reads, where it is read.
        pooling: "mean", over all tokens but the first; "last"; ("window", k), over the last k; or how many of the last
            tokens, text by text.

    Raises:
        ValueError: no texts, a text of a single token, an unknown pooling, or no such layer.
    """
    texts = as_texts(texts)
    lengths = [len(lm.tokens(text)[0]) for text in texts]
    if min(lengths) < 2:
        raise ValueError(
            f"{texts[lengths.index(min(lengths))]!r} is a single token, and the first token stands for nothing (it is a sink): "
            "give texts of two tokens or more."
        )
    counts = [min(count, length - 1) for count, length in zip(_counts(pooling, lengths), lengths, strict=True)]
    found = [torch.empty(0)] * len(texts)
    order = sorted(range(len(texts)), key=lengths.__getitem__)  # texts of like length share a forward
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        acts = record(lm, [texts[row] for row in rows], *sites)
        for i, row in enumerate(rows):
            own = slice(lengths[row] - counts[row], lengths[row])
            found[row] = torch.stack([acts[site.component, site.layer][i, own].float().mean(0).cpu() for site in sites])
    return list(torch.stack(found, 1))


def residual_norms(lm: LanguageModel, texts: Sequence[str], sites: Sequence[Site]) -> list[float]:
    """The mean norm of each site's activations over all tokens of some texts but each one's first; all from one pass."""
    totals, count = torch.zeros(len(sites), dtype=torch.float64), 0
    for start in range(0, len(texts), ROWS):
        acts = record(lm, list(texts[start : start + ROWS]), *sites)
        spots = acts.layout.spots(None)
        own = (spots.positions > 0).cpu()
        totals += torch.stack([acts.at(site, spots).float().norm(dim=-1).cpu()[own].double().sum() for site in sites])
        count += int(own.sum())
    return (totals / count).tolist()


def _counts(pooling, lengths: list[int]) -> list[int]:
    match pooling:
        case "mean":
            return lengths
        case "last":
            return [1] * len(lengths)
        case ("window", int(k)) if k > 0:
            return [k] * len(lengths)
        case [*counts] if len(counts) == len(lengths) and all(isinstance(count, int) for count in counts):
            return counts
    raise ValueError(f"pooling={pooling!r} is unknown: choose 'mean', 'last', or ('window', k) with k of 1 or more.")


def _pair(given) -> tuple[str, str]:
    pair = () if isinstance(given, Mapping) or not hasattr(given, "__iter__") else tuple(given)
    if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        raise ValueError(f"A text is a string, or a (prompt, continuation) pair of strings, and {given!r} was given.")
    return pair


def contrast_hash(positive: Sequence[str], negative: Sequence[str]) -> str:
    """Sixteen hexadecimal digits that tell whether two vectors were built from the same texts."""
    return hashlib.sha256(json.dumps([list(positive), list(negative)]).encode()).hexdigest()[:16]


def _vectors(cls, lm, directions, sites, positive, negative, normalize, name, about, layer):
    """The vectors of directions, a site each, in the form in which `layer` was given."""
    scales = residual_norms(lm, negative, sites) if normalize else [1.0] * len(sites)
    about = about | {"texts": [len(positive), len(negative)], "hash": contrast_hash(positive, negative)}
    made = [
        cls(_unit(v) if normalize else v, site.layer, site.component, name, lm.name, scale, provenance=about)
        for v, site, scale in zip(directions, sites, scales, strict=True)
    ]
    several = hasattr(layer, "__iter__") and getattr(layer, "ndim", 1)  # a tensor of one number has no axis
    return made if several else made[0]


def _unit(difference: Tensor) -> Tensor:
    if not difference.any():
        raise ValueError("The direction is zero: at this site the two sets of texts don't differ.")
    return difference / difference.norm()

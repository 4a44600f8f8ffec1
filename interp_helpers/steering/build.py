"""Where steering vectors come from: what stands for a text, the direction between two sets of texts, and a trained one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from tqdm.auto import tqdm

from ..engine import frozen, require_gradients
from ..hooks import record
from ..models import LanguageModel
from ..sites import Site

ROWS = 32  # texts per forward


def pooled(lm: LanguageModel, texts: Sequence[str], sites: Sequence[Site], pooling) -> list[Tensor]:
    """What stands for each text at each site: a tensor (text, d) a site.

    Args:
        lm, texts, sites: the model, what it reads, where it is read.
        pooling: "mean", over all tokens but the first; "last"; ("window", k), over the last k; or how many of the last
            tokens, text by text.

    Raises:
        ValueError: no texts, a text of a single token, an unknown pooling, or as `require_whole`.
    """
    require_whole(lm, sites)
    require_texts(texts)
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


def require_texts(texts: Sequence[str]) -> None:
    """
    Raises:
        ValueError: a single text, or none.
    """
    if isinstance(texts, str) or not len(texts):
        raise ValueError(f"A list of texts was expected, one at least, and {texts!r} was given.")


def require_whole(lm: LanguageModel, sites: Sequence[Site]) -> None:
    """Refuse sites where a steering vector can't act.

    Raises:
        ValueError: a component that is split per head, or attention_weight; or the model has no such layer.
    """
    for site in sites:
        if site.component == "attention_weight":
            raise ValueError(
                "attention_weight can be recorded and not edited, so no vector steers there: choose a whole component, such "
                "as block_output."
            )
        if len(site.place(lm).shape) > 1:
            raise ValueError(
                f"{site.component!r} is split per head, and a steering vector is one direction: choose a whole component, such as "
                "block_output."
            )


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


def contrast_direction(positive: Tensor, negative: Tensor, method: str) -> Tensor:
    """The direction (d,) from one set of activations (n, d) to another (m, d), as `SteeringVector.from_contrast` has it."""
    difference = positive.mean(0) - negative.mean(0)
    if method == "mean":
        return difference
    if method == "pca":
        if len(positive) != len(negative):
            raise ValueError(
                f'method="pca" takes pairs of texts, in order, and got {len(positive)} positive and {len(negative)} negative '
                'ones: give as many of each, or take method="mean".'
            )
        first = torch.linalg.svd(positive - negative, full_matrices=False).Vh[0]
        return first * torch.sign(first @ difference)  # a component has no sign of its own
    if method == "probe":
        return _probe(positive, negative)
    raise ValueError(f"method={method!r} is unknown: choose 'mean', 'pca' or 'probe'.")


def trained(
    lm: LanguageModel,
    texts: Sequence[str | tuple[str, str]],
    adding: Callable[[Tensor], AbstractContextManager],
    shape: tuple[int, int],
    steps: int,
    batch_size: int,
    lr: float,
    longest: float,
    seed: int,
) -> tuple[Tensor, list[float]]:
    """The vectors (count, d) of this shape, each of norm `longest` at most, under which the texts are likeliest while
    `adding(vectors)` lasts; and the loss, nats a token, at each step."""
    require_texts(texts)
    require_gradients()
    rows, prompts = [], []
    for text in texts:
        prompt, rest = ("", text) if isinstance(text, str) else text
        rows.append(lm.tokens(prompt + rest)[0])
        prompts.append(len(lm.tokens(prompt)[0]) if prompt else 1)
        if len(rows[-1]) <= prompts[-1]:
            raise ValueError(
                f"There is no token to learn from in {text!r}: give a text of two tokens, or a continuation, at least."
            )
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.zeros(shape, device=lm.device, requires_grad=True)
    optimizer = torch.optim.Adam([vectors], lr=lr)
    losses = []
    with frozen(lm.model), torch.enable_grad():
        for _ in tqdm(range(steps), desc="training a steering vector", leave=False):
            batch = torch.randperm(len(rows), generator=generator)[:batch_size].tolist()
            tokens = lm.tokens([rows[i] for i in batch])
            with adding(vectors):
                logits = lm(tokens, grad=True)
            columns, starts = torch.arange(tokens.shape[1]), torch.tensor([prompts[i] for i in batch])
            own = tokens.attention_mask.bool() & (columns >= starts[:, None]).to(lm.device)
            loss = cross_entropy(logits[:, :-1][own[:, 1:]].float(), tokens[:, 1:][own[:, 1:]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                vectors *= (longest / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
            losses.append(loss.item())
    return vectors.detach(), losses


def _probe(positive: Tensor, negative: Tensor) -> Tensor:
    """The weights (d,) of a logistic regression, in the activations' own units."""
    x = torch.cat([positive, negative])
    y = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))])
    centre, spread = x.mean(0), x.std(0).clamp(min=1e-6)
    x = (x - centre) / spread
    weight, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = binary_cross_entropy_with_logits(x @ weight + bias, y) + 0.01 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach() / spread


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

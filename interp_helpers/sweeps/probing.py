"""Linear probes: can a label be read off activations, and how well on items that the probe has never met?

A probe is a logistic regression: a direction and a threshold along it (Alain & Bengio 2016). It can learn single words by
heart, so accuracy means something only with the items held out and beside a control (Hewitt & Liang 2019), and beside
what one gets by always giving the commoner label. That a label can be read doesn't show that the model uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..edits import add
from ..sites import Site


@dataclass(frozen=True)
class Probe:
    """A linear probe, or a stack of them, one for each layer.

    Attributes:
        direction: (…, d), what it looks along, in the activations' own units; it points towards label 1.
        bias: (…,).
    """

    direction: Tensor
    bias: Tensor

    def predict(self, x: Tensor) -> Tensor:
        """For x (…, row, d) the labels (…, row), as booleans."""
        return (_numbers(x) @ _numbers(self.direction)[..., None]).squeeze(-1) + _numbers(self.bias)[..., None] > 0

    def score(self, x: Tensor, labels) -> Tensor:
        """The share of rows whose label is predicted rightly (…,)."""
        return (self.predict(x) == _labels(labels)).double().mean(-1)

    def test(self, x: Tensor, labels) -> ProbeAccuracy:
        """`score` on these rows, with its standard error over them and their majority."""
        share, ones = self.score(x, labels), float(_labels(labels).double().mean())
        return ProbeAccuracy(share, (share * (1 - share) / x.shape[-2]) ** 0.5, max(ones, 1 - ones))


@dataclass(frozen=True)
class ProbeAccuracy:
    """How often a probe is right about rows that it wasn't trained on.

    Attributes:
        mean: (…,), one for each layer.
        error: (…,), the standard error of the mean: over the parts held out, the draws where labels were drawn, or the rows
            tested. The parts' probes share training rows, so the real uncertainty is larger.
        majority: how often one is right who always gives the commoner label, whatever the row.
    """

    mean: Tensor
    error: Tensor
    majority: float

    def __str__(self) -> str:
        if self.mean.ndim:
            return repr(self)
        return f"{self.mean:.0%} ± {self.error:.0%} (always the commoner label: {self.majority:.0%})"


def probe(streams: Tensor, labels, *, hold_out: Sequence | None = None, parts: int = 5, seed: int = 0) -> ProbeAccuracy:
    """Train probes on a part of the rows and test them on the rest, each part held out in turn.

    >>> streams = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0))
    >>> labels = streams[1, :, 3] > 0  # can be read in the second layer, and not in the first
    >>> found = probe(streams, labels, parts=4)
    >>> [round(mean, 2) for mean in found.mean.tolist()]
    [0.47, 0.9]

    Args:
        streams: activations (…, row, d), such as (layer, statement, d).
        labels: (row,), of two kinds; or (draw, row), several drawings of labels.
        hold_out: for each row the item that it is about. Rows about one item are held out together, so that the probe has
            never met it. Without: rows are held out at random.
        parts: how many, where rows are held out at random.
        seed: of that.

    Raises:
        ValueError: not one label for each row; or a part without which only one label is left.
    """
    x, wanted = _numbers(streams), _labels(labels)
    n = x.shape[-2]
    draws = wanted[None] if wanted.ndim == 1 else wanted
    items = list(hold_out) if hold_out is not None else _at_random(n, parts, seed)
    if draws.shape[-1] != n or len(items) != n:
        raise ValueError(f"{n} rows need a label and an item each; {draws.shape[-1]} and {len(items)} were given.")
    scores = []  # (draw, part, …)
    for y in draws:
        scores.append([])
        for item in dict.fromkeys(items):
            test = torch.tensor([other == item for other in items])
            scores[-1].append(fit_probe(x[..., ~test, :], y[~test]).score(x[..., test, :], y[test]))
    scores = torch.stack([torch.stack(of_parts) for of_parts in scores])
    over = scores.mean(1) if len(scores) > 1 else scores[0]
    ones = draws.double().mean(1)
    return ProbeAccuracy(over.mean(0), over.std(0) / len(over) ** 0.5, float(torch.maximum(ones, 1 - ones).mean()))


def fit_probe(x: Tensor, labels, *, c: float = 0.01) -> Probe:
    """Logistic regression on standardised activations, with a penalty on its weights; all layers at once.

    >>> x = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0))
    >>> fitted = fit_probe(x, x[1, :, 3] > 0)
    >>> fitted.direction.shape, int(fitted.direction[1].argmax())
    (torch.Size([2, 8]), 3)

    The weights are scikit-learn's, of `LogisticRegression(C=c, solver="liblinear")` behind a `StandardScaler`. There are fewer
    rows than units, so Newton's method runs on a number for each row, of which the weights are a mixture.

    Args:
        x: (…, row, d).
        labels: (row,), of two kinds.
        c: how little the weights are held back.

    Raises:
        ValueError: labels of one kind only.
    """
    x, y = _numbers(x), _labels(labels).double()
    if not 0 < y.mean() < 1:
        raise ValueError("A probe needs rows of both labels to learn from.")
    centre, scale = x.mean(-2, keepdim=True), x.std(-2, keepdim=True, correction=0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    z = (x - centre) / scale
    kernel = z @ z.mT + 1
    alpha, one = torch.zeros(kernel.shape[:-1], dtype=z.dtype), torch.eye(len(y), dtype=z.dtype)
    for _ in range(100):
        p = torch.sigmoid((kernel @ alpha[..., None]).squeeze(-1))
        root = (c * p * (1 - p)).clamp(min=1e-12).sqrt()
        wanted = root * (kernel @ alpha[..., None]).squeeze(-1) + c * (y - p) / root
        system = one + root[..., None] * kernel * root[..., None, :]
        new = root * torch.linalg.solve(system, wanted[..., None]).squeeze(-1)
        done = (new - alpha).abs().max() < 1e-9
        alpha = new
        if done:
            break
    direction = (z.mT @ alpha[..., None]).squeeze(-1) / scale.squeeze(-2)
    return Probe(direction.float(), (alpha.sum(-1) - (direction * centre.squeeze(-2)).sum(-1)).float())


def mean_difference(x: Tensor, labels) -> Tensor:
    """The mean of the rows with label 1 minus that of the others: of x (…, row, d) it is (…, d).

    >>> mean_difference(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), [True, True, False])
    tensor([ 2., -5.])
    """
    x, y = torch.as_tensor(x), _labels(labels)
    return x[..., y, :].mean(-2) - x[..., ~y, :].mean(-2)


def probe_bars(found: Mapping[str, ProbeAccuracy], *, title: str, where: str):
    """Accuracies, one number each, beside what one gets by always giving the commoner label. Names that are the same up to a
    comma are of the same label.

    >>> x = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    >>> probe_bars({"first unit": probe(x, x[:, 0] > 0.5)}, title="It is read", where="here")
    It is read accuracy, here (mean ± standard error): first unit 0.83, first unit: always the commoner label 0.83.
    """
    from ..plotting import bars

    values = {}
    for name, one in found.items():
        values[name] = one.mean
        values.setdefault(f"{name.split(',')[0]}: always the commoner label", one.majority)
    errors = {name: one.error for name, one in found.items()}
    return bars(values, errors=errors, title=title, ylabel=f"accuracy, {where} (mean ± standard error)")


def probe_curves(layers: Sequence[int], found: Mapping[str, ProbeAccuracy], *, title: str):
    """Accuracies by layer, where −1 is the embeddings. A dotted line for each label says what one gets by always giving the commoner one.

    >>> x = torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(0))
    >>> probe_curves([0, 1], {"a unit": probe(x, x[1, :, 0] > 0.5)}, title="Later")
    Later accuracy on what was held out...
    """
    from ..plotting import curves

    lines = {}
    for name, one in found.items():
        lines.setdefault(round(one.majority, 3), []).append(name)
    return curves(
        layers,
        {name: one.mean for name, one in found.items()},
        errors={name: one.error for name, one in found.items()},
        title=title,
        xlabel="layer whose output is probed (counted from 0" + (", −1 is the embeddings)" if -1 in layers else ")"),
        ylabel="accuracy on what was held out\n(mean ± standard error)",
        references={f"always the commoner label: {', '.join(names)}": value for value, names in lines.items()},
    )


@dataclass(frozen=True)
class Erasure:
    """What is left of an effect where a direction is erased, layer by layer, beside how well a probe reads there (after
    Elazar et al. 2021, *amnesic probing*).

    >>> found = Erasure([3, 9, 21], [0.6, 0.95, 0.95], [(1.0, 0.1), (0.1, 0.2), (1.0, 0.1)])
    >>> found.needed, found.idle
    (1, 2)
    >>> found.at(1)
    'layer 9: read with 95%, 10% of the gap left'

    Attributes:
        layers: where.
        readable: a probe's accuracy at each of them, before erasing.
        left: (share, standard error) at each, from `share_left`.
        clear: whether there is an effect at all.
    """

    layers: Sequence[int]
    readable: Sequence[float]
    left: Sequence[tuple[float, float]]
    clear: bool = True

    @property
    def sure(self) -> list[int]:
        """Indices of the layers that read with more than 90 %; none where there is no effect."""
        return [i for i, accuracy in enumerate(self.readable) if accuracy > 0.9 and self.clear]

    @property
    def needed(self) -> int | None:
        """Of these the one where erasing leaves least."""
        return min(self.sure, key=lambda i: self.left[i][0], default=None)

    @property
    def idle(self) -> int | None:
        """Of these the first after `needed` where erasing leaves more than 85 %."""
        return next((i for i in self.sure if i > self.needed and self.left[i][0] > 0.85), None)

    def at(self, i: int) -> str:
        """What was found at one of the layers."""
        return f"layer {self.layers[i]}: read with {self.readable[i]:.0%}, {self.left[i][0]:.0%} of the gap left"

    def figure(self, others: Mapping[str, Sequence[tuple[float, float]]], *, name: str):
        """The accuracy, and the shares left without this direction and without others."""
        from ..plotting import curves

        shares = {name: self.left, **others}
        found = "\n".join(self.at(i) for i in (self.needed, self.idle) if i is not None)
        return curves(
            self.layers,
            {
                "accuracy of the probe": self.readable,
                **{f"gap without {n}": [s for s, _ in left] for n, left in shares.items()},
            },
            errors={f"gap without {n}": [error for _, error in left] for n, left in shares.items()},
            title=f"Without {name}\n{found}" if found else "No layer here both reads it and has a clear gap to erase",
            xlabel="layer read or edited (counted from 0)",
            ylabel="accuracy, or share of the gap left\n(band: standard error)",
        )


def at_last_token(acts, component: str = "block_output", layers: Sequence[int] | None = None) -> Tensor:
    """Recorded activations (layer, prompt, …) at each prompt's own last token, on the CPU: what a probe is trained on.

    Args:
        acts: what `record` saw.
        component: of those that were recorded.
        layers: which of them (default: all that were recorded).
    """
    layers = range(len(acts.stack(component))) if layers is None else layers
    return torch.stack([acts[Site(component, layer, -1)][:, 0] for layer in layers]).cpu()


def share_left(left: Tensor, whole: Tensor) -> tuple[float, float]:
    """What share of a mean effect is left, and the share's standard error: the whole's own uncertainty is in it.

    >>> share_left(torch.tensor([0.5, 1.5]), torch.tensor([1.0, 3.0]))
    (0.5, 0.0)

    Args:
        left, whole: the effect (item,) with an edit and without it, of the same items.
    """
    left, whole = _numbers(left), _numbers(whole)
    share = left.mean() / whole.mean()
    return float(share), float((left - share * whole).std() / len(whole) ** 0.5 / whole.mean().abs())


def push_heads(heads: Sequence[tuple[int, int]], directions: Tensor, by: Tensor, positions=None) -> list:
    """The edits of Inference-Time Intervention (Li et al. 2023): to what each of these heads hands on, add its direction.

    >>> edits = push_heads([(3, 0), (5, 2)], torch.ones(30, 9, 64), torch.ones(30, 9), positions=-1)
    >>> with intervene(lm, *edits):
    ...     pushed = lm.next_token_logits(base)

    Args:
        heads: (layer, head) of each.
        directions: (layer, head, d_head); their lengths don't matter.
        by: (layer, head), how far each is pushed.
        positions: where, as in `Site`.
    """
    units = directions / directions.norm(dim=-1, keepdim=True)
    return [
        add(
            Site("attention_value_output", layer, positions, heads=[head]),
            units[layer, head][None],
            float(by[layer, head]),
        )
        for layer, head in heads
    ]


def _at_random(n: int, parts: int, seed: int) -> list[int]:
    """For each of n rows the part that it is in."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return (order.argsort() % parts).tolist()


def _numbers(x) -> Tensor:
    return torch.as_tensor(x).detach().cpu().double()


def _labels(labels) -> Tensor:
    if not isinstance(labels, Tensor):
        labels = torch.as_tensor(np.asarray(labels if hasattr(labels, "__len__") else list(labels)))
    return labels.cpu().bool()

"""Arithmetic of notebook 02: which facts, one trace a fact at the tokens of its roles, and the edit of rank one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...edits import add, replace
from ...hooks import intervene, record
from ...metrics import probability
from ...prompts import Fact, Pair, facts, known, pairs
from ...sites import Site
from ...sweeps import Sweep, average_traces, causal_trace, embedding_std, patch_sweep

FAMILIES = ("landmark_city", "capital", "country_of_city", "language")
CHOICES = ("the MLPs", "the attention layers", "both about equally", "neither")


def opening_fact(lm) -> Fact:
    """The fact that the notebook opens with: the Eiffel Tower's, or another landmark's where this model doesn't know that one."""
    usable = [f for f in facts("landmark_city") if 0 < lm.find(f.prompt, f.subject)[0]]
    usable.sort(key=lambda f: f.subject != "Eiffel Tower")
    return (known(lm, usable) or usable)[0]


def bank_of(lm, each: int = 4) -> list[Fact]:
    """`each` facts of every family whose subject isn't the prompt's first token: those that this model knows, then others."""
    chosen = []
    for family in FAMILIES:
        usable = [f for f in facts(family)[: 2 * each] if lm.find(f.prompt, f.subject)[0] > 0]
        right = known(lm, usable)
        chosen += [*right, *(f for f in usable if f not in right)][:each]
    return chosen


def spread_layers(lm, at_most: int) -> list[int]:
    """Layers from the first to the last, evenly: all of a shallow model."""
    n = min(at_most, lm.n_layers)
    return sorted({round(i * (lm.n_layers - 1) / max(1, n - 1)) for i in range(n)})


def window_at(centre: int, width: int, n_layers: int) -> range:
    """The layers that a window restores."""
    first = centre - width // 2
    return range(max(0, first), min(n_layers, first + width))


def picture_of_window(centre: int, width: int, n_layers: int) -> str:
    """A line of dots, a layer each, in which a window's layers stand out."""
    inside = window_at(centre, width, n_layers)
    drawn = "".join("◆" if L == centre else "■" if L in inside else "·" for L in range(n_layers))
    return f"The cell at layer {centre} restores layers {inside[0]} to {inside[-1]} together:  0 {drawn} {n_layers - 1}"


def traces_of(lm, bank: Sequence[Fact], *, at: str = "every role", **options) -> list[Sweep]:
    """One trace a fact, each with a single draw of noise, its own: at one token of each role, or `at` the "last subject token" alone."""
    traces = []
    for seed, fact in enumerate(bank):
        span, n = lm.find(fact.prompt, fact.subject), len(lm.str_tokens(fact.prompt))
        places = {span[0], span[len(span) // 2], span[-1], span[-1] + 1, n - 1} if at == "every role" else {span[-1]}
        how = {"positions": sorted(places), "samples": 1, "seed": seed, **options}
        traces.append(causal_trace(lm, fact.prompt, fact.subject, fact.answer, **how))
    return traces


def at_role(traces: Sequence[Sweep], role: str) -> Tensor:
    """The indirect effect of every fact at the token of a role, (fact, layer)."""
    found = []
    for trace in traces:
        one = average_traces([trace])
        found.append(one.values[:, one.labels["role"].index(role)])
    return torch.stack(found)


def best_in_the_lower_half(trace: Sweep, n_layers: int) -> tuple[int, int]:
    """The layer and the position of the strongest cell of a map (layer, every position) in the model's lower half."""
    layers = [layer for layer in trace.labels["layer"] if layer < n_layers / 2]
    values = trace.values[: len(layers)]
    row, column = divmod(int(values.argmax()), values.shape[1])
    return layers[row], column


def stronger(mlps: Sweep, attention: Sweep, places: Sequence[int]) -> tuple[str, str]:
    """Which of two maps is higher at these positions, as one of CHOICES, and both heights.

    They are equal within a quarter of the higher one, and below .01 there is neither.
    """
    m, a = (float(trace.values[:, list(places)].max()) for trace in (mlps, attention))
    if max(m, a) < 0.01:
        choice = CHOICES[3]
    else:
        choice = CHOICES[2] if abs(m - a) < 0.25 * max(m, a) else CHOICES[m < a]
    return choice, f"MLPs {m:.2f}, attention {a:.2f}"


def fall_of(traces: Sequence[Sweep], bank: Sequence[Fact]) -> str:
    """How far the answers' probabilities fell under noise: the mean, and the fact that lost least; a warning where there is little to restore."""
    clean, corrupted = torch.stack([t.clean for t in traces]), torch.stack([t.corrupted for t in traces])
    i = int((clean - corrupted).argmin())
    told = f"p(answer) goes from {clean.mean():.2f} to {corrupted.mean():.2f} on average. Least is lost for {bank[i].subject}: "
    told += f"{clean[i]:.2f} to {corrupted[i]:.2f}."
    return told if (clean - corrupted).mean() > 0.05 else f"{told} That is little: read what follows as chance."


def with_error(effects: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over facts (fact, …), and its standard error."""
    return effects.mean(0), effects.std(0) / len(effects) ** 0.5


def flat_top(layers: Sequence[int], values: Tensor, errors: Tensor) -> list[int]:
    """The layers whose value lies within one standard error of the highest: the peak may be at any of them."""
    best = int(values.argmax())
    return [layer for layer, value in zip(layers, values, strict=True) if value >= values[best] - errors[best]]


def peak_of(layers: Sequence[int], values: Tensor, errors: Tensor) -> tuple[int, str]:
    """The layer of the highest value, and in words how flat the top is."""
    peak, height = layers[int(values.argmax())], float(values.max())
    near = [str(layer) for layer in flat_top(layers, values, errors) if layer != peak]
    told = f"Highest at layer {peak}, with {height:.2f}. "
    if near:
        return (
            peak,
            f"{told}The top is flat: within one standard error of it also lie {', '.join(near)}. The tallest cell isn't *the* place.",
        )
    return peak, f"{told}No other layer that was tried lies within one standard error of it."


def where_highest(by_fact: Mapping[str, Tensor], layers: Sequence[int]) -> tuple[dict[str, Tensor], str]:
    """Of each (fact, layer) the column whose mean is highest, under a name that says the layer; and what to say of the widest one."""
    dots = {}
    for name, effects in by_fact.items():
        i = int(effects.mean(0).argmax())
        dots[f"{name}, layer {layers[i]}"] = effects[:, i]
    widest = max(dots, key=lambda name: float(dots[name].max() - dots[name].min()))
    low, high = float(dots[widest].min()), float(dots[widest].max())
    return dots, f"Each fact by itself: {low:.2f} to {high:.2f} ({widest})"


def title_of_width(alone: Tensor, centres: Sequence[int], windows: Tensor) -> str:
    """How many windows, and how many single layers, bring back at least half of what the best window does."""
    half = 0.5 * float(windows.max())
    many, few = int((windows >= half).sum()), int((alone >= half).sum())
    return (
        f"Half of the best window's effect or more: {many} of {len(centres)} windows, {few} of {len(alone)} single MLPs"
    )


def single_in_windows(alone: Tensor, layers: Sequence[int], windows: Tensor, width: int) -> tuple[int, str]:
    """The best single layer in % of the best window (0 to 100), and what the windows with and without it bring back."""
    star, n = int(alone.argmax()), len(alone)
    inside = {L: float(w) for L, w in zip(layers, windows, strict=True) if star in window_at(L, width, n)}
    outside = {L: float(w) for L, w in zip(layers, windows, strict=True) if L not in inside}
    told = f"MLP {star} alone brings back {alone.max():.2f}, the best window {windows.max():.2f}."
    for which, found in (("that contain it", inside), ("without it", outside)):
        if found:
            told += f" Windows {which} reach {max(found.values()):.2f}, centred at {max(found, key=found.__getitem__)}."
    return round(100 * min(1.0, max(0.0, float(alone.max() / windows.max())))), told


def another_of(bank: Sequence[Fact]) -> list[Fact]:
    """For each fact the next one of its family with another answer."""
    others = []
    for fact in bank:
        family = [f for f in bank if f.family == fact.family]
        i = family.index(fact)
        others.append(next(f for f in family[i + 1 :] + family[:i] if f.answer != fact.answer))
    return others


def restored_from(lm, sources: Sequence[Fact], bank: Sequence[Fact], layer: int, draws: int = 2) -> Tensor:
    """The indirect effect, a fact, of putting the stream of its source's clean run at the last subject token, at the same role."""
    found = []
    for source, fact in zip(sources, bank, strict=True):
        span, there = lm.find(fact.prompt, fact.subject), lm.find(source.prompt, source.subject)[-1]
        clean = record(lm, source.prompt, Site("block_output", layer))["block_output", layer][:, [there]]
        noise = torch.randn(draws, len(span), lm.d_model, generator=torch.Generator().manual_seed(0))
        corruption = add(Site("block_input", 0, positions=span), 3 * embedding_std(lm) * noise)
        p, rows = probability(lm, fact.answer), [fact.prompt] * draws
        with intervene(lm, corruption):
            corrupted = p(lm.next_token_logits(rows))
        with intervene(lm, corruption, replace(Site("block_output", layer, positions=span[-1]), clean)):
            found.append((p(lm.next_token_logits(rows)) - corrupted).mean())
    return torch.stack(found).cpu()


# -- another subject instead of noise ---------------------------------------------------------------------------------


def twins_of(lm, each: int = 3) -> list[Pair]:
    """Pairs of every family whose subject isn't the prompt's first token, known ones where there are some."""
    chosen = [p for family in FAMILIES for p in (known(lm, pairs(family)[:8]) or pairs(family)[:8])[:each]]
    return [p for p in chosen if lm.find(p.source, p.source_subject)[0] > 0]


def share_by_exchange(lm, twins: Sequence[Pair], layers: Sequence[int], window: int) -> Tensor:
    """The share of the way from the other subject's probability to the clean one that windows of MLPs bring back, (pair, layer)."""
    ends = [lm.find(p.base, p.base_subject)[-1:] for p in twins]
    metric = probability(lm, [p.source_answer for p in twins])
    base, source = [p.base for p in twins], [p.source for p in twins]
    where = dict(layers=layers, window=window, positions={"last subject token": ends})
    return patch_sweep(lm, base, source, metric, "mlp_output", **where, normalize=True).values[..., 0]


def share_by_noise(lm, twins: Sequence[Pair], layers: Sequence[int], window: int) -> Tensor:
    """The share of the total effect that the same windows bring back after noise, (pair, layer)."""
    bank = [Fact(p.source, p.source_subject, p.source_answer, p.family) for p in twins]
    traces = traces_of(lm, bank, at="last subject token", component="mlp_output", layers=layers, window=window)
    return torch.stack([t.indirect_effect.values[:, 0] / t.total_effect for t in traces])


# -- an edit of rank one ----------------------------------------------------------------------------------------------


class CityEdits:
    """Five cities and another country for each; δ that make the model say it; and what an edit of rank one does with them.

    Attributes:
        cities, wanted: the facts, and the country that each is to be given.
        paraphrases: another question about each city.
        neighbours: for each city another one, whose answer the edit should leave alone.
    """

    def __init__(self, lm, n: int = 5):
        self.lm = lm
        candidates = known(lm, facts("country_of_city")) or facts("country_of_city")
        self.cities = [f for f in candidates if len(lm.find(f.prompt, f.subject)) == 1][:n]
        n = len(self.cities)
        self.wanted = [f.answer for f in another_of(self.cities)]
        self.paraphrases = [f"I spent last summer in {f.subject}, a city in the country of" for f in self.cities]
        self.neighbours = self.cities[n // 2 :] + self.cities[: n // 2]
        self.prompts = [f.prompt for f in self.cities]
        self.ends = [lm.find(f.prompt, f.subject)[-1:] for f in self.cities]
        self.clean = record(lm, self.prompts, "block_output", "mlp_activation")

    def find_delta(self, layer: int, steps: int = 4, step: float = 0.25) -> Tensor:
        """For each city a vector that, added to the MLP's output at it, makes the wanted answer likely, (city, d_model).

        Each of the steps goes up the gradient of log p, a quarter of the stream's norm far.
        """
        lm, n = self.lm, len(self.cities)
        target = torch.tensor([lm.token_id(word) for word in self.wanted])
        size = step * self.clean[Site("block_output", layer, self.ends)].norm(dim=-1)
        delta = torch.zeros(n, lm.d_model, device=lm.device)
        for _ in range(steps):
            delta.requires_grad_()
            with intervene(lm, add(Site("mlp_output", layer, positions=self.ends), delta[:, None])):
                log_p = lm.next_token_logits(self.prompts, grad=True).log_softmax(-1)[range(n), target]
            (slope,) = torch.autograd.grad(log_p.sum(), delta)
            delta = delta.detach() + size * slope / slope.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return delta

    def measure(self, layer: int, deltas: Tensor, rank_one: Callable) -> dict[str, float]:
        """Mean probabilities under each city's edit at a layer, with the learner's `rank_one`: of the wanted answer, of the wanted answer
        to the other question, and of the neighbour's own answer."""
        keys = self.clean[Site("mlp_activation", layer, self.ends)][:, 0]
        projection, found = self.lm.anatomy.place("mlp_output", layer).module, []
        for i, (key, delta) in enumerate(zip(keys, deltas, strict=True)):

            def edited(module, inputs, output, key=key, delta=delta):
                return rank_one(inputs[0], output, key, delta)

            neighbour = self.neighbours[i]
            answered = probability(self.lm, [self.wanted[i], self.wanted[i], neighbour.answer])
            handle = projection.register_forward_hook(edited)
            try:
                asked = self.lm.next_token_logits([self.prompts[i], self.paraphrases[i], neighbour.prompt])
            finally:
                handle.remove()
            found.append(answered(asked))
        names = "the edit works", "… in a paraphrase, too", "another city keeps its answer"
        return dict(zip(names, torch.stack(found).mean(0).tolist(), strict=True))

    def unedited(self) -> float:
        """The mean probability of the neighbours' own answers without any edit."""
        answered = probability(self.lm, [f.answer for f in self.neighbours])
        return float(answered(self.lm.next_token_logits([f.prompt for f in self.neighbours])).mean())

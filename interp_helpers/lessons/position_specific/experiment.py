"""What notebook 04 works out beside its experiments: prompts that this model knows, layers in its own scale, where heads look."""

from __future__ import annotations

import math

import torch

from ...hooks import record
from ...metrics import logit_diff
from ...plotting import curves
from ...prompts import Pair, ioi_places, known, pairs
from ...sweeps import Head, Sweep, strongest_heads

DIRECTLY = ["neither does", "one does, the other acts through later blocks", "both do"]
PAPER = {  # Wang et al. 2022, on gpt2
    "name movers": ((9, 9), (9, 6), (10, 0)),
    "S-inhibition heads": ((7, 3), (7, 9), (8, 6), (8, 10)),
    "negative name movers": ((10, 7), (11, 10)),
}


def opening_pair(lm) -> Pair:
    """Colosseum and Eiffel Tower, where the model knows both cities; else the first pair of landmarks that it knows, if any."""
    base, source = (f"The {name} is in the city of" for name in ("Colosseum", "Eiffel Tower"))
    pair = Pair(base, source, "Colosseum", "Eiffel Tower", " Rome", " Paris", "landmark_city")
    return (known(lm, [pair, *pairs("landmark_city")]) or [pair])[0]


def names_of(lm, family: str, *, several: bool, most: int) -> list[Pair]:
    """Pairs of a family that the model knows (all, if it knows too few) whose names are several tokens long, or one."""
    bank = [pair for pair in pairs(family) if (len(lm.find(pair.base, pair.base_subject)) > 1) == several]
    right = known(lm, bank[:24])
    return (right if len(right) > 1 else bank)[:most]


def length_of_the_first(lm, prompt: str) -> str:
    """How long the stream at position 0 is beside the other tokens' median: where it is longest, and where shortest."""
    lengths = record(lm, prompt, "block_output").stack("block_output")[:, 0].norm(dim=-1)  # (layer, token)
    times = lengths[:, 0] / lengths[:, 1:].median(dim=1).values
    most, least = int(times.argmax()), int(times.argmin())
    return (
        f"Beside the median of the other tokens, the stream at position 0 is {times[most]:.1f} times as long at layer {most}, "
        f"and {times[least]:.1f} times as long at layer {least}."
    )


def compare_rows(lm, some: list[Pair], batches: dict, last_row) -> dict[str, float]:
    """Print what each row of some batches says, their mean effects, and how far the last row is from that prompt run alone."""
    print("source answer:", [pair.source_answer for pair in some])
    metric = logit_diff(lm, [pair.source_answer for pair in some], [pair.base_answer for pair in some])
    off, before = {}, metric(lm.next_token_logits([pair.base for pair in some])).mean()
    for kind, logits in batches.items():
        says = [lm.top_of(row, 1)[0][0] for row in logits]
        effect, off[kind] = metric(logits).mean() - before, float((logits[-1] - last_row).abs().max())
        print(
            f"{kind}: {says}, mean effect {effect:+.1f}; its last row is off by {off[kind]:.1g} from that prompt alone"
        )
    return off


# -- two names --------------------------------------------------------------------------------------------------------


def some_layers(lm) -> list[int]:
    """About a dozen layers: the first, the one half-way, and the last are among them."""
    n = lm.n_layers
    return sorted({*range(0, n, max(1, n // 10)), n // 2, n - 1})


def at(sweep: Sweep, layer: int, place: str) -> float:
    """A share of a sweep (layer, position)."""
    return float(sweep.values[sweep.labels["layer"].index(layer), sweep.labels["position"].index(place)])


def arrival(sweep: Sweep) -> float:
    """The first layer tried at which a patch of the last token moves over a third of the way; infinity if none does."""
    return next((layer for layer in sweep.labels["layer"] if at(sweep, layer, "last token") > 1 / 3), math.inf)


def said(layer: float) -> str:
    """The layer in words; infinity is none."""
    return "at no layer" if layer == math.inf else f"at layer {layer}"


def arrivals(who: float, which: float) -> str:
    """Where the two kinds of information arrive at the last token, as a title."""
    return f"A patch of the last token first moves a third {said(who)} (who is repeated) and {said(which)} (which name)"


def draw(questions: dict, title: str):
    """Shares against layers, of {question: (sweep, places)}."""
    lines, errors = {}, {}
    for question, (sweep, places) in questions.items():
        for place in places:
            column = sweep.labels["position"].index(place)
            lines[f"{question}: at {place}"] = sweep.values[:, column]
            errors[f"{question}: at {place}"] = sweep.error[:, column]
    look = dict(
        xlabel="layer whose output is patched (counted from 0)", ylabel="share of the way (mean ± standard error)"
    )
    return curves(sweep.labels["layer"], lines, errors=errors, references={"a third": 1 / 3}, title=title, **look)


def told(kept: dict[str, float], layer: int) -> tuple[str, str]:
    """The answer to the prediction, and why: the role whose patch moves most."""
    best = max(kept, key=kept.get)
    shares = ", ".join(f"{role} {share:.0%}" for role, share in kept.items())
    return best, f"Shares at layer {layer}, with S1 changed: {shares}."


# -- heads ------------------------------------------------------------------------------------------------------------


def halves(bank) -> tuple[list[int], list[int]]:
    """Two halves of the prompts' numbers, with as many in either that name the indirect object first."""
    first = [one.prompt.index(one.indirect_object) < one.prompt.index(one.subject) for one in bank]
    order = sorted(range(len(bank)), key=first.__getitem__)
    return order[::2], order[1::2]


def beside_the_paper(lm, sweep: Sweep) -> None:
    """Print the heads that Wang et al. found in gpt2, and, on gpt2, what they move in this run."""
    gpt2 = lm.name.rstrip("/").split("/")[-1] == "gpt2" and (lm.n_layers, lm.n_heads) == (12, 12)
    shares = strongest_heads(sweep)
    print(
        "Wang et al. (2022) found these heads in gpt2 (12 blocks)"
        + (", with what they move in your run:" if gpt2 else ":")
    )
    for role, heads in PAPER.items():
        print(
            f"  {role}:",
            ", ".join(f"{Head(*head)} {shares[head]:+.0%}" if gpt2 else f"{Head(*head)}" for head in heads),
        )
    if not gpt2:
        print(f"You are running {lm.name}: a head of the same number is another head there.")


def directly(both: dict) -> tuple[str, str]:
    """The answer to the prediction, and why, from {head: (direct, total)}, the largest total first."""
    two = list(both.items())[:2]
    told = "; ".join(f"{head}: total {total:.0%}, direct {direct:.0%}" for head, (direct, total) in two)
    return DIRECTLY[sum(direct / total > 0.5 for _, (direct, total) in two)], told


def spots(lm, bank) -> dict[str, list[int]]:
    """One position a prompt, for the places that heads may look at."""
    found = {
        place: [span[-1] for span in spans] for place, spans in ioi_places(lm, bank).items() if place != "last token"
    }
    after, last = [place + 1 for place in found["S1"]], [len(lm.str_tokens(one.prompt)) - 1 for one in bank]
    return {"first token": [0] * len(bank), **found, "after S1": after, "last token": last}


def attention(patterns, head: Head, start: list[int], to: dict[str, list[int]]) -> torch.Tensor:
    """Mean attention of a head, from each prompt's place `start` to each of the places."""
    weights, rows = patterns["attention_weight", head[0]][:, head[1]].float().cpu(), torch.arange(len(start))
    return torch.stack([weights[rows, start, ends].mean() for ends in to.values()])


def name_movers(raised: Sweep, patterns, spots: dict, k: int) -> list[Head]:
    """The k heads with the largest product of direct effect on IO's logit and attention to IO from the last token."""
    to_io = {"IO": spots["IO"]}
    rank = {
        h: value * attention(patterns, h, spots["last token"], to_io).item()
        for h, value in strongest_heads(raised).items()
    }
    return sorted(rank, key=rank.get, reverse=True)[:k]


def looks(patterns, heads: dict, to: dict) -> Sweep:
    """Where heads look, as a table to draw: `heads` is {name: (head, one position a prompt from which it looks)}."""
    values = torch.stack([attention(patterns, head, start, to) for head, start in heads.values()], 1)
    labels, ends = {"place": list(to), "head": list(heads)}, dict(base=torch.zeros(()), source=torch.ones(()))
    return Sweep(values, tuple(labels), labels, metric="mean attention", component="attention", ends=("", ""), **ends)


def target(table: Sweep, head: Head) -> str:
    """What a head looks at most, from the last token."""
    column = table.labels["head"].index(f"{head} from the last")
    return table.labels["place"][int(table.values[:, column].argmax())]


def apart(by_source: dict[str, tuple[float, float, float]]) -> bool:
    """Whether the right source moves more than the control does, on average."""
    return "third landmark" in by_source and by_source["right source"][0] > by_source["third landmark"][0]

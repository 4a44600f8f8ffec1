"""What a steering vector costs: `python -m bench.steering`. Tokens a second with one vector added, against plain `generate`.

GPT-2's shape with random weights, greedy, 8 rows, 64 new tokens, in turn for several rounds on two threads.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch

from interp_helpers import SteeringVector

from . import ours
from .__main__ import ROOT, make_model

sys.path.insert(0, str(Path(ROOT) / "tests"))

from tiny import gpt2_tokenizer  # noqa: E402

ROWS, NEW, ROUNDS = 8, 64, 15


def main() -> float:
    """Print the median ratio of the seconds, and its quartiles."""
    torch.set_num_threads(2)
    lm = ours.wrap(make_model(quick=False), gpt2_tokenizer(), "of GPT-2's shape")
    vector = SteeringVector(torch.ones(lm.d_model), 8, model=lm.name)
    prompts = ["The lake in the morning is"] * ROWS
    ways = {"plain": nullcontext, "one vector": partial(vector.apply, lm, 0.01)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            with way():
                lm.generate(prompts, NEW, min_new_tokens=NEW)
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    ratios = sorted(b / a for a, b in zip(*seconds.values(), strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    speeds = ", ".join(f"{name} {ROWS * NEW / statistics.median(all):.0f} tokens/s" for name, all in seconds.items())
    print(f"{speeds}; one vector takes {middle:.3f} times as long (quartiles {low:.3f} to {high:.3f}, {ROUNDS} rounds)")
    return middle


if __name__ == "__main__":
    main()

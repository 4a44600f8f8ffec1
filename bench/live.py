"""Time the map of patches while somebody types: `python -m bench.live`, from the repository's root.

Everything is told in forwards of the base prompt, measured in turn with it: the words, the first picture, the whole map, and how long work goes
on after a keystroke has dropped it. With `--busy` two other processes compute all the while.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

from transformers import AutoConfig, AutoModelForCausalLM

from interp_helpers import LanguageModel, load_model
from interp_helpers.engine import Stopped, stop_when
from interp_helpers.sweeps import LivePatches

from .busy import busy

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # for GPT-2's tokenizer without a download

from tiny import gpt2_tokenizer  # noqa: E402

BASE, SOURCE = "The Colosseum is in the city of", "The Eiffel Tower is in the city of"
OF_NINE_TOKENS = (
    "The capital of Spain is in the city of",
    "The capital of Italy is in the city of",
)  # for gpt2's tokenizer
ROUNDS = 9


def of_gpt2s_shape() -> LanguageModel:
    return LanguageModel(
        AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2")), gpt2_tokenizer(), "GPT-2's shape"
    )


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def round_of(lm: LanguageModel, base: str, source: str, words: tuple[str, str]) -> dict[str, float]:
    """The seconds of a forward, of the words, of the first picture and of the whole map, and from a drop to the end of its work."""
    found = {"forward": statistics.median(seconds(lambda: lm.next_token_logits(base)) for _ in range(5))}
    found["words"] = seconds(lambda: LivePatches(lm, base, source).words)
    live = LivePatches(lm, base, source, words=words)
    live.ends  # noqa: B018 (what the words need is there when a map is begun)
    start = time.perf_counter()
    for n, sweep in enumerate(live.sweeps()):
        live.map(sweep)
        found["whole" if n else "first"] = time.perf_counter() - start
    dropped = threading.Event()
    timer = threading.Timer(0.6 * found["first"], dropped.set)  # in the middle of the first step
    timer.start()
    start = time.perf_counter()
    try:
        with stop_when(dropped.is_set):
            list(live.sweeps())
    except Stopped:
        pass
    found["drop"] = time.perf_counter() - start - 0.6 * found["first"]
    return found


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.live", description="Time the map of patches.")
    parser.add_argument("--busy", action="store_true", help="beside two other processes that compute")
    options = parser.parse_args(arguments)
    offline = load_model("offline")
    for lm, (base, source), words in (
        (of_gpt2s_shape(), OF_NINE_TOKENS, (" Paris", " Rome")),
        (offline, (BASE, SOURCE), ("", "")),
    ):
        n = lm.tokens(base).shape[1]
        round_of(lm, base, source, words)  # a warm-up
        with busy(2) if options.busy else nullcontext():
            rounds = [round_of(lm, base, source, words) for _ in range(ROUNDS)]
        medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        forward = medians.pop("forward")
        said = ", ".join(f"{name} {value / forward:.1f} ({value:.2f} s)" for name, value in medians.items())
        print(f"{lm.name}, {n} tokens; in forwards of {1000 * forward:.0f} ms: {said}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What a sweep's proof costs: `python -m bench.proof`, from the repository's root.

A sweep that resumes runs also runs the base and one patch of each batch whole, and compares (`interp_helpers/engine/cells.py`). Here
sweeps over every layer and token run with the proof and without it, taking turns, on random weights of GPT-2's shape.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # for GPT-2's tokenizer without a download

from tiny import gpt2_tokenizer  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from interp_helpers import LanguageModel, causal_trace, logit_diff, patch_sweep  # noqa: E402

BASE, SOURCE = "The Colosseum is in the city of", "The Eiffel Tower is in the city of"
CELLS = "interp_helpers.engine.cells"


def seconds(job, proof: bool) -> float:
    """Of the processor, which says more than the clock's on a machine that does other things, too."""
    with ExitStack() as stack:
        if not proof:
            stack.enter_context(mock.patch(f"{CELLS}._whole", lambda *given: None))
            stack.enter_context(mock.patch(f"{CELLS}.agree", lambda *given: True))
        start = time.process_time()
        job()
        return time.process_time() - start


if __name__ == "__main__":
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2")).eval()
    lm = LanguageModel(model, gpt2_tokenizer(), "GPT-2's shape")
    metric = logit_diff(lm, " Paris", " Rome")
    jobs = {
        "patch sweep, one pair of nine tokens": lambda: patch_sweep(lm, BASE, SOURCE, metric),
        "patch sweep, sixteen such pairs": lambda: patch_sweep(lm, [BASE] * 16, [SOURCE] * 16, metric),
        "causal trace, ten samples": lambda: causal_trace(lm, SOURCE, "Eiffel Tower", " Paris"),
    }
    for name, job in jobs.items():
        job()
        ratios = [seconds(job, True) / seconds(job, False) for _ in range(5)]
        print(f"{name}: {statistics.median(ratios):.3f} times as long with the proof as without it", flush=True)

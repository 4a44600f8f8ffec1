"""Time some jobs in this library and in others: `python -m bench`, from the repository's root.

All are run in one process, in turn, for several rounds, on models of GPT-2's shape with the same random weights, in fp32 on the
CPU. Every result is compared with ours. What is left out of the times: loading, wrapping, and a warm-up of each form.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from . import ours
from .jobs import Alignment, CausalTrace, Collection, PatchSweep
from .peers import PEERS, forms, load

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # for GPT-2's tokenizer without a download

from tiny import gpt2_tokenizer  # noqa: E402

JOBS = {
    "patch": "activation patching, block_output at every layer and position",
    "trace": "causal tracing, block_output at every layer and position, 10 noise samples",
    "collect": "the residual stream of every layer, 64 prompts of 15 tokens",
    "das_fresh": "DAS, rank 64 after block 6, 4 steps of 16 pairs of 12 tokens, each pair once",
    "das_cached": "DAS, rank 64 after block 6, 10 steps on the same 16 pairs of 12 tokens",
}
AGREE = 1e-3  # the largest difference between libraries, relative to the largest number
SLOW_ROUNDS = 1  # of what takes long as documented
SLOW = {
    ("trace", "single"),
    ("trace", "documented"),
    ("trace", "batched"),
    ("das_fresh", "documented"),
    ("das_cached", "documented"),
}


@dataclass
class Result:
    """How long one form of a job took.

    Attributes:
        seconds, cpu: of each round, by the wall's clock and by the processor's.
        ratios: seconds by ours in the same round.
        difference: the largest one from our numbers, relative to the largest of ours.
    """

    job: str
    library: str
    form: str
    what: str
    seconds: list[float]
    cpu: list[float]
    ratios: list[float]
    difference: float


@dataclass
class Contender:
    library: str
    form: str
    model: object
    run: Callable


def main(arguments: list[str] | None = None) -> list[Result]:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    lm = ours.wrap(make_model(options.quick), gpt2_tokenizer(), "of GPT-2's shape")
    contenders = {job: [Contender("ours", "", lm, getattr(ours, job))] for job in options.jobs}
    for library in options.libraries:
        try:
            module = load(library)
        except ImportError as error:
            print(f"{library} is left out: {error}. pip install -e '.[peers]'", file=sys.stderr)
            continue
        model = module.wrap(make_model(options.quick), gpt2_tokenizer())
        for job in options.jobs:
            contenders[job] += [Contender(library, form, model, run) for form, run in forms(module, job).items()]

    results = []
    for job in options.jobs:
        found = measure(job, make_job(job, lm.model, options.quick), contenders[job], options.rounds)
        print(f"\n{table(job, found)}", flush=True)
        results += found
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        facts = {"machine": machine(), "quick": options.quick, "results": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    wrong = [f"{one.library} {one.form} ({one.job})" for one in results if not one.difference < AGREE]
    if wrong:
        sys.exit(f"These don't compute what ours do, so their times mean nothing: {', '.join(wrong)}.")
    return results


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed (default: 3)")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--libraries", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's threads (default: 2)")
    parser.add_argument("--quick", action="store_true", help="a tiny model: does everything run, and agree?")
    parser.add_argument("--json", type=Path, help="also write all numbers, and the machine's facts, to this file")
    return parser.parse_args(arguments)


def make_model(quick: bool) -> PreTrainedModel:
    """A model with random weights, always the same ones."""
    tiny = dict(n_layer=2, n_head=4, n_embd=32) if quick else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return (
            AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **tiny)).float().eval().requires_grad_(False)
        )


def make_job(job: str, model: PreTrainedModel, quick: bool):
    tokenizer = gpt2_tokenizer()
    if job == "patch":
        whole = PatchSweep.of(tokenizer)
    elif job == "trace":
        whole = CausalTrace.of(tokenizer, model)
    elif job == "collect":
        whole = Collection.of(model)
    else:
        whole = Alignment.of(model, pairs=16, epochs=10) if job == "das_cached" else Alignment.of(model, 64, epochs=1)
    return small(whole) if quick else whole


def small(job):
    """The same job with less to do, to warm up with."""
    if isinstance(job, PatchSweep):  # up to the end of the first words, so that the text has these tokens again
        return replace(job, base=job.base[:, :5], source=job.source[:, :5])
    if isinstance(job, CausalTrace):
        return replace(job, ids=job.ids[:, :5], noise=job.noise[:1])
    if isinstance(job, Alignment):
        pairs = {name: getattr(job, name)[: len(job.labels) // 4] for name in ("bases", "sources", "labels")}
        return replace(job, **pairs, batch=4, epochs=min(job.epochs, 2))
    return replace(job, ids=job.ids[:4])


def measure(name: str, job, contenders: list[Contender], rounds: int) -> list[Result]:
    """Time them in turn, round by round."""
    results = [
        Result(name, one.library, one.form, " ".join(one.run.__doc__.split()) if one.form else "", [], [], [], 0.0)
        for one in contenders
    ]
    for one in contenders:
        one.run(one.model, small(job))
    expected = contenders[0].run(contenders[0].model, job)
    for number in range(rounds):
        turns = list(zip(contenders, results, strict=True))
        for one, result in turns[:: -1 if number % 2 else 1]:  # nobody always comes first
            if (name, one.form) in SLOW and number >= SLOW_ROUNDS:
                continue
            print(f"\r{name}, round {number + 1}: {one.library} {one.form:<20}", end="", file=sys.stderr, flush=True)
            wall, cpu = time.perf_counter(), time.process_time()
            values = one.run(one.model, job)
            result.seconds.append(time.perf_counter() - wall)
            result.cpu.append(time.process_time() - cpu)
            result.difference = max(result.difference, difference(values, expected))
            del values
        for result in results:
            if len(result.seconds) > number:
                result.ratios.append(result.seconds[number] / results[0].seconds[number])
    print(f"\r{'':60}\r", end="", file=sys.stderr, flush=True)
    return results


def difference(values, expected) -> float:
    """The largest difference, relative to the largest of the expected numbers."""
    pairs = [(values, expected)] if isinstance(values, Tensor) else zip(values, expected, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def table(job: str, results: list[Result]) -> str:
    rounds = {len(result.seconds) for result in results}
    lines = [
        f"{job}: {JOBS[job]} (rounds: {max(rounds)})",
        f"{'library':<16} {'form':<11} {'seconds':>8} {'(min–max)':>16} {'× ours':>7} {'(min–max)':>14} {'difference':>11}",
    ]
    for one in results:
        seconds, ratio = statistics.median(one.seconds), statistics.median(one.ratios)
        spread = f"({min(one.seconds):.2f}–{max(one.seconds):.2f})"
        ratios = f"({min(one.ratios):.1f}–{max(one.ratios):.1f})"
        fewer = "" if len(one.seconds) == max(rounds) else f"  rounds: {len(one.seconds)}"
        lines.append(
            f"{one.library:<16} {one.form:<11} {seconds:>8.2f} {spread:>16} {ratio:>7.1f} {ratios:>14} {one.difference:>11.0e}{fewer}"
        )
    return "\n".join(lines)


def machine() -> dict:
    names = ["torch", "transformers", *(name for name in ("pyvene", "nnsight", "transformer-lens") if installed(name))]
    return {
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in names},
    }


def installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


if __name__ == "__main__":
    main()

"""The same sweeps on the same weights, by ROME's procedure, plain PyTorch, pyvene, nnsight, TransformerLens and by us: the same numbers.

The peers' functions are those that `python -m bench` times. Each peer gets a model of its own, made from the same seed,
since some of them rewrite the model that they wrap.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny import gpt2_tokenizer, tiny_model

sys.path.insert(0, str(Path(__file__).parents[2]))  # bench stands beside the package, and isn't installed

from bench import __main__ as command
from bench import jobs, ours
from bench.peers import PEERS, load
from interp_helpers import causal_trace, embedding_std, logit_diff, patch_sweep, probability

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
TOKENS = 6  # of the benchmark's prompts: "The Eiffel Tower,"
FAMILIES = ["gpt2", "llama"]
# nnsight's fastest form skips whole blocks, so it is one of block outputs.
OF_BLOCKS_ONLY = {("nnsight", "best")}


@cache
def lm(family):
    return ours.wrap(tiny_model(family), gpt2_tokenizer(), f"tiny {family}")


@cache
def peer(name, family):
    """A peer's functions, and its model of a family."""
    if name != "PyTorch":
        needs = PEERS[name].removeprefix("with_")
        pytest.importorskip(needs, reason=f"{name} is one of the peers: pip install -e '.[peers]'")
    module = load(name)
    return module, module.wrap(tiny_model(family), gpt2_tokenizer())


def agree(mine, other):
    """Equal within the tolerance, relative to the largest number; and the experiment is one whose cells differ."""
    assert mine.shape == other.shape, (mine.shape, other.shape)
    size = mine.abs().max()
    assert mine.std() > 1e-2 * size, "the experiment changes nothing"
    difference = float((mine - other).abs().max() / size)
    assert difference < TOLERANCE, difference


def patch_job(component="block_output"):
    job = jobs.PatchSweep.of(gpt2_tokenizer(), component)
    return replace(job, base=job.base[:, :TOKENS], source=job.source[:, :TOKENS])


def trace_job(wrapped, component="block_output", samples=3):
    """A trace of the model's own first choice, whose probability is not close to zero."""
    job = jobs.CausalTrace.of(gpt2_tokenizer(), wrapped.model, component, samples)
    ids = job.ids[:, :TOKENS]
    return replace(job, ids=ids, answer=int(wrapped.next_token_logits(ids).argmax()))


CELLS = [
    (name, form, family, component)
    for name in PEERS
    for form in ("single" if name == "nnsight" else "batched", "documented", "best")
    for family in FAMILIES
    for component in ("block_output", "mlp_output")
    if component == "block_output" or (name, form) not in OF_BLOCKS_ONLY
]


@pytest.mark.parametrize("name, form, family, component", CELLS)
def test_patch_sweep(name, form, family, component):
    module, model = peer(name, family)
    job = patch_job(component)
    agree(ours.patch(lm(family), job), getattr(module, f"patch_{form}")(model, job))


@pytest.mark.parametrize("name, form, family, component", CELLS)
def test_causal_trace(name, form, family, component):
    module, model = peer(name, family)
    job = trace_job(lm(family), component)
    agree(ours.trace(lm(family), job), getattr(module, f"trace_{form}")(model, job))


@pytest.mark.parametrize("form", ["documented", "best"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PEERS)
def test_collection(name, family, form):
    module, model = peer(name, family)
    job = jobs.Collection.of(lm(family).model, prompts=5)
    mine, theirs = ours.collect(lm(family), job), getattr(module, f"collect_{form}")(model, job)
    assert len(mine) == lm(family).n_layers
    agree(torch.stack(mine), torch.stack(list(theirs)))


# -- TransformerLens's own sweeps ---------------------------------------------------------------------------------------


def lens(family):
    """Its model, and what its sweeps take: the base's tokens, the source's cache, and the metric."""
    from transformer_lens import patching

    _, model = peer("TransformerLens", family)
    job = patch_job()
    with torch.no_grad():
        _, source = model.run_with_cache(job.source)
    return patching, (model, job.base, source, lambda logits: job.measure(logits[:, -1])[0])


def sweep(family, *args, **options):
    job, tokenizer = patch_job(), gpt2_tokenizer()
    base, source = (tokenizer.decode(ids[0]) for ids in (job.base, job.source))
    return patch_sweep(lm(family), base, source, logit_diff(lm(family), job.right, job.wrong), *args, **options).values


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "component, function",
    [("block_input", "resid_pre"), ("attention_output", "attn_out"), ("mlp_output", "mlp_out")],
)
def test_transformer_lens_sweeps_over_positions(family, component, function):
    peer("TransformerLens", family)
    patching, job = lens(family)
    with torch.no_grad():
        theirs = getattr(patching, f"get_act_patch_{function}")(*job)
    agree(sweep(family, component), theirs)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "component, function",
    [("attention_value_output", "head_out"), ("query_output", "head_q")],
)
def test_transformer_lens_sweeps_over_heads(family, component, function):
    peer("TransformerLens", family)
    patching, job = lens(family)
    with torch.no_grad():
        everywhere = getattr(patching, f"get_act_patch_attn_{function}_all_pos")(*job)
        by_position = getattr(patching, f"get_act_patch_attn_{function}_by_pos")(*job)
    heads = range(lm(family).n_heads)
    agree(sweep(family, component, heads=heads), everywhere)
    for position in (2, TOKENS - 1):
        agree(sweep(family, component, heads=heads, positions=position), by_position[:, position])


# -- ROME's procedure, step by step -------------------------------------------------------------------------------------


def rome(model, ids, span, noise, answer, restored):
    """One restoration, as `trace_with_patch` of Meng et al. does it (github.com/kmeng01/rome, experiments/causal_trace.py).

    Row 0 of a batch is the clean run and the rest are corrupted ones; the noise goes onto the embedding's output at the
    subject's tokens; then, at each of the named (token, module), every corrupted row gets what row 0 has there.

    Returns:
        The answer's probability after the last token, mean over the corrupted rows.
    """
    batch, handles = ids.expand(1 + len(noise), -1), []

    def corrupt(module, args, output):
        output[1:, span.start : span.stop] += noise
        return output

    def restore(token):
        def hook(module, args, output):
            state = output[0] if isinstance(output, tuple) else output
            state[1:, token] = state[0, token]
            return output

        return hook

    handles.append(model.get_input_embeddings().register_forward_hook(corrupt))
    handles += [module.register_forward_hook(restore(token)) for token, module in restored]
    try:
        with torch.no_grad():
            logits = model(batch, logits_to_keep=1).logits
    finally:
        for handle in handles:
            handle.remove()
    return torch.softmax(logits[1:, -1], dim=1).mean(0)[answer]


def rome_window(n_layers, layer, window):
    """The layers that `trace_important_window` restores together."""
    return range(max(0, layer - window // 2), min(n_layers, layer - (-window // 2)))


ROME_NAMES = {  # the module of each block whose output is restored
    "gpt2": ("transformer.h", {"block_output": "", "mlp_output": "mlp", "attention_output": "attn"}),
    "llama": ("model.layers", {"block_output": "", "mlp_output": "mlp", "attention_output": "self_attn"}),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "component, window", [("block_output", 1), ("mlp_output", 10), ("attention_output", 10), ("mlp_output", 3)]
)
def test_romes_causal_tracing(family, component, window):
    model, layers = tiny_model(family, num_hidden_layers=12), 12
    wrapped = ours.wrap(tiny_model(family, num_hidden_layers=12), gpt2_tokenizer(), "tiny")
    job = trace_job(wrapped)
    path, names = ROME_NAMES[family]
    module = {i: model.get_submodule(f"{path}.{i}.{names[component]}".rstrip(".")) for i in range(layers)}
    theirs = torch.stack(
        [
            torch.stack(
                [
                    rome(
                        model,
                        job.ids,
                        job.subject,
                        job.noise,
                        job.answer,
                        [(token, module[i]) for i in (rome_window(layers, layer, window) if window > 1 else [layer])],
                    )
                    for token in range(job.ids.shape[1])
                ]
            )
            for layer in range(layers)
        ]
    )
    prompt = gpt2_tokenizer().decode(job.ids[0])
    trace = causal_trace(wrapped, prompt, jobs.SUBJECT, job.answer, component, window=window, noise=job.noise)
    agree(trace.values, theirs)
    low = rome(model, job.ids, job.subject, job.noise, job.answer, [])
    high = probability(wrapped, job.answer)(wrapped.next_token_logits(prompt))[0]
    torch.testing.assert_close(trace.corrupted, low, rtol=1e-5, atol=0)
    torch.testing.assert_close(trace.clean, high, rtol=1e-5, atol=0)
    assert abs(high - low) > 1e-2 * high


@pytest.mark.parametrize("family", FAMILIES)
def test_romes_noise_level_is_the_spread_of_all_entries_of_the_embedding_matrix(family):
    model = tiny_model(family)
    sigma = float(model.get_input_embeddings().weight.detach().std())
    assert embedding_std(lm(family)) == pytest.approx(sigma, rel=1e-6)
    trace = causal_trace(lm(family), jobs.SOURCE, jobs.SUBJECT, 11, noise=3.0, samples=2, seed=5)
    span = len(trace.subject)
    draws = torch.randn(2, span, lm(family).d_model, generator=torch.Generator().manual_seed(5))
    low = rome(model, lm(family).tokens(jobs.SOURCE), trace.subject, 3 * sigma * draws, 11, [])
    torch.testing.assert_close(trace.corrupted, low, rtol=1e-5, atol=0)


# -- The command that times them ----------------------------------------------------------------------------------------


def test_the_benchmark_prints_a_line_for_each_and_writes_all_numbers(tmp_path, capsys):
    for name in PEERS:
        peer(name, "gpt2")
    threads = torch.get_num_threads()
    path = tmp_path / "folder" / "bench.json"
    results = command.main(["--quick", "--rounds", "2", "--threads", "1", "--json", str(path)])
    torch.set_num_threads(threads)
    forms = dict.fromkeys(PEERS, {"documented", "batched", "best"}) | {"nnsight": {"single", "documented", "best"}}
    for job in command.JOBS:
        lines = [(r.library, r.form) for r in results if r.job == job]
        sweep = job in ("patch", "trace")
        assert lines[0] == ("ours", "") and len(lines) == len(set(lines))
        for name, its in forms.items():
            assert {form for library, form in lines if library == name} == (its if sweep else {"documented", "best"})
    printed = capsys.readouterr().out
    assert [printed.count(f"\n{name}") for name in PEERS] == [2 * len(command.JOBS) + 2] * len(PEERS)
    written = json.loads(path.read_text())
    assert written["machine"]["threads"] == 1 and set(written["machine"]["versions"]) >= {"torch", "nnsight"}
    assert len(written["results"]) == len(results)
    for result in results:
        slow = (result.job, result.form) in command.SLOW
        assert len(result.seconds) == len(result.ratios) == len(result.cpu) == (1 if slow else 2)
        assert min(result.seconds) > 0 and result.difference < 1e-4
        assert bool(result.what) == (result.library != "ours")
    assert all(result.ratios == [1.0, 1.0] for result in results if result.library == "ours")


def test_the_benchmark_goes_on_without_a_library_that_is_not_installed(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nnsight", None)
    monkeypatch.delitem(sys.modules, "bench.peers.with_nnsight", raising=False)
    results = command.main(
        ["--quick", "--rounds", "1", "--threads", "1", "--jobs", "patch", "--libraries", "PyTorch", "nnsight"]
    )
    assert {result.library for result in results} == {"ours", "PyTorch"}
    assert "nnsight is left out" in capsys.readouterr().err

"""The page on larger models is code: what can be run without a GPU and an account is run, on the offline model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import blocks
import pytest
import torch
from accelerate import disk_offload
from tiny import tiny, tiny_model
from transformers import AutoTokenizer

import interp_helpers
from interp_helpers import LanguageModel, Site, embedding_std, intervene, logit_diff, patch_sweep, record, replace

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "handouts" / "larger-models.md").read_text(encoding="utf-8")
EXPERIMENT, SPREAD, FOUR_BITS, MANY, REMOTE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(code: str, names: dict) -> dict:
    """The block, with another model's name in the place of the large one's."""
    return blocks.run(re.sub(r"^name = .*$", "", code, flags=re.MULTILINE), names)


@pytest.fixture(scope="module")
def offline() -> LanguageModel:
    return interp_helpers.load_model("offline")


@pytest.fixture
def names(offline) -> dict:
    found = {n: getattr(interp_helpers, n) for n in interp_helpers.__all__} | {"name": offline.model.name_or_path}
    return run(EXPERIMENT, found | {"torch": torch})


def test_the_page_says_which_blocks_are_not_run():
    assert "load_in_4bit" in FOUR_BITS and "remote=REMOTE" in REMOTE
    assert "is not among the tests" in PAGE and "Nobody has run the remote\nform" in PAGE


def test_in_sixteen_bits_on_a_device_map_the_map_is_the_same_but_for_rounding(names, offline):
    whole = names["at_last_token"](offline)
    sweep = run(SPREAD, names)["sweep"]
    assert names["lm"].model.dtype is torch.bfloat16
    assert whole.values.shape == (30, 1) and (sweep.values - whole.values).abs().max() < 0.05
    assert sweep.values[-1] > 0.9 and sweep.values[10].abs() < 0.1


def test_two_processes_get_the_numbers_of_one(saved, tmp_path):
    """Each has half of the pairs; on one process it is an ordinary sweep."""
    kept = '    torch.save(whole.values, f"{processes}.pt")\n'
    (tmp_path / "many.py").write_text(MANY.replace("    print(whole.normalized.mean)\n", kept), encoding="utf-8")
    environment = os.environ | {"INTERP_MODEL": str(saved), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for processes in ("1", "2"):
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            processes,
            "many.py",
        ]
        done = subprocess.run(launch, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    assert one.shape == (len(interp_helpers.pairs("capital")), 3, 1) and torch.allclose(one, two, atol=1e-4)


def test_nnsights_code_gives_the_same_answers(names, offline):
    pytest.importorskip("nnsight", reason="nnsight is one of the peers: pip install -e '.[peers]'")
    answers = run(REMOTE, names | {"REMOTE": False, "AutoTokenizer": AutoTokenizer})["answers"]
    metric = logit_diff(offline, " Paris", " Rome")
    raw = patch_sweep(offline, names["base"], names["source"], metric, positions=[-1]).values[:, 0]
    assert torch.allclose(metric(torch.stack([a.detach() for a in answers])), raw, atol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_whose_weights_are_on_the_disk_gives_the_same_numbers(family, tmp_path):
    whole = tiny(family)
    model = tiny_model(family)
    disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    assert next(model.parameters()).is_meta
    lm = LanguageModel(model, whole.tokenizer, "on the disk")
    with pytest.raises(ValueError, match="offloaded and can't be read"):
        embedding_std(lm)
    base, source = "The city of Rome is", "The city of Cairo is"
    sweeps = [patch_sweep(one, base, source, logit_diff(one, " Rome", " Cairo")).values for one in (whole, lm)]
    assert torch.allclose(*sweeps, atol=1e-4)
    site = Site("block_output", 1, -1)
    with intervene(lm, replace(site, record(lm, source, site))):
        patched = lm(base)
    with intervene(whole, replace(site, record(whole, source, site))):
        assert torch.allclose(whole(base), patched, atol=1e-4)

"""The Rosetta handout is code: every block is run as it stands, and the four libraries' answers are the same."""

from __future__ import annotations

import re
from pathlib import Path

import blocks
import pytest
import torch
from test_parity_sweeps import peer
from tiny import gpt2_tokenizer, tiny
from torch.nn.functional import cross_entropy

import interp_helpers

PAGE = (Path(__file__).parents[2] / "handouts" / "rosetta.md").read_text(encoding="utf-8")
PEERS = ("pyvene", "nnsight", "TransformerLens")
TOLERANCE = 1e-5  # relative to the largest number


def experiments() -> dict[str, dict[str, str]]:
    """{title: {library: code}} of the numbered sections."""
    sections = re.findall(r"^## \d+ · (.*?)\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    return {title: dict(re.findall(r"```python (\w+)\n(.*?)```", text, re.DOTALL)) for title, text in sections}


EXPERIMENTS = experiments()


def given() -> dict:
    """What every block takes for granted: the page's own words, and tensors of the model's size."""
    found: dict = {"torch": torch, "cross_entropy": cross_entropy}
    exec(re.search(r"## Getting ready.*?```python\n(.*?)```", PAGE, re.DOTALL)[1], found)
    draw = torch.Generator().manual_seed(0)
    d = tiny("gpt2").d_model
    basis = torch.linalg.qr(torch.randn(d, 16, generator=draw)).Q
    return found | {
        "epsilon": torch.randn(1, len(found["subject"]), d, generator=draw),
        "vector": 2 * torch.randn(d, generator=draw),
        "basis": basis,
        "wanted": 100,
    }


def run(library: str, code: str):
    """The block's `answer`, of the same small model with random weights for every library."""
    names = given()
    if library == "interp_helpers":
        names |= vars(interp_helpers) | {"lm": tiny("gpt2")}
    else:
        _, model = peer(library, "gpt2")
        names |= {"model": model, "ids": lambda text: gpt2_tokenizer()(text, return_tensors="pt").input_ids}
        if library == "pyvene":
            import pyvene

            names["pv"] = pyvene
        if library == "nnsight":
            import nnsight

            names["nnsight"] = nnsight
        if library == "TransformerLens":
            model.cfg.default_prepend_bos = False
    return blocks.run(code, names)["answer"].detach().float()


def test_the_page_has_five_experiments_in_four_libraries():
    assert len(EXPERIMENTS) == 5
    for title, codes in EXPERIMENTS.items():
        assert set(codes) == {"interp_helpers", *PEERS}, title
        assert len(codes["interp_helpers"].splitlines()) <= min(len(codes[one].splitlines()) for one in PEERS) + 1


@pytest.mark.parametrize("title", EXPERIMENTS)
def test_the_experiment_changes_something(title):
    """Else four libraries that do nothing would agree."""
    answer = run("interp_helpers", EXPERIMENTS[title]["interp_helpers"])
    lm, names = tiny("gpt2"), given()
    plain = {
        "Activation patching": lambda: lm(names["base"])[0, -1],
        "Causal tracing": lambda: lm(names["base"])[0, -1],
        "DAS: the interchange within a subspace": lambda: cross_entropy(
            lm(names["base"])[:, -1], torch.tensor([names["wanted"]])
        ),
        "Collecting activations": lambda: torch.zeros_like(answer),
        "Steering": lambda: lm.tokens(names["base"] + lm.generate(names["base"], 5))[0, -5:],
    }[title]()
    assert (answer - plain).abs().max() > 1e-4 * answer.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("library", PEERS)
@pytest.mark.parametrize("title", EXPERIMENTS)
def test_the_answers_agree(title, library):
    mine, theirs = (run(one, EXPERIMENTS[title][one]) for one in ("interp_helpers", library))
    assert mine.shape == theirs.shape
    assert (mine - theirs).abs().max() <= TOLERANCE * mine.abs().max()

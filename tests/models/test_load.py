"""`load_model`: which model comes out, what is said, how long a missing Hub may take, and what the errors say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hub_server import COMMIT
from tiny import tiny_model
from transformers.utils import logging

from interp_helpers import load_model
from interp_helpers.models import hub, offline
from interp_helpers.models import load as loading

ROOT = Path(__file__).parents[2]
PROMPT = "The Eiffel Tower is in the city of"
OFFLINE = "SmolLM2-135M-Instruct (offline)"


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to damage."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture(autouse=True)
def no_name_from_outside(monkeypatch):
    monkeypatch.delenv("INTERP_MODEL", raising=False)


# -- which model ------------------------------------------------------------------------------------------------------


def test_the_name_is_the_argument_else_the_environment_else_gpt2(monkeypatch):
    assert loading.model_name() == "gpt2"
    monkeypatch.setenv("INTERP_MODEL", "offline")
    assert loading.model_name() == "offline"
    assert loading.model_name("tiny/gpt") == "tiny/gpt" and loading.model_name(Path("x")) == "x"


def test_a_folder(saved, capsys):
    lm = load_model(saved)
    assert lm.name == str(saved) and lm.n_layers == 3
    assert lm.model.dtype == torch.float32 and not lm.model.training
    assert lm.device.type == loading.best_device().type
    assert lm.tokenizer.pad_token == lm.tokenizer.eos_token == "<|endoftext|>"
    assert torch.allclose(lm(PROMPT).cpu(), tiny_model("gpt2")(lm.tokens(PROMPT).cpu()).logits, atol=1e-4)
    out, err = capsys.readouterr()
    assert out == f"Model: {saved} (3 blocks) on {lm.device}.\n" and err == ""


def test_a_folder_beats_the_hub_and_may_be_relative(saved, monkeypatch, hub_at):
    monkeypatch.chdir(saved.parent)
    assert load_model(saved.name).name == saved.name
    assert load_model(f"./{saved.name}").name == f"./{saved.name}"


def test_the_offline_model_by_name_and_as_a_folder_from_the_environment(offline_path, tmp_path, monkeypatch, capsys):
    lm = load_model("offline")
    assert lm.name == OFFLINE and lm.n_layers == 30 and lm.top(PROMPT, k=1)[0][0] == " Paris"
    out, err = capsys.readouterr()
    assert out == f"Model: {OFFLINE} (30 blocks) on {lm.device}.\n" and err == ""

    copy = offline.offline_folder(tmp_path / "stick")
    monkeypatch.setenv("INTERP_MODEL", str(copy))
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "nothing here"))  # the folder alone is enough
    again = load_model()
    assert again.name == OFFLINE
    assert torch.equal(lm(PROMPT), again(PROMPT))

    (copy / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="in INTERP_MODEL=.* is damaged: tokenizer.json is missing; delete the"):
        load_model()


def test_a_cached_model_needs_no_hub(hub_cache, hub_at, capsys):
    lm = load_model("tiny/gpt", fallback=False, cache_dir=hub_cache)
    assert lm.name == "tiny/gpt" and capsys.readouterr().out.startswith("Model: tiny/gpt (3 blocks) on ")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer"])
def test_a_model_that_is_cached_in_part_is_not_taken(hub_cache, hub_at, missing):
    snapshot = hub_cache / "models--tiny--gpt" / "snapshots" / COMMIT
    for path in snapshot.iterdir():
        if path.name.startswith(missing) or (missing == "tokenizer" and path.name in ("vocab.json", "merges.txt")):
            path.unlink()
    assert not hub.is_cached("tiny/gpt", cache_dir=hub_cache)
    with pytest.raises(ConnectionError, match="tiny/gpt is neither in the cache nor reachable"):
        load_model("tiny/gpt", fallback=False, cache_dir=hub_cache)


def test_a_broken_file_in_the_cache_is_left_to_the_hub(hub_cache, hub_at):
    os.truncate(hub_cache / "models--tiny--gpt" / "snapshots" / COMMIT / "model.safetensors", 1000)
    with pytest.raises(ConnectionError, match="tiny/gpt is neither in the cache nor reachable"):
        load_model("tiny/gpt", fallback=False, cache_dir=hub_cache)


# -- extra arguments, devices, silence --------------------------------------------------------------------------------


def test_extra_arguments_reach_from_pretrained(saved):
    lm = load_model(saved, dtype=torch.bfloat16, attn_implementation="eager", resid_pdrop=0.25)
    assert lm.model.dtype == torch.bfloat16
    assert lm.model.config._attn_implementation == "eager" and lm.model.config.resid_pdrop == 0.25


def test_device_map_places_the_model_and_load_model_does_not_move_it(saved, monkeypatch):
    class Model(type(tiny_model("gpt2"))):
        def to(self, *args, **kwargs):
            pytest.fail("the model was moved")

    def from_pretrained(source, **kwargs):
        assert kwargs["device_map"] == "auto"
        return Model(tiny_model("gpt2").config)

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    assert load_model(saved, device_map="auto").n_layers == 3


def test_devices(saved):
    assert load_model(saved, device="cpu").device == load_model(saved, device=torch.device("cpu")).device
    with pytest.raises(ValueError, match="Got both device='cpu' and device_map='auto'; give one of the two"):
        load_model(saved, device="cpu", device_map="auto")
    other = "mps" if loading.best_device().type != "mps" else "cuda"
    with pytest.raises(ValueError, match=f'This machine has no "{other}" device; leave device out to get'):
        load_model(saved, device=other)


def test_what_transformers_says_is_as_before(saved, hub_cache, hub_at):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(saved)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert not huggingface_hub.utils.are_progress_bars_disabled()


# -- folders and names that can't be ----------------------------------------------------------------------------------


def test_a_folder_that_is_not_there(monkeypatch, tmp_path):
    for name in ("./nowhere", "~/no/where", str(tmp_path / "nowhere"), "a/b/c"):
        with pytest.raises(FileNotFoundError, match=f'folder "{name}" does not exist .*; name a folder that holds'):
            load_model(name)
    monkeypatch.setenv("INTERP_MODEL", "./nowhere")
    with pytest.raises(FileNotFoundError, match="The model folder INTERP_MODEL=./nowhere does not exist"):
        load_model()


@pytest.mark.parametrize("part", ["configuration", "weights", "tokenizer"])
def test_a_folder_that_is_no_model(folder, part):
    for file in hub.NEEDED_FILES[part]:
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(
        FileNotFoundError, match=rf"holds no model for transformers: its {part} \(.*\) is missing; name"
    ):
        load_model(folder)


def test_a_file_a_broken_file_and_an_impossible_name(folder):
    with pytest.raises(FileNotFoundError, match='config.json" is a file, not a folder; name a folder'):
        load_model(folder / "config.json")
    os.truncate(folder / "model.safetensors", 1000)
    with pytest.raises(
        RuntimeError, match="was found, but can't be loaded: .* Its files may be incomplete; fetch them again"
    ):
        load_model(folder)
    with pytest.raises(ValueError, match='"my model" is neither a folder nor a possible name on the Hugging Face Hub'):
        load_model("my model")

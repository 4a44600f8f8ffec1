"""Turn a small Llama-architecture GGUF file into a folder that `transformers` loads by itself.

Three things differ between the two formats: the weights' names, the order of the rows of the query and key projections
(llama.cpp interleaves each rotary pair, Hugging Face keeps the halves apart), and the tokenizer, which GGUF holds as
bare lists. The tokenizer is built here because `transformers`' own GGUF reader gives SmolLM2 a wrong one: it does not
split digits one by one and adds special tokens of another model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from .gguf_file import GGUFTensor, read_gguf

CONTROL_TOKEN = 3  # the GGUF token type of special tokens

# The files that `write_folder` makes.
WEIGHTS, CONFIG, GENERATION = "model.safetensors", "config.json", "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


def write_folder(gguf: bytes, folder: Path) -> None:
    """Write weights (fp16), config and tokenizer of the GGUF model `gguf` into the existing `folder`.

    Raises ValueError if the file is not what is expected, OSError if the folder cannot be written.
    """
    metadata, tensors = read_gguf(gguf)
    half = {name: weight.astype(np.float16) for name, weight in hf_weights(metadata, tensors)}
    # Bytes and then a plain write, not the libraries' own save: a full disk is then an OSError like any other.
    (folder / WEIGHTS).write_bytes(save(half, metadata={"format": "pt"}))
    (folder / TOKENIZER).write_text(hf_tokenizer(metadata).to_str(pretty=True) + "\n", encoding="utf-8")
    _write_json(folder / TOKENIZER_CONFIG, hf_tokenizer_config(metadata))
    _write_json(folder / CONFIG, hf_config(metadata))
    _write_json(folder / GENERATION, _special_ids(metadata))


def hf_weights(metadata: dict[str, Any], tensors: dict[str, GGUFTensor]):
    """Yield (Hugging Face name, float32 array) for every weight, dequantised, in the model's order.

    Raises ValueError unless the tensors are exactly those of a Llama with tied embeddings of the size that the
    metadata names.
    """
    size = _sizes(metadata)
    expected = {
        "token_embd.weight": ("model.embed_tokens.weight", (size["vocab"], size["d_model"])),
        "output_norm.weight": ("model.norm.weight", (size["d_model"],)),
    }
    for block in range(size["n_layers"]):
        for theirs, (ours, axes) in BLOCK_WEIGHTS.items():
            shape = tuple(size[axis] for axis in axes)
            expected[f"blk.{block}.{theirs}.weight"] = f"model.layers.{block}.{ours}.weight", shape
    odd = sorted(expected.keys() ^ tensors.keys())
    if odd:
        raise ValueError(
            f"The GGUF file holds {len(tensors)} tensors, but a {size['n_layers']}-block Llama has {len(expected)}; "
            f"the first that is missing or too many is {odd[0]}. Fetch the file again."
        )
    for name, (hf_name, shape) in expected.items():
        if tensors[name].shape != shape:
            raise ValueError(
                f"The GGUF tensor {name} has shape {tensors[name].shape}, expected was {shape}; fetch the file again."
            )
        weight = tensors[name].dequantize()
        if "attn_q" in name:
            weight = halves_apart(weight, size["n_heads"])
        elif "attn_k" in name:
            weight = halves_apart(weight, size["n_key_value_heads"])
        yield hf_name, weight


# GGUF name -> (Hugging Face name, the axes of its shape), within one block.
BLOCK_WEIGHTS = {
    "attn_norm": ("input_layernorm", ("d_model",)),
    "attn_q": ("self_attn.q_proj", ("queries", "d_model")),
    "attn_k": ("self_attn.k_proj", ("keys", "d_model")),
    "attn_v": ("self_attn.v_proj", ("keys", "d_model")),
    "attn_output": ("self_attn.o_proj", ("d_model", "queries")),
    "ffn_norm": ("post_attention_layernorm", ("d_model",)),
    "ffn_gate": ("mlp.gate_proj", ("d_mlp", "d_model")),
    "ffn_up": ("mlp.up_proj", ("d_mlp", "d_model")),
    "ffn_down": ("mlp.down_proj", ("d_model", "d_mlp")),
}


def halves_apart(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Undo llama.cpp's rotary order. Rows of a head go from a0 b0 a1 b1 … to a0 a1 … b0 b1 …; shape (out, in) stays."""
    pairs = weight.reshape(n_heads, -1, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _sizes(metadata: dict[str, Any]) -> dict[str, int]:
    d_head = metadata["llama.rope.dimension_count"]
    n_heads, n_key_value_heads = metadata["llama.attention.head_count"], metadata["llama.attention.head_count_kv"]
    return {
        "vocab": len(metadata["tokenizer.ggml.tokens"]),
        "d_model": metadata["llama.embedding_length"],
        "d_mlp": metadata["llama.feed_forward_length"],
        "n_layers": metadata["llama.block_count"],
        "n_heads": n_heads,
        "n_key_value_heads": n_key_value_heads,
        "queries": n_heads * d_head,
        "keys": n_key_value_heads * d_head,
        "d_head": d_head,
    }


def hf_config(metadata: dict[str, Any]) -> dict[str, Any]:
    """The contents of config.json."""
    size = _sizes(metadata)
    theta = metadata["llama.rope.freq_base"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": size["vocab"],
        "hidden_size": size["d_model"],
        "intermediate_size": size["d_mlp"],
        "num_hidden_layers": size["n_layers"],
        "num_attention_heads": size["n_heads"],
        "num_key_value_heads": size["n_key_value_heads"],
        "head_dim": size["d_head"],
        "max_position_embeddings": metadata["llama.context_length"],
        # Stored as float32: back to the short decimal that was meant, 1e-05.
        "rms_norm_eps": float(str(np.float32(metadata["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_theta": theta,  # read by transformers 4
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},  # read by transformers 5
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        # What to compute in, not what is stored: without it transformers 5 would compute in the file's fp16.
        "dtype": "float32",
        **_special_ids(metadata),
    }


def hf_tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    """SmolLM2's tokenizer: byte-level BPE as in GPT-2, but every digit is a token of its own."""
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = metadata["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def hf_tokenizer_config(metadata: dict[str, Any]) -> dict[str, Any]:
    """The contents of tokenizer_config.json, with the chat template."""
    tokens = metadata["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]] for name, key in SPECIAL_TOKENS.items()},
        "model_max_length": metadata["llama.context_length"],
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "chat_template": metadata["tokenizer.chat_template"],
    }


SPECIAL_TOKENS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # Hugging Face's name -> GGUF's


def _special_ids(metadata: dict[str, Any]) -> dict[str, int]:
    names = ("bos", "eos", "pad")
    return {f"{name}_token_id": metadata[f"tokenizer.ggml.{SPECIAL_TOKENS[name]}_token_id"] for name in names}


def _write_json(path: Path, contents: dict[str, Any]) -> None:
    path.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")

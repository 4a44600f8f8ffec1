"""Turn a small Llama-architecture GGUF file into the files of a folder that `transformers` loads by itself.

llama.cpp's own package `gguf` reads the file and dequantises the weights. Then three things differ: the weights' names,
the order of the rows of the query and key projections (llama.cpp interleaves each rotary pair, Hugging Face keeps the
halves apart), and the tokenizer, which GGUF holds as bare lists. It is built here because `transformers`' own GGUF reader
gives SmolLM2 a wrong one: it does not split digits one by one and adds special tokens of another model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

# GGUF's name -> Hugging Face's, after "model." or "model.layers.7.".
NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
SPECIAL_TOKENS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # Hugging Face's name -> GGUF's
CONTROL_TOKEN = 3  # the GGUF token type of special tokens


def hf_files(gguf_file: Path) -> dict[str, bytes]:
    """Weights (fp16), config and tokenizer of a GGUF model with tied embeddings: file name -> contents."""
    from gguf import GGUFReader, dequantize  # here, because it imports every tokenizer library that it finds

    reader = GGUFReader(gguf_file)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    rotary = {"attn_q": metadata["llama.attention.head_count"], "attn_k": metadata["llama.attention.head_count_kv"]}
    half = {}
    for tensor in reader.tensors:
        *block, part, _ = tensor.name.split(".")  # blk.7.attn_q.weight, output_norm.weight
        weight = dequantize(tensor.data, tensor.tensor_type)
        if part in rotary:
            weight = halves_apart(weight, n_heads=rotary[part])
        place = f"model.layers.{block[1]}" if block else "model"
        half[f"{place}.{NAMES[part]}.weight"] = weight.astype(np.float16)
    return {
        "model.safetensors": save(half, metadata={"format": "pt"}),
        "tokenizer.json": f"{hf_tokenizer(metadata).to_str(pretty=True)}\n".encode(),
        "tokenizer_config.json": _json(hf_tokenizer_config(metadata)),
        "config.json": _json(hf_config(metadata)),
        "generation_config.json": _json(_special_ids(metadata)),
    }


def halves_apart(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Undo llama.cpp's rotary order. Rows of a head go from a0 b0 a1 b1 … to a0 a1 … b0 b1 …; shape (out, in) stays."""
    pairs = weight.reshape(n_heads, -1, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def hf_config(metadata: dict[str, Any]) -> dict[str, Any]:
    """The contents of config.json."""
    theta = metadata["llama.rope.freq_base"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": metadata["llama.rope.dimension_count"],
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
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
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


def _special_ids(metadata: dict[str, Any]) -> dict[str, int]:
    names = ("bos", "eos", "pad")
    return {f"{name}_token_id": metadata[f"tokenizer.ggml.{SPECIAL_TOKENS[name]}_token_id"] for name in names}


def _json(contents: dict[str, Any]) -> bytes:
    return f"{json.dumps(contents, indent=2)}\n".encode()

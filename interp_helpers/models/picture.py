"""A model as a picture in text: the stream runs down, and beside each component stands what its module is called in this model."""

from __future__ import annotations

import re


def picture(anatomy) -> str:
    """
    >>> print(lm.anatomy)
    LlamaForCausalLM: 30 blocks, d_model 576
    model.embed_tokens
    │
    │ model.layers.0 to 29
    │ block_input
    ├ self_attn                 attention_input → attention_weight
    ├ self_attn.o_proj          attention_value_output (9 heads of 64) → attention_output
    ├ self_attn.q_proj          → query_output (9 heads of 64)
    ├ self_attn.k_proj          → key_output (3 heads of 64)
    ├ self_attn.v_proj          → value_output (3 heads of 64)
    │ block_middle
    ├ mlp                       mlp_input →
    ├ mlp.down_proj             mlp_activation → mlp_output
    │ block_output
    │
    model.norm
    lm_head → logits
    """
    drawn: dict[str, list[int]] = {}
    for layer in range(anatomy.n_layers):
        rows: dict[str, tuple[list[str], list[str]]] = {}
        for component, part in anatomy.parts(layer).items():
            shape = f" ({part.shape[0]} heads of {part.shape[1]})" if len(part.shape) > 1 else ""
            if part.side == "stream":
                rows["│"] = [], [component]
                continue
            name = part.name.removeprefix(f"{anatomy.names['blocks']}.{layer}").lstrip(".")
            rows.setdefault(name, ([], []))[part.side != "input"].append(component + shape)
        rows.pop("", None)  # the block itself
        lines = [f"├ {name:<25} {' → '.join(map(', '.join, sides)).strip()}" for name, sides in rows.items()]
        lines = [re.sub("├ │ +→", "│", line) for line in lines]
        drawn.setdefault("\n".join(["│ block_input", *lines, "│ block_output"]), []).append(layer)
    blocks = [f"│ {anatomy.names['blocks']}.{ranges(layers)}\n{block}" for block, layers in drawn.items()]
    names = {module: name for name, module in anatomy.model.named_modules()}
    begin = f"{type(anatomy.model).__name__}: {anatomy.n_layers} blocks, d_model {anatomy.d_model}\n{names[anatomy.embedding]}"
    return "\n│\n".join([begin, *blocks, "\n".join([*anatomy.names["tail"], f"{anatomy.names['head']} → logits"])])


def ranges(numbers: list[int]) -> str:
    """Ascending numbers in few words.

    >>> ranges([0, 1, 2, 4])
    '0 to 2, 4'
    """
    starts = [i for i in numbers if i - 1 not in numbers]
    ends = [i for i in numbers if i + 1 not in numbers]
    return ", ".join(f"{a} to {b}" if b > a else f"{a}" for a, b in zip(starts, ends, strict=True))

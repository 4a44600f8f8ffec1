"""The plain way, against which the package is tested: PyTorch hooks on GPT-2's modules, written out, and a snapshot of
everything that an experiment must leave as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

# GPT-2: the module, whether its input or its output is meant, and which features of it (of 32; the MLP has 128).
GPT2_PLACES = {
    "block_input": ("", "input", slice(None)),
    "block_middle": ("ln_2", "stream", slice(None)),
    "block_output": ("", "output", slice(None)),
    "attention_input": ("attn", "input", slice(None)),
    "attention_output": ("attn", "output", slice(None)),
    "attention_value_output": ("attn.c_proj", "input", slice(None)),
    "query_output": ("attn.c_attn", "output", slice(0, 32)),
    "key_output": ("attn.c_attn", "output", slice(32, 64)),
    "value_output": ("attn.c_attn", "output", slice(64, 96)),
    "mlp_input": ("mlp", "input", slice(None)),
    "mlp_activation": ("mlp.c_proj", "input", slice(None)),
    "mlp_output": ("mlp", "output", slice(None)),
}
EDITABLE = tuple(GPT2_PLACES)


@contextmanager
def hooked(lm, component: str, layer: int, change: Callable[[Tensor], None]):
    """A plain hook on a tiny GPT-2: `change` writes to the features (batch, column, features) of one component."""
    path, side, features = GPT2_PLACES[component]
    module = lm.model.transformer.h[layer].get_submodule(path)

    def changed(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        change(tensor[..., features])
        return tensor

    def before(module, args, kwargs):
        if side == "stream":  # the block adds to the same tensor
            change(args[0][..., features])
            return None
        if args:
            return (changed(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": changed(kwargs["hidden_states"])}

    def after(module, args, output):
        return (changed(output[0]), *output[1:]) if isinstance(output, tuple) else changed(output)

    if side != "output":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def seen(lm, prompt: str, component: str, layer: int) -> Tensor:
    """What passes a component while the model reads one prompt: (1, position, features)."""
    kept = []
    with hooked(lm, component, layer, lambda h: kept.append(h.clone())):
        run(lm, prompt)
    return kept[0]


def run(lm, prompt: str, *changes: tuple[str, int, Callable]) -> Tensor:
    """Logits (1, position, vocab) of one prompt, under changes (component, layer, function that writes to h)."""
    ids = torch.tensor([lm.tokenizer(prompt)["input_ids"]])
    with ExitStack() as stack, torch.no_grad():
        for change in changes:
            stack.enter_context(hooked(lm, *change))
        return lm.model(ids).logits


def greedy(lm, prompt: str, new_tokens: int, *changes: tuple[str, int, Callable]) -> str:
    """The likeliest continuation, one token after another, each from a run over the whole text so far."""
    ids = lm.tokenizer(prompt)["input_ids"]
    start = len(ids)
    with ExitStack() as stack, torch.no_grad():
        for change in changes:
            stack.enter_context(hooked(lm, *change))
        for _ in range(new_tokens):
            ids.append(int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == lm.tokenizer.eos_token_id:
                break
    return lm.tokenizer.decode(ids[start:], skip_special_tokens=True)


def snapshot(lm) -> dict:
    """Weights, hooks, configuration and mode of a model, to compare before and after."""
    return {"weights": {name: tensor.clone() for name, tensor in _weights(lm).items()}, **_state(lm)}


def _weights(lm) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in (*lm.model.named_parameters(), *lm.model.named_buffers())}


def _state(lm) -> dict:
    modules = dict(lm.model.named_modules())
    return {
        "hooks": {name: _hooks(module) for name, module in modules.items()},
        "forward": {name: module.__dict__.get("forward") for name, module in modules.items()},
        "training": [name for name, module in modules.items() if module.training],
        "requires_grad": [name for name, p in lm.model.named_parameters() if p.requires_grad],
        "grads": [name for name, p in lm.model.named_parameters() if p.grad is not None],
        "config": lm.model.config.to_dict(),
        "config's own": dict(vars(lm.model.config)),
        "attention": lm.model.config._attn_implementation,
        "output_attentions": lm.model.config.output_attentions,
        "running": dataclasses.replace(lm.running, interventions=list(lm.running.interventions)),
        "grad_enabled": torch.is_grad_enabled(),
    }


def _hooks(module) -> dict[str, list]:
    """All but transformers' own, which it puts in for good when it is first asked for hidden states or attention."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    found = {kind: getattr(module, kind).items() for kind in kinds}
    return {
        kind: [(n, f) for n, f in all if not f.__module__.startswith("transformers.")] for kind, all in found.items()
    }


def assert_untouched(lm, before: dict) -> None:
    """The model is bit for bit what it was."""
    weights, now = _weights(lm), _state(lm)
    assert weights.keys() == before["weights"].keys()
    for name, tensor in before["weights"].items():
        assert torch.equal(weights[name], tensor), name
    for part in now:
        assert now[part] == before[part], part


def close(ours: Tensor, theirs: Tensor, atol: float = 2e-5) -> None:
    """Equal, up to the noise of float32."""
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-5)


def act_at_column(mlp, column: int) -> None:
    """An MLP adds a vector at one column of the sequence, as adapters and editing methods do (GRACE, SERAC)."""
    forward = mlp.forward

    def edited(stream: Tensor) -> Tensor:
        out = forward(stream).clone()
        if out.shape[1] > column:
            out[:, column] += torch.linspace(-1, 1, out.shape[-1])
        return out

    mlp.forward = edited

"""Where a model keeps its parts: found by watching it run, and proved before they are offered.

The field's names (`block_output`, `mlp_input`, …) mean the same in every transformer; the modules behind them are
called `transformer.h.3.mlp.c_proj` in one and `model.layers.3.mlp.down_proj` in the next. `Anatomy` has no table of them. It
runs the model on a few tokens, looks at what every module is given and returns, and makes experiments:

- The *blocks* are a list of modules that are each called once, where what leaves one is what enters the next.
- In a block, *attention* is the module through which a token's output depends on earlier tokens: the block is given the same tokens
  twice, the first of them changed. The *MLP* is the last of the others that has matrices. What they write is proved to be added to the
  stream: block_output is block_input and both of these, summed, each scaled or normed as may be.
- *Heads* are told by turning signs; `heads` describes the experiment.

What isn't proved on this model is refused when it is asked for, in one sentence, and the rest works. Names are remembered, not modules:
these are looked up when they are used, and where a block has other modules than those of the proof, it is made again.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from .experiments import TOKENS, Heads, Part, Turning, Watch, close, hypotheses, middles, parts_of, same
from .pattern import looking_at, nobody_looking, shown_attention
from .picture import picture

PER_HEAD = ("attention_value_output", "query_output", "key_output", "value_output")
COMPONENTS = (
    *("block_input", "block_output", "attention_input", "attention_output", *PER_HEAD, "attention_weight"),
    *("block_middle", "mlp_input", "mlp_activation", "mlp_output"),
)
TRIES = 8  # in how many places heads are looked for
# Shares of the vocabulary: words, mostly.
PROMPTS = torch.tensor([[0.11, 0.23, 0.37, 0.53, 0.61], [0.47, 0.29, 0.41, 0.17, 0.34]])


@dataclass(frozen=True)
class Place:
    """One component of one block: the module to hook, which side of it, and the shape of an activation there.

    `side` is "input", "output", "stream" (an input, edited in place since it is added to later), or "pattern", of which `view` makes
    (batch, query, head, key).
    `shape` is (d,), (heads, d_head) for a per-head component, or (heads,) for the pattern; `view` turns what passes through the module,
    (batch, position, features), into (batch, position, *shape) without copying, so that writing to the view writes
    to the original.
    """

    module: nn.Module
    side: str
    shape: tuple[int, ...]
    view: Callable[[Tensor], Tensor]


def by_query(pattern: Tensor) -> Tensor:
    return pattern.transpose(1, 2)


class Anatomy:
    """The parts of one loaded model, by the field's names. `print` shows them.

    Args:
        model: a causal language model of the transformers library. On the meta device its blocks are found, and nothing proved.

    Raises:
        ValueError: no chain of blocks is seen when the model runs.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._config = model.config.get_text_config()
        self._watch()
        names = ("decoder_attention_heads", "num_attention_heads")
        self.n_heads = next((n for name in names if isinstance(n := getattr(self._config, name, None), int)), 0)
        self.n_key_value_heads = getattr(self._config, "num_key_value_heads", None) or self.n_heads
        widths = (getattr(self._config, name, None) for name in ("intermediate_size", "n_inner", "ffn_dim"))
        self.d_mlp = max((d for d in widths if isinstance(d, int)), default=4 * self.d_model)  # about, for its memory
        widths = map(self._config.to_dict().get, ("v_head_dim", "head_dim"))
        self.d_head = next(filter(None, widths), None) or self.d_model // max(self.n_heads, 1)

    # -- the model's ends, and its blocks ---------------------------------------------------------------------------

    @property
    def blocks(self) -> list[nn.Module]:
        with suppress(AttributeError):
            if isinstance(blocks := self.model.get_submodule(self.names["blocks"]), nn.ModuleList):
                return list(blocks)
        self._watch()  # somebody took the model apart, or wrapped it
        return list(self.model.get_submodule(self.names["blocks"]))

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def norm(self) -> nn.Module:
        """The final norm: what stands between the last block and the unembedding."""
        tail = [self.model.get_submodule(name) for name in self.names["tail"]]
        return tail[0] if len(tail) == 1 else nn.Sequential(*tail)

    @property
    def embedding(self) -> nn.Module:
        return self.model.get_input_embeddings()

    @property
    def unembedding(self) -> nn.Module:
        return self.model.get_submodule(self.names["head"])

    def unembed(self, stream: Tensor, norm: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Logits (…, vocab) of a residual stream (…, d_model): the final norm (or what stands in for it), then the unembedding.

        Raises:
            ValueError: the model makes its logits of the last stream in another way.
        """
        if None in (self._scale, self.logit_scale):
            raise ValueError(
                f"The stream can't be unembedded: this model's logits aren't those of its unembedding, scaled, after {self.names['tail']}."
            )
        weight = self.unembedding.weight
        dtype = weight.dtype if weight.is_floating_point() else stream.dtype  # the model's own precision
        normed = self.norm(stream.to(dtype)) if norm is None else norm(stream).to(dtype)
        logits = self.unembedding(normed if self._scale == 1 else normed * self._scale)
        logits = logits if self.logit_scale == 1 else logits * self.logit_scale
        return logits if self.softcap is None else self.softcap * (logits / self.softcap).tanh()

    def place(self, component: str, layer: int) -> Place:
        """The place of a component in block `layer` (counted from 0).

        Raises:
            ValueError: it isn't proved to be there; the sentence says what was tried.
        """
        part = self._part(component, layer)
        if isinstance(part, str):
            kind = type(self.model).__name__
            raise ValueError(f"{component!r} isn't offered in block {layer} of this {kind}: {part}.")
        return Place(self.model.get_submodule(part.name), part.side, part.shape, part.view)

    def offers(self, component: str, layer: int) -> bool:
        """Is the component proved to be there?"""
        return isinstance(self._part(component, layer), Part)

    def parts(self, layer: int) -> dict[str, Part]:
        """All that is offered of a block: where each component is."""
        return {c: self._part(c, layer) for c in COMPONENTS if self.offers(c, layer)}

    def __repr__(self) -> str:
        return picture(self)

    # -- watching ---------------------------------------------------------------------------------------------------

    def _part(self, component: str, layer: int) -> Part | str:
        """Where a component is or, if that isn't proved, why."""
        if not self._is_known(layer):
            self._examine()
        if component not in self._known[layer][1]:
            examine = {"attention_weight": self._examine_patterns, "block_middle": self._examine_middles}
            examine.get(component, self._examine_heads)()
        return self._known[layer][1][component]

    def _is_known(self, layer: int) -> bool:
        """Are the block's modules those that its parts were proved on?"""
        modules = list(self.blocks[layer].modules())
        proved_on, _ = self._known.get(layer, ((), {}))
        return len(proved_on) == len(modules) and all(r() is m for r, m in zip(proved_on, modules, strict=True))

    def _run(self, prompts: Tensor, change=lambda *_: None, names=None) -> Watch:
        device = self.embedding.weight.device
        if device.type == "meta" and hasattr(self.embedding, "_hf_hook"):  # offloaded
            device = torch.device(self.embedding._hf_hook.execution_device)
        ids = (prompts * self._config.vocab_size).long().to(device)
        # On the meta device, the masks of the fused kernels can't be made.
        with shown_attention(self.model) if ids.is_meta else nullcontext():
            return Watch(self.model, ids, change, names)

    def _streams(self, tokens: int) -> Tensor:
        """(1, token, d_model), for blocks to be tried with: in the late ones, a prompt's own tokens may all look alike."""
        return torch.randn(1, tokens, self.d_model, generator=torch.Generator().manual_seed(0))

    @nobody_looking()
    def _watch(self) -> None:
        """Find the chain of blocks, and what turns the stream that leaves it into logits."""
        self._known: dict[int, tuple[list[weakref.ref], dict]] = {}
        run = self._run(PROMPTS[:1])
        modules = dict(self.model.named_modules())
        lists = {name: len(m) for name, m in modules.items() if isinstance(m, nn.ModuleList) and len(m)}
        chains = {name: n for name, n in lists.items() if run.chained([f"{name}.{i}" for i in range(n)])}
        if not chains:
            raise ValueError(
                f"No residual stream was found in this {type(self.model).__name__}: when it runs, there is no list of modules of which each "
                "is called once and given what the one before returned, (batch, position, d_model)."
            )
        name = max(chains, key=chains.get)
        last = f"{name}.{chains[name] - 1}"
        stream, logits = run.out_of(last), run.out_of("")
        self.d_model = stream.shape[-1]
        module = self.model.get_output_embeddings()
        head = next(n for n in modules if (modules[n] is module if module else n and same(run.out_of(n), logits)))
        tail = []  # one after the other, each is given what the one before returned
        for n, side in run.order[run.order.index((last, "output")) :]:
            if side == "input" and not f"{head}.".startswith(f"{n}.") and same(run.into(n), stream):
                tail.append(n)
                stream = run.out_of(n)
        self.names = {"blocks": name, "tail": tail, "head": head}
        first, weight = run.into(f"{name}.0"), self.embedding.weight.detach()
        entered = None if weight.is_meta else weight[run.ids].to(first)
        self.embedding_scale = self._ratio(entered, first) or 1  # Gemma; Granite
        self._scale, made = self._ratio(stream, run.into(head)), run.out_of(head)
        self.softcap, self.logit_scale = getattr(self._config, "final_logit_softcapping", None), 1
        if not self.softcap or not (made.is_meta or close(self.softcap * (made / self.softcap).tanh(), logits)):
            self.softcap, self.logit_scale = None, self._ratio(made, logits)

    def _ratio(self, of: Tensor, to: Tensor) -> float | None:
        """What a tensor is multiplied by to make another: 1, a number of the configuration or another; None where they differ otherwise."""
        if of is None or to is None or of.shape != to.shape:
            return None
        scale, divisor = (getattr(self._config, name, None) or 1 for name in ("logit_scale", "logits_scaling"))
        if of.is_meta:
            return scale / divisor
        measured = float((of * to).float().sum() / (of * of).float().sum())
        return next((x for x in (1, scale, 1 / divisor, measured) if close(of * x, to)), None)

    # -- the parts of a block ---------------------------------------------------------------------------------------

    @nobody_looking()
    def _examine(self) -> None:
        """Find and prove the parts of every block but its heads."""
        blocks = {f"{self.names['blocks']}.{i}": block for i, block in enumerate(self.blocks)}
        last = [*blocks][-1]

        streams = self._streams(5).repeat(2, 1, 1)
        streams[1, 0] = streams[1, 2]

        def change(name: str, side: str, tensor: Tensor) -> Tensor | None:
            """Blocks are given two streams that differ in the first token, and what follows the last one the same stream twice."""
            if side == "input":
                return streams.to(tensor) if name in blocks else None
            return tensor[:1].repeat(2, 1, 1) if name == last else None

        run = self._run(PROMPTS, change)
        logits = run.out_of("")
        for layer, (name, block) in enumerate(blocks.items()):
            found: dict = {"attention": None, "heads": None}
            if logits.is_meta:
                found |= dict.fromkeys(COMPONENTS, "its weights are on the meta device, where nothing can be proved")
            elif not close(logits[0], logits[1]):
                found |= dict.fromkeys(COMPONENTS, "one stream after the last block gave different logits in two runs")
            else:
                found |= parts_of(run, name)
            self._known[layer] = [weakref.ref(module) for module in block.modules()], found

    @nobody_looking()
    def _examine_heads(self) -> None:
        """Find and prove each block's heads: the queries first, which tell how many there are, then keys and values."""
        if not all(map(self._is_known, range(self.n_layers))):
            self._examine()
        for components in (("query_output",), ("key_output", "value_output")):
            tries = {}
            for layer, (_, parts) in self._known.items():
                for component in components:
                    why = f"{parts['attention'] or 'nothing in it'} wasn't found to attend by heads that a projection in it gives"
                    parts[component] = why
                    tries[layer, component] = islice(self._hypotheses(component, parts), TRIES)
            while now := {key: found for key, left in tries.items() if (found := next(left, None))}:
                for layer, component in self._turned(components, now):
                    name, heads, _ = now[layer, component]
                    self._known[layer][1][component] = Part(name, "output", (heads.n, heads.d), heads)
                    tries[layer, component] = iter(())
        for _, parts in self._known.values():
            query = parts["attention_value_output"] = parts["query_output"]
            if isinstance(query, Part):
                out, width, _ = parts["heads"]
                heads = Heads.of(width, query.shape[0])
                parts["attention_value_output"] = Part(out, "input", (heads.n, heads.d), heads)

    @nobody_looking()
    def _examine_middles(self) -> None:
        """Prove the stream between attention and MLP."""
        blocks = {f"{self.names['blocks']}.{layer}": parts for layer, (_, parts) in self._known.items()}
        twice, streams = PROMPTS[:1].repeat(2, 1), self._streams(PROMPTS.numel()).view(*PROMPTS.shape, -1)
        for name, found in middles(lambda *how: self._run(twice, *how), blocks, streams).items():
            blocks[name]["block_middle"] = found

    def _examine_patterns(self) -> None:
        """Prove that attention is the function of `pattern`: that each block returns with it what it returns with its own."""
        names = {module: name for name, module in self.model.named_modules()}
        blocks = {f"{self.names['blocks']}.{i}": i for i in range(self.n_layers)}
        streams, shown, ours = self._streams(5), [], None

        def enter(name: str, side: str, tensor: Tensor) -> Tensor | None:
            return streams.to(tensor) if side == "input" else None

        with nobody_looking(), ExitStack() as stack:
            own = self._run(PROMPTS[:1], enter, blocks)
            for module, name in names.items():
                look = lambda pattern, name=name: shown.append((name, pattern.shape[1]))  # noqa: E731
                stack.enter_context(looking_at(module, look))
            with suppress(Exception), shown_attention(self.model):  # what such a function can't do, a model may need
                ours = self._run(PROMPTS[:1], enter, blocks)
        for block, layer in blocks.items():
            here = [(name, heads) for name, heads in shown if name.startswith(f"{block}.")]
            found = f"{self._known[layer][1]['attention'] or 'nothing in it'} doesn't leave its pattern to transformers' attention function"
            if ours and len(here) == 1 and close(own.out_of(block), ours.out_of(block)):
                found = Part(here[0][0], "pattern", here[0][1:], by_query)
            self._known[layer][1]["attention_weight"] = found

    def _hypotheses(self, component: str, parts: dict) -> Iterator[tuple[str, Heads, int]]:
        """Where a component's heads may be, and how many heads attend."""
        query = parts["query_output"]
        if not parts["heads"] or (component != "query_output" and isinstance(query, str)):
            return
        _, width, projections = parts["heads"]
        numbers = [] if isinstance(query, str) else query.shape[:1]
        if not numbers:  # something in the attention knows it, and wrong numbers don't pass
            told = [vars(module).items() for module in self.model.get_submodule(parts["attention"]).modules()]
            told = (n for each in told for key, n in each if re.search("heads|n_head$", key) and type(n) is int)
            numbers = [self.n_heads, *told]
        for n in dict.fromkeys(n for n in numbers if n > 0 and width % n == 0):
            for name, heads in hypotheses(component, n, width // n, projections):
                yield name, heads, n

    def _turned(self, components: tuple[str, ...], now: dict) -> list[tuple[int, str]]:
        """For which (layer, component) the heads that are supposed now act as they should."""
        turning = Turning(components, max(heads.n for _, heads, _ in now.values()))
        blocks = {f"{self.names['blocks']}.{i}" for i in range(self.n_layers)}
        outs = {layer: self._known[layer][1]["heads"][0] for layer, _ in now}
        streams = self._streams(TOKENS).repeat(turning.rows, 1, 1)

        def turn(name: str, side: str, tensor: Tensor) -> Tensor | None:
            if side == "input":
                return streams.to(tensor) if name in blocks else None
            tensor = tensor.clone()
            for (_, component), (projection, heads, _) in now.items():
                if projection == name:
                    turning.turn(tensor.view(turning.rows, TOKENS, -1), component, heads)
            return tensor

        watched = {*blocks, *outs.values(), *(name for name, _, _ in now.values())}
        run = self._run(PROMPTS[:1, :TOKENS].repeat(turning.rows, 1), turn, watched)
        return [
            (layer, component)
            for (layer, component), (_, heads, n) in now.items()
            if turning.passed(run.into(outs[layer]), component, heads, n)
        ]

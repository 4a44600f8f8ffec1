"""Look inside a transformer while it runs, and change what you find there.

A transformer is a residual stream that its blocks read from and write to. Every experiment in this course is one
sentence: at these **sites** apply these **edits** while the model runs on this prompt, and measure.

    acts = record(lm, "The Eiffel Tower is in the city of", "block_output")          # look
    site = Site("block_output", layer=8, positions=-1)
    with intervene(lm, replace(site, acts)):                                         # edit
        logits = lm("The Colosseum is in the city of")                               # measure

Replacing what one run computed by what another run computed is an *interchange intervention* (Geiger et al. 2021),
or *activation patching*. PyTorch offers the means: a *hook* is a function that it calls whenever data passes through
a module, and whatever the hook returns takes the data's place. This file is those hooks and little else: look (`record`)
and edit (`intervene`). Where is a `Site`, in `sites.py`; the edits, a formula each, are in `edits.py`; what was
recorded is an `Activations`, in `activations.py`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from .activations import Activations
from .models import ALONE, Layout, Place, Spots, as_written, looking_at, shown_attention
from .sites import Site

# ---------------------------------------------------------------------------------------------------------------------
# Look


def record(lm, prompts, *what: Site | str, grad: bool = False) -> Activations:
    """Run the model and keep what passes through some sites; nothing is changed.

    >>> acts = record(lm, base, "block_output", Site("attention_weight", 4))
    >>> acts["block_output", 8].shape  # prompts, tokens, d_model
    torch.Size([1, 9, 576])
    >>> acts["attention_weight", 4].shape  # prompts, heads, queries, keys
    torch.Size([1, 9, 9, 9])

    Args:
        lm: a `LanguageModel`.
        prompts: as `lm` takes them.
        what: sites, or names of components, which stand for all layers. (Whole rows are kept, whatever a site's
            positions: they count when you read `acts[site]`.)
        grad: keep the graph, for gradients with respect to the activations; otherwise they are detached copies.

    Raises:
        ValueError: nothing to record, an unknown component or layer.
    """
    layers = range(lm.n_layers)
    sites = [site for item in what for site in ([item] if isinstance(item, Site) else [Site(item, i) for i in layers])]
    if not sites:
        raise ValueError('record needs to be told what: a component such as "block_output", or sites.')
    places = {(site.component, site.layer): site.place(lm) for site in sites}
    last = "block_output", lm.n_layers - 1
    hooked = {last: Site(*last).place(lm)} | places
    tokens = lm.tokens(prompts)
    if any(tokens.moved):
        warnings.warn(
            f"The prompts are padded on the left, and a record has its padding on the right: rows are moved by {list(tokens.moved)} "
            "columns. A site's positions count each row's own tokens: acts[Site(component, layer, positions=-1)] are their last ones.",
            stacklevel=2,
        )
    layout = Layout(tokens.attention_mask)
    values: dict[tuple[str, int], Tensor] = {}

    def keep(key: tuple[str, int], place: Place) -> Callable[[Tensor], Tensor | None]:
        def look(tensor: Tensor) -> Tensor | None:
            pattern = place.side == "pattern"
            seen = tensor if pattern else place.view(layout.batched(tensor))
            values[key] = seen if grad else seen.detach().clone()
            if pattern or not grad:
                return None
            seen.requires_grad_()  # also where a model's weights are frozen
            result = tensor.clone()  # gradients reach what was kept if what goes on is made of it
            place.view(layout.batched(result)).copy_(seen)
            return result

        return look

    with ALONE, ExitStack() as stack:
        if any(place.side == "pattern" for place in places.values()):
            stack.enter_context(shown_attention(lm.model))
        for key, place in hooked.items():
            stack.enter_context(hooked_at(place, keep(key, place)))
        next_token_logits = lm.next_token_logits(tokens, grad=grad)
    stream = values[last] if last in places else values.pop(last)

    # The unembedding is a third of a small model's work, and a fourth of its memory: done when asked for.
    @cache
    def logits() -> Tensor:
        found = lm.unembed(stream, grad=grad)
        ends = found[torch.arange(len(found)), torch.tensor(layout.lengths) - 1]
        if not torch.allclose(ends, next_token_logits, atol=1e-3, rtol=1e-2, equal_nan=True):
            raise RuntimeError(
                f"{lm.name} doesn't end in its final norm and unembedding alone, or has changed since the run was recorded, so the "
                "run's logits at every position aren't known: take them from lm(prompts)."
            )
        return found

    return Activations(values, logits, next_token_logits, layout)


# ---------------------------------------------------------------------------------------------------------------------
# Edit


@dataclass(frozen=True)
class Edit:
    """A change to make at a site. `prepare(shape, spots)` is called before the model runs: it refuses what doesn't fit, and
    returns the function from the activations there, (n, *shape), to those that take their place."""

    name: str
    site: Site
    prepare: Callable[[tuple[int, ...], Spots], Callable[[Tensor], Tensor]]

    def __repr__(self) -> str:
        return f"{self.name}({self.site})"


@contextmanager
def intervene(lm, *edits: Edit) -> Iterator[None]:
    """While the `with` block lasts, every run of the model is edited; afterwards the model is as it was.

    >>> acts = record(lm, source, "block_output")
    >>> site = Site("block_output", 8, positions=lm.find(base, "Colosseum"))
    >>> with intervene(lm, replace(site, acts), zero(Site("mlp_output", 25))):
    ...     lm.top(base, 1)[0][0]  # or lm(base), lm.generate(base), record(lm, base, …)
    ' Paris'
    >>> lm.top(base, 1)[0][0]  # the model is as it was
    ' Rome'

    Edits apply in the order given; blocks nest, and an inner block's edits come after an outer's. Positions name
    places in the prompt: under `lm.generate` those edits apply while the prompt is read, and never to new tokens,
    whereas `positions=None` means the prompt and every new token. What `intervene` returns is entered once.

    Raises:
        ValueError: before the model runs, where an edit doesn't fit the model or the prompts.
        RuntimeError: where a part of the model is called by itself; on leaving, where an edit was never applied: the model was
            not run, or a cache held the prompt already.
    """
    if not edits or not all(isinstance(edit, Edit) for edit in edits):
        raise ValueError(f"intervene takes one or more edits, such as replace(site, acts), and got {edits!r}.")
    fired: set[int] = set()
    met: set[int] = set()  # edits whose place a run has come by
    # Of each run that is under way, its rows, beams a prompt, places and changes: what one run has never serves another.
    running: list[dict[int, tuple[Layout, int, Spots, Callable]]] = []
    has_run = False

    def before_the_run(model, args, kwargs) -> None:
        nonlocal has_run
        has_run = True
        running.append(ready := {})
        whole = Layout.of_call(dict(zip(parameters, args, strict=False)) | kwargs, lm.running.prompt_width)
        rows = len(whole.lengths)
        beams = rows // (lm.running.prompt_rows or rows)
        layout = whole.take(range(0, rows, beams))  # one row a prompt, however many beams
        for i, (edit, place) in enumerate(zip(edits, places, strict=True)):
            if edit.site.positions is not None and layout.past:
                continue  # the prompt has been read already
            spots = layout.spots(edit.site.positions)
            shape = place.shape if edit.site.heads is None else (len(edit.site.head_list), *place.shape[1:])
            if place.side == "pattern":
                shape = (*shape, whole.mask.shape[1])  # the keys
            ready[i] = whole, beams, spots, edit.prepare(shape, spots)

    def after_the_run(model, args, output) -> None:
        del running[-1:]

    def change(i: int, edit: Edit, place: Place) -> Callable[[Tensor], Tensor | None]:
        def look(tensor: Tensor) -> Tensor | None:
            if not running:
                raise RuntimeError(
                    f"{edit} is met outside a run of the whole model, so which tokens these are isn't known: inside `intervene` call "
                    "lm(prompt), or lm.model(…) itself, and not its forward, a part of it or what is wrapped around it."
                )
            met.add(i)
            if i not in running[-1]:
                return None
            layout, beams, spots, new_value = running[-1][i]
            result = tensor.clone()  # others may hold on to the original
            view = place.view(result if place.side == "pattern" else layout.batched(result))
            for beam in range(beams):
                where = (spots.rows * beams + beam, spots.columns)
                if edit.site.heads is not None:
                    where = (where[0][:, None], where[1][:, None], torch.tensor(edit.site.head_list))
                view[where] = new_value(view[where]).to(view)
            fired.add(i)
            return result

        return look

    with ExitStack() as stack:
        stack.enter_context(ALONE)
        places = [edit.site.place(lm) for edit in edits]
        parameters = list(inspect.signature(type(lm.model).forward).parameters)[1:]
        stack.enter_context(as_written())
        if any(place.side == "pattern" for place in places):
            stack.enter_context(shown_attention(lm.model))
        stack.enter_context(lm.model.register_forward_pre_hook(before_the_run, with_kwargs=True))
        stack.enter_context(lm.model.register_forward_hook(after_the_run, always_call=True))
        for i, (edit, place) in enumerate(zip(edits, places, strict=True)):
            stack.enter_context(hooked_at(place, change(i, edit, place)))
        lm.running.interventions.append(stack.close)
        stack.callback(lm.running.interventions.remove, stack.close)
        yield
    idle = [i for i in range(len(edits)) if i not in fired]
    if idle:
        if not has_run:
            why = f"{lm.name} wasn't run. Run it inside the `with` block: with intervene(lm, …): lm(prompt)"
        elif met.isdisjoint(idle):
            why = f"{lm.name} was run, and its run doesn't come by there: another function does that module's work"
        else:
            why = (
                "the cache held the prompt already, and an edit at positions acts while the prompt is read: let the run inside the "
                "`with` block read it"
            )
        raise RuntimeError(f"Never applied: {[edits[i] for i in idle]}; {why}.")


# ---------------------------------------------------------------------------------------------------------------------
# The plumbing, which a reader may skip


def hooked_at(place: Place, look: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Show `look` each tensor that passes a place; what it returns, unless None, goes on in the tensor's stead. The handle is
    a context manager, which removes the hook on leaving."""

    def on_input(module, args, kwargs):
        if args:
            new = look(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        new = look(kwargs["hidden_states"])
        return None if new is None else (args, kwargs | {"hidden_states": new})

    def on_output(module, args, output):
        # Blocks return a tensor in some models, and in others a tuple or a list that begins with it.
        if isinstance(output, Tensor):
            return look(output)
        new = look(output[0])
        return None if new is None else type(output)([new, *output[1:]])

    def on_stream(module, args, kwargs):  # the same tensor is added to later, and has to be the one that is edited
        stream = args[0] if args else kwargs["hidden_states"]
        new = look(stream.clone() if stream.requires_grad or torch.is_grad_enabled() else stream)
        if new is not None:
            stream.copy_(new)

    if place.side == "pattern":
        return looking_at(place.module, look)
    if place.side == "stream":
        return place.module.register_forward_pre_hook(on_stream, with_kwargs=True)
    if place.side == "input":
        return place.module.register_forward_pre_hook(on_input, with_kwargs=True)
    handle = place.module.register_forward_hook(on_output)
    hooks = place.module._forward_hooks
    for number, hook in list(hooks.items()):  # what transformers records (output_hidden_states) is what goes on
        if getattr(hook, "__module__", "").startswith("transformers."):
            hooks.move_to_end(number)
    return handle

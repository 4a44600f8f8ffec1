"""Exercises of notebook 01, activation patching."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...activations import Activations
from ...course import NotYet, exercise, require, require_attempted, require_number, short
from ...edits import mean_ablate, replace, zero
from ...hooks import intervene, record
from ...metrics import probability
from ...models import Layout
from ...sites import Site


@exercise("patching.site", number=1, title="Name the site", difficulty=1, minutes=4)
def _(answer, lm, base, subject):
    """
    - A site has a component, a layer and positions. The sentence in the task says all three in words.
    - Blocks and tokens are both counted from 0, so the first block is layer 0 and the ninth is …
    - `lm.find(base, subject)` is a range, and `[-1]` takes the last element of a range.
    """
    require(isinstance(answer, Site), f"the answer is a `Site(…)`, and you gave {short(answer)}")
    require(isinstance(answer.layer, int), f"`layer` is one number, and you gave {short(answer.layer)}")
    same = answer.component == "block_input" and answer.layer == 9  # what enters the tenth block has left the ninth
    if same:
        answer = Site("block_output", 8, answer.positions)
    require(answer.layer != 9, "layer 9 is the tenth block: blocks are counted from 0")
    require(answer.layer == 8, f"the ninth block was asked for, and layer {answer.layer} is number {answer.layer + 1}")
    require(
        answer.component != "block_input",
        "`block_input` is the residual stream *before* the block has written to it; what leaves the block was asked for",
    )
    require(
        answer.component == "block_output",
        f"`{answer.component}` is one part of the block; the whole residual stream leaving it was asked for",
    )
    require(answer.heads is None, "the residual stream has no heads")
    span, last = lm.find(base, subject), len(lm.str_tokens(base)) - 1
    require(answer.positions is not None, "`positions=None` names every token, and one was asked for")
    found = Layout(lm.tokens(base).attention_mask).spots(answer.positions).columns.tolist()
    require(found != [last], f"position {last} is the last token of the *prompt*; the subject ends earlier")
    require(len(found) == 1, f"{len(found)} tokens are named, and only the last one of {subject!r} was asked for")
    require(found != [span[-1] + 1], f"position {found[0]} is the token after {subject!r}: tokens are counted from 0")
    require(
        found == [span[-1]], f"position {found[0]} is {lm.str_tokens(base)[found[0]]!r}, not the end of {subject!r}"
    )
    told = "The ninth block, layer 8, at the last token of the subject."
    return told + " What enters the tenth block is the same stream." * same


def _handover(values: Tensor, subject: range) -> int | None:
    later = values[:, -1] > values[:, list(subject)].max(1).values
    return int(later.nonzero()[0]) if later.any() else None


@exercise("patching.handover", number=2, title="Where does the hand-over happen?", difficulty=2, minutes=8)
def _(answer, sweep, subject):
    """
    - Go through the layers from the first on, and return the first one where the condition holds.
    - `values[layer, -1]` is the last token's share at a layer; the subject's are `values[layer, i] for i in subject`.
    - `if values[layer, -1] > max(values[layer, i] for i in subject): return layer`, and `return None` after the loop.
    """
    require(callable(answer), f"the answer is your function `handover`, and you gave {short(answer)}")

    def ask(values: Tensor, span: range = range(1, 3)) -> int | None:
        found = require_attempted(answer(values, span))
        require(not isinstance(found, list | tuple), "you returned a list of layers: return the first one, a number")
        return None if found is None else int(require_number(found))

    # columns: a token before the subject, its two tokens, a token after it, the last token
    late = [[0, 0.9, 0.2, 0, 0], [0, 0.8, 0.05, 0, 0.1], [0, 0.1, 0, 0, 0.7], [0, 0, 0, 0, 1]]
    got = ask(torch.tensor(late))
    require(got is not None, "on a small test table your function returned None: is there a `return`?")
    require(
        0 <= got < len(late) or got != _handover(sweep.values, subject),
        f"you found layer {got} in a small test table of {len(late)} layers: read `values` and `subject`, not `sweep`",
    )
    require(
        got != 3,
        "in a small test table you found layer 3, which is one too late: its last token has the *largest* share there, and "
        "overtakes the subject at layer 2 (counted from 0); compare within each layer",
    )
    require(
        got != 1,
        "in a small test table you found layer 1, where the *first* token of the subject still has 0.8 and the last token "
        "of the prompt 0.1: it has to be larger than every token of the subject, at the layer that you return",
    )
    require(got == 2, f"in a small test table the last token overtakes the subject at layer 2, and you found {got}")
    got = ask(torch.tensor([[0, 0.1, 0.8, 0, 0.5], [0, 0.4, 0.4, 0.7, 0.6], [0, 0, 0.1, 0, 0.9]]))
    require(
        got != 0,
        "where the subject's *second* token carries the fact you found layer 0, not 1: take the best of all its tokens",
    )
    cases = (  # in all of them it is layer 1
        (
            [[0, 0.1, 0.8, 0, 0.5], [0, 0.4, 0.4, 0.7, 0.6], [0, 0, 0.1, 0, 0.9]],
            "where the last token has 0.6, the subject's two tokens 0.4 each, and a token after it 0.7",
            "compare the last token, at the same layer, with each token of the subject by itself, and with nothing else",
        ),
        (
            [[0, 0.8, 0.1, 0, 0.6], [0, 0.2, 0.1, 0, 0.3], [0, 0, 0, 0, 0.9]],
            "where the last token has 0.6, 0.3 and 0.9 and the subject's best 0.8, 0.2 and 0",
            "compare the two with each other, not with a fixed number",
        ),
        (
            [[0, 0.3, 0.1, 0, -0.6], [0, 0.2, -0.9, 0, 0.4], [0, 0, 0, 0, 1]],
            "where the last token has −0.6, then 0.4",
            "a negative share is smaller than 0, so leave its sign",
        ),
        (
            [[0, 0.9, 0.1, 0, 0.2], [0, 0.3, 0.1, 0, 0.4], [0, 0.5, 0.1, 0, 0.4], [0, 0.1, 0, 0, 0.9]],
            "where the last token leads at layer 1, falls behind at layer 2 and leads again at layer 3",
            "the *first* layer was asked for",
        ),
    )
    for values, where, because in cases:
        got = ask(torch.tensor(values))
        require(got == 1, f"{where}, you found {got}, not layer 1: {because}")
    never = torch.tensor([[0, 0.9, 0.2, 0, 0], [0, 0.5, 0.5, 0, 0.5]])
    try:
        got = ask(never)
    except (IndexError, StopIteration, ValueError) as error:
        raise NotYet(
            f"where the last token never has a *larger* share your function raised {type(error).__name__} ({error}): return None there"
        ) from None
    require(
        got is None, f"where the last token never has a *larger* share you found {got}, and `None` was to be returned"
    )
    truth = _handover(sweep.values, subject)
    if truth is None:
        return "On this model the last token never overtakes the subject for this pair."
    require(ask(sweep.values, subject) == truth, f"on the notebook's own sweep the answer is layer {truth}")
    return f"Layer {truth} is the first at which the last token has a larger share than every token of the subject."


@exercise("patching.everything", number=3, title="A finding that is none", difficulty=2, minutes=10)
def _(answer, lm, base, source, metric, subject, sweep):
    """
    - Three steps: `record` the source, `intervene` with `replace` while the base runs, and measure.
    - `metric(lm.next_token_logits(base))` is the start of the way, where the share is 0. The same for `source` is its end, where the share is 1.
    - Measure start and end before the `with`. Section 2 works one share out by hand; use `Site('block_output', layer, positions)`.
    """
    require(callable(answer), f"the answer is your function `recovered`, and you gave {short(answer)}")
    used = _names(getattr(answer, "__code__", None))
    require(
        "patch_sweep" not in used, "you called `patch_sweep`; write the patch with `record`, `intervene` and `replace`"
    )
    require(
        not used & {"sweep", "measured"}, "you looked the shares up; patch and measure when your function is called"
    )
    start, end = (float(metric(lm.next_token_logits(prompt))) for prompt in (base, source))
    acts = {at: record(lm, at, "block_output", "mlp_output", "attention_output") for at in (base, source)}
    middle = lm.n_layers // 2

    def truth(layer: int, positions, component="block_output", score=metric, first=None, into=base, of=source) -> float:
        ends = {at: start if at == base else end for at in (into, of)}
        if score is not metric:
            ends = {at: float(score(lm.next_token_logits(at))) for at in ends}
        begin, stop = ends[into], ends[of]
        layers = range(layer if first is None else first, layer + 1)
        with intervene(lm, *[replace(Site(component, i, positions), acts[of]) for i in layers]):
            return (float(score(lm.next_token_logits(into))) - begin) / ((stop - begin) or 1.0)

    def near(a: float, b: float) -> bool:
        return abs(a - b) <= 6e-3 * max(1.0, abs(b))

    def ask(layer: int, positions) -> float:
        try:
            got = require_number(answer(layer, positions))
        except ZeroDivisionError:
            got = float("nan")
        require(
            got == got, "start and end came out as one number, and you divided by 0: measure both before the `with`"
        )
        return got

    table = sweep.values  # the notebook's own
    telling = torch.minimum(table.abs(), (1 - table).abs())  # a share near 0 or 1 would hide what a slip changes
    one_token = middle, subject[int(telling[middle, list(subject)].argmax())]
    last_token = max(range(middle + 1, lm.n_layers), key=lambda layer: float(telling[layer, -1])), -1
    extremes = [divmod(int(at), table.shape[1]) for at in (table.argmin(), table.argmax())]
    got = ask(middle, None)
    if not near(got, 1):
        way, left = end - start, ask(*one_token)
        if near(got, 0) and near(left, 1 - truth(*one_token)):
            raise NotYet("with every token patched you return 0, which is what is *left* to recover")
        for part in ("mlp_output", "attention_output"):
            part_alone = abs(got - truth(middle, None, part)) < 1e-4
            require(not part_alone, f"you patched `{part}`; the whole stream is `block_output`")
        none = "patching every token changed nothing: is the source patched into the base, and the metric read inside the `with`?"
        last = f"{got:.3f}, with every token patched, is the last token's share: does your site use `positions`?"
        slips = {
            f"{got:.2f} is the metric after the patch; as a share, 0 is the base run and 1 the source run": end,
            f"{got:.2f} is how far the metric moved; divide it by the whole way": way,
            "100 is in per cent; return the share, from 0 to 1": 100,
            f"{got:.2f} is how far the metric moved, divided by the source run's metric and not by the way": way
            / (end or 1),
            f"{got:.2f} is how far the metric moved, divided by the base run's metric and not by the way": way
            / (start or 1),
            none: 0,
            last: partial(truth, middle, -1),
        }
        _refuse(near, got, slips)
        raise NotYet(
            f"with every token of layer {middle} patched you found {got:.3f}; what later blocks see is then all the source's"
        )
    for layer, position in (one_token, last_token, *extremes):
        got, wanted = ask(layer, position), float(table[layer, position])
        if not near(got, wanted):
            found = f"at layer {layer}, position {position}, the share is {wanted:.3f} and you found {got:.3f}"
            word = probability(lm, lm.next_token_logits(source).argmax())
            cut, ratio = min(max(wanted, 0), 1), (start + wanted * (end - start)) / (end or 1)
            require(
                wanted > 0 or not near(got, -wanted), f"{found}: this patch pushes the other way, so leave its sign"
            )
            require(cut == wanted or not near(got, cut), f"{found}: don't cut shares off at 0 and 1")
            every = f"{found}, as with every token patched: does your site use `positions`, and is it the base that runs in the `with`?"
            slips = {
                every: 1,
                f"{found}: you divided one run's metric by another's, and the base run isn't at 0": ratio,
                f"{found}, measured with a probability: use `metric`": partial(truth, layer, position, score=word),
                f"{found}, which is the base patched into the source run": partial(
                    truth, layer, position, into=source, of=base
                ),
                f"{found}, with all layers up to this one patched at once": partial(truth, layer, position, first=0),
            }
            _refuse(near, got, slips)
            others = any(near(got, float(share)) for share in table[:, position])
            raise NotYet(found + ", which is another layer's share: does your site use `layer`?" * others)
    return (
        "Every layer 'recovers' 100 % this way, the first as well as the last, so the number says nothing about layer 6. "
        "A patch is evidence only if it leaves something of the base run in place."
    )


def _names(code) -> set[str]:
    """The names that a function's code uses, those of functions inside it, too."""
    inner = [part for part in getattr(code, "co_consts", ()) if hasattr(part, "co_names")]
    return set(getattr(code, "co_names", ())).union(*map(_names, inner))


def _refuse(near, got, slips: dict) -> None:
    """Say what went wrong if one of the slips {what to say of it: what it gives, or a function that finds it} gives this."""
    for because, value in slips.items():
        require(not near(got, value() if callable(value) else value), because)


@exercise("patching.necessary", number=4, title="Sufficient, or necessary?", difficulty=2, minutes=8)
def _(answer, lm, source, metric, reference: Activations):
    """
    - This time the prompt that runs is `source`, the one that you take something away from.
    - One edit a layer: `mean_ablate(Site('attention_output', layer, positions=-1), reference)`. `intervene(lm, *edits)` takes several.
    - The lead is `metric` of the untouched source run. Compare what is left of it with what it was.
    """
    require(callable(answer), f"the answer is your function `lost`, and you gave {short(answer)}")
    lead = float(metric(lm.next_token_logits(source)))
    word = probability(lm, lm.next_token_logits(source).argmax())

    def truth(layers, edit=mean_ablate, positions=-1, score=metric) -> float:
        before = lead if score is metric else float(score(lm.next_token_logits(source)))
        with intervene(lm, *[edit(Site("attention_output", layer, positions), reference) for layer in layers]):
            return 1 - float(score(lm.next_token_logits(source))) / before

    def near(a: float, b: float) -> bool:
        return abs(a - b) <= 2e-3 * max(1.0, abs(b))

    late = range(2 * lm.n_layers // 3, lm.n_layers)
    single = {layer: truth([layer]) for layer in late}
    layer = max(late, key=lambda layer: abs(single[layer]))
    got, wanted = require_number(answer([layer])), single[layer]
    if not near(got, wanted):
        slips = {
            f"{got:.3f} is what is *left* at layer {layer}; the share that is lost was asked for": 1 - wanted,
            f"{got:.3f} has the sign turned round: losing counts as positive here": -wanted,
            "nothing was lost: is the metric read inside the `with`?": 0,
            f"{got:.3f} is how far the metric fell; as a share it is divided by the lead": wanted * lead,
            f"{got:.3f} is how the metric changed, undivided; a loss is positive, and a share of the lead": -wanted
            * lead,
            f"{got:.3f} is in per cent; return the share, {wanted:.3f}": 100 * wanted,
            f"{got:.3f} is the share of a probability; use `metric`": partial(truth, [layer], score=word),
            "you put in *zero*, which no later block has ever met there": partial(
                truth, [layer], lambda at, _: zero(at)
            ),
            "you ablated every token; only the last one was asked for": partial(truth, [layer], positions=None),
            "you ablated the later layers, too; only those named were asked for": partial(
                truth, range(layer, lm.n_layers)
            ),
            "you ablated the earlier layers, too; only those named were asked for": partial(truth, range(layer + 1)),
        }
        _refuse(near, got, slips)
        raise NotYet(
            f"at layer {layer} the share lost is {wanted:.3f}, and you found {got:.3f}: is it the source that runs, the mean of "
            "`reference` that is put in, and the source's own lead that you divide by?"
        )
    for layers in ([late[0]], [late[-1]], [min(late, key=single.get)], list(late)):
        got, wanted = require_number(answer(layers)), truth(layers) if len(layers) > 1 else single[layers[0]]
        if not near(got, wanted):
            helps = f"at layer {layers[0]} the ablation *helps* the source's answer: the share lost is {wanted:.3f}, and you"
            _refuse(
                near, got, {f"{helps} found {got:.3f}": -wanted, f"{helps} cut it off at 0": 0} if wanted < 0 else {}
            )
            found = f"for {len(layers)} layers at once you found {got:.3f}"
            require(
                len(layers) == 1 or not near(got, sum(single.values())),
                f"{found}, the sum of the single losses: use one `with`",
            )
            one = len(layers) > 1 and any(near(got, loss) for loss in single.values())
            require(not one, f"{found}, which is one layer's loss: make one edit for each layer")
            require(wanted < 1 or not near(got, 1), f"{found}: a loss may exceed 1, so don't cut it off")
            raise NotYet(
                f"it fits at layer {layer}, and not for {layers}: does your site use the layers that it is given?"
            )
    return "What other layers can still bring is not lost. The next cell takes other layers away, too."


@exercise("patching.attribution", number=5, title="All sites in two passes", difficulty=3, minutes=12)
def _(answer, lm, base, source, metric, sweep):
    """
    - The step is δ = source − base, at every layer and token; the estimate is its dot product with the gradient.
    - `run = record(lm, base, 'block_output', grad=True)` keeps the graph. Give `torch.autograd.grad` the list of all `run['block_output', layer]` at once.
    - For one layer, what you multiply has the shape (prompt, token, d). Sum over d, take prompt 0, and stack the layers.
    """
    require(callable(answer), f"the answer is your function `attribution`, and you gave {short(answer)}")
    runs = {at: record(lm, at, "block_output", grad=True) for at in (base, source)}
    streams = {at: [run["block_output", layer] for layer in range(lm.n_layers)] for at, run in runs.items()}
    step = [there.detach() - here.detach() for here, there in zip(streams[base], streams[source], strict=True)]

    def table(at: str = base, number=lambda run: metric(run.logits[:, -1]).sum(), times=step) -> Tensor:
        grads = torch.autograd.grad(number(runs[at]), streams[at], retain_graph=True)
        return torch.stack([(x.detach() * g).sum(-1)[0] for x, g in zip(times, grads, strict=True)]).cpu()

    wanted = table()
    try:
        got = require_attempted(answer())
    except RuntimeError as error:
        require(
            "does not require grad" not in str(error), "nothing here has a gradient: record the base with `grad=True`"
        )
        raise
    try:
        got = torch.stack([torch.as_tensor(row).detach().cpu() for row in got]).float()
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"a table (layer, token) of numbers was expected, and {short(got)} came back") from None
    shapes = f"the shape is {tuple(got.shape)}, and (layer, token) = {tuple(wanted.shape)} was expected"
    require(got.shape != wanted.T.shape or got.shape == wanted.shape, f"{shapes}: turn the table round")
    require(
        got.numel() != wanted.numel() or got.shape == wanted.shape, f"{shapes}: leave out the batch, an axis of one row"
    )
    require(got.shape == wanted.shape, f"{shapes}: sum over the last axis, d")

    def like(got: Tensor, other: Tensor) -> bool:
        return torch.allclose(got, other, atol=1e-3 * float(wanted.abs().max()), rtol=1e-2)

    if not like(got, wanted):
        start, end = (float(metric(run.logits[:, -1])) for run in runs.values())
        top, length = int(runs[source].logits[0, -1].argmax()), runs[base].logits.shape[1]
        patched = sweep.values * (end - start)
        real = "these are the real patches, one run a site; estimate them from one gradient"
        slope = "your gradients were taken in the *source* run; the patch happens in the base run, and the slope there counts"
        slips = {
            "the sign is turned round: the step goes from the base to the source, source − base": -wanted,
            "you took absolute values: a negative attribution says that the patch would push the metric down": wanted.abs(),
            slope: partial(table, source),
            "you took the mean over d; a dot product is the sum": wanted / lm.d_model,
            "that is the share of the way; the metric's own units were asked for (the next cell divides)": wanted
            / (end - start),
            "the gradient is of one answer's logit alone; take it of `metric`": partial(
                table, number=lambda run: run.logits[0, -1, top]
            ),
            "the gradient is of `metric` at every position; the answer is read at the last one": partial(
                table, number=lambda run: sum(metric(run.logits[:, i]).sum() for i in range(length))
            ),
            "you multiplied with the base's stream; the step is the *difference* of the two runs": partial(
                table, times=streams[base]
            ),
            "you multiplied with the source's stream; the step is the *difference* of the two": partial(
                table, times=streams[source]
            ),
            real: patched,
            real + ".": patched + start,
        }
        _refuse(like, got, slips)
        raise NotYet(
            "it isn't the step times the gradient, summed over d: is the step source − base, and the gradient the base run's?"
        )
    return f"{wanted.numel()} sites are estimated with two forward passes and one backward pass."

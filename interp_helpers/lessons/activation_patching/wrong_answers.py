"""Wrong answers that learners give to the exercises of notebook 01, and what each is told."""


def site(arguments: str) -> str:
    return f"site = Site({arguments})"


def handover(body: str) -> str:
    return f"def handover(values, subject):\n    {body}"


def later(
    than: str, found: str = "int(later.nonzero()[0]) if later.any() else None", last: str = "values[:, -1]"
) -> str:
    return handover(f"later = {last} > {than}\n    return {found}")


BEST = "values[:, list(subject)].max(dim=1).values"


def recovered(
    result: str = "((patched - start) / (end - start)).item()",
    *,
    where: str = '"block_output", layer, positions',
    source: str = "source",
    base: str = "base",
    inside: str = "patched = ",
    outside: str = "",
) -> str:
    """The solution of exercise 3, with something changed."""
    return f"""def recovered(layer, positions):
    start = metric(lm.next_token_logits(base))
    end = metric(lm.next_token_logits(source))
    acts = record(lm, {source}, "block_output")
    with intervene(lm, replace(Site({where}), acts)):
        {inside}metric(lm.next_token_logits({base}))
    {outside}
    return {result}
"""


def lost(
    result: str = "((before - after) / before).item()",
    *,
    edit: str = 'mean_ablate(Site("attention_output", layer, positions=-1), reference)',
    layers: str = "layers",
    prompt: str = "source",
    inside: str = "after = ",
    outside: str = "",
) -> str:
    """The solution of exercise 4, with something changed."""
    return f"""def lost(layers):
    before = metric(lm.next_token_logits({prompt}))
    with intervene(lm, *[{edit} for layer in {layers}]):
        {inside}metric(lm.next_token_logits({prompt}))
    {outside}
    return {result}
"""


def attribution(
    term: str = "((there[site] - here[site]) * gradient).sum(-1)[0]",
    *,
    at: str = "base",
    minus: str = "source",
    result: str = "torch.stack(estimate).detach()",
) -> str:
    """The solution of exercise 5, with something changed."""
    return f"""def attribution():
    there = record(lm, {minus}, "block_output")
    here = record(lm, {at}, "block_output", grad=True)
    sites = [Site("block_output", layer) for layer in range(lm.n_layers)]
    gradients = torch.autograd.grad(metric(here.logits[:, -1]).sum(), [here[site] for site in sites])
    estimate = [{term} for site, gradient in zip(sites, gradients)]
    return {result}
"""


WRONG = {
    "patching.site": [
        (site('"block_output", layer=9, positions=3'), "layer 9 is the tenth block"),
        (site('"block_output", layer=7, positions=3'), "layer 7 is number 8"),
        (site('"block_input", layer=8, positions=3'), "*before* the block has written"),
        (site('"mlp_output", layer=8, positions=3'), "`mlp_output` is one part of the block"),
        (site('"block_output", layer=8'), "`positions=None` names every token"),
        (site('"block_output", layer=8, positions=-1'), "is the last token of the *prompt*"),
        (site('"block_output", layer=8, positions=lm.find(base, "Colosseum")'), "3 tokens are named"),
        (site('"block_output", layer=8, positions=lm.find(base, "Colosseum").stop'), "position 4 is the token after"),
        (site('"block_output", layer=8, positions=lm.find(base, "Colosseum")[0]'), "position 1 is ' Col'"),
        (site('"block_output", layer=8, positions=30'), "Position 30 is outside row 0"),
        (site('"block_output", layer=[8], positions=3'), "`layer` is one number"),
        ('site = ("block_output", 8, 3)', "the answer is a `Site(…)`"),
    ],
    "patching.handover": [
        (
            "def handover(values, subject):\n"
            "    return next((i for i, row in enumerate(values) if row[-1] > 0.5), None)",
            "not with a fixed number",
        ),
        (handover("return 23"), "read `values` and `subject`, not `sweep`"),
        (
            later(
                "sweep.values[:, list(lm.find(base, pair.base_subject))].max(dim=1).values", last="sweep.values[:, -1]"
            ),
            "read `values` and `subject`, not `sweep`",
            "both answer for the notebook's own sweep",
        ),
        (handover("return int(values[:, -1].argmax())"), "which is one too late"),
        (
            later(BEST, "int(later.nonzero()[0]) + 1"),
            "which is one too late",
            "counting from 1 ends one too late as well",
        ),
        (later("values[:, subject[-1]]"), "larger than every token of the subject"),
        (later("values[:, list(subject)].mean(dim=1)"), "take the best of all its tokens"),
        (later("values[:, list(subject)].sum(dim=1)"), "with each token of the subject by itself"),
        (
            later("values[:, :-1].max(dim=1).values"),
            "with each token of the subject by itself",
            "a sum and a token outside the subject are both named",
        ),
        (later(BEST, "int(later.int().argmax())"), "never has a *larger* share you found 0"),
        (later(BEST, "int(later.nonzero()[0])"), "your function raised IndexError"),
        (
            later(
                BEST, "max([i + 1 for i in range(len(later) - 1) if not later[i]], default=0) if later.any() else None"
            ),
            "the *first* layer was asked for",
        ),
        (
            handover("return int(values[:, -1].diff().argmax()) + 1"),
            "compare the last token, at the same layer, with each token of the subject",
        ),
        (later(BEST, "later"), "one number was expected, and a tensor of shape (4,) came back"),
        (handover(f"print((values[:, -1] > {BEST}).nonzero()[0])"), "is there a `return`?"),
        (later("values.abs()[:, list(subject)].max(dim=1).values", last="values[:, -1].abs()"), "so leave its sign"),
        (handover(f"return (values[:, -1] > {BEST}).nonzero()[:, 0].tolist()"), "you returned a list of layers"),
        ("handover = 23", "the answer is your function `handover`"),
    ],
    "patching.everything": [
        (recovered("patched.item()"), "is the metric after the patch"),
        (recovered("(patched - start).item()"), "is how far the metric moved; divide it by the whole way"),
        (recovered("((patched - start) / end).item()"), "divided by the source run's metric and not by the way"),
        (recovered("((patched - start) / start).item()"), "divided by the base run's metric and not by the way"),
        (recovered("((end - patched) / (end - start)).item()"), "what is *left* to recover"),
        (
            recovered(inside="", outside="patched = metric(lm.next_token_logits(base))"),
            "changed nothing: is the source patched into the base",
        ),
        (
            recovered(source="base"),
            "changed nothing: is the source patched into the base",
            "a patch of the base's own activations changes as little as none",
        ),
        (recovered(where='"block_output", layer, -1'), "is the last token's share"),
        (recovered(where='"block_output", layer'), "as with every token patched: does your site use `positions`"),
        (recovered(base="source"), "is it the base that runs in the `with`"),
        (
            recovered(where='"block_output", 12, positions'),
            "which is another layer's share: does your site use `layer`?",
        ),
        (
            recovered(where='"mlp_output", layer, positions').replace('"block_output")', '"mlp_output")'),
            "you patched `mlp_output`",
        ),
        (
            recovered(where='"attention_output", layer, positions').replace('"block_output")', '"attention_output")'),
            "you patched `attention_output`",
        ),
        (
            recovered(base="source", source="base"),
            "changed nothing: is the source patched into the base",
            "base and source exchanged give the base run",
        ),
        (
            recovered("((end - patched) / (end - start)).item()", base="source", source="base"),
            "which is the base patched into the source run",
        ),
        (recovered("(patched / end).item()"), "you divided one run's metric by another's"),
        (
            recovered().replace("metric(", "probability(lm, pair.source_answer)("),
            "measured with a probability: use `metric`",
        ),
        (
            """def recovered(layer, positions):
    start, end = (metric(lm.next_token_logits(prompt)) for prompt in (base, source))
    acts = record(lm, source, "block_output")
    with intervene(lm, *[replace(Site("block_output", i, positions), acts) for i in range(layer + 1)]):
        return ((metric(lm.next_token_logits(base)) - start) / (end - start)).item()
""",
            "with all layers up to this one patched at once",
        ),
        (
            """def recovered(layer, positions):
    with intervene(lm, replace(Site("block_output", layer, positions), record(lm, source, "block_output"))):
        start, end = (metric(lm.next_token_logits(prompt)).item() for prompt in (base, source))
        return (metric(lm.next_token_logits(base)).item() - start) / (end - start)
""",
            "measure both before the `with`",
        ),
        (recovered("float((patched - start) / (end - start)) * 100"), "100 is in per cent"),
        (
            recovered("float((patched - start) / (end - start)) / 2"),
            "what later blocks see is then all the source's",
        ),
        (recovered("abs((patched - start) / (end - start)).item()"), "pushes the other way, so leave its sign"),
        (recovered("max(0, min(1, ((patched - start) / (end - start)).item()))"), "don't cut shares off at 0 and 1"),
        (recovered("print((patched - start) / (end - start))"), "your function returned None"),
        (
            "def recovered(layer, positions):\n    return 1.0",
            "as with every token patched",
            "a constant uses no positions",
        ),
        (
            "def recovered(layer, positions):\n"
            "    return 1.0 if positions is None else sweep.values[layer, positions].item()",
            "you looked the shares up",
        ),
        (
            "def recovered(layer, positions):\n"
            "    where = {'here': slice(None) if positions is None else positions}\n"
            "    return patch_sweep(lm, base, source, metric, layers=[layer], positions=where, normalize=True).values.item()",
            "you called `patch_sweep`",
        ),
        ("recovered = sweep", "the answer is your function `recovered`"),
    ],
    "patching.necessary": [
        (lost("(after / before).item()"), "is what is *left* at layer"),
        (lost("((after - before) / before).item()"), "has the sign turned round"),
        (lost("(before - after).item()"), "as a share it is divided by the lead"),
        (
            lost("((before - after) / (before - metric(lm.next_token_logits(base)))).item()"),
            "the source's own lead that you divide by",
        ),
        (
            lost(prompt="base"),
            "is it the source that runs",
            "what ablating the base gives depends on it",
        ),
        (
            lost(inside="", outside="after = metric(lm.next_token_logits(source))"),
            "is the metric read inside the `with`?",
        ),
        (
            lost(edit='replace(Site("attention_output", layer, -1), record(lm, base, "attention_output"))'),
            "the mean of `reference` that is put in",
        ),
        (
            "from interp_helpers import zero\n\n" + lost(edit='zero(Site("attention_output", layer, -1))'),
            "you put in *zero*",
        ),
        (lost(edit='mean_ablate(Site("attention_output", layer), reference)'), "you ablated every token"),
        (lost(layers="range(min(layers), lm.n_layers)"), "you ablated the later layers"),
        (lost(layers="range(max(layers) + 1)"), "you ablated the earlier layers"),
        (lost(layers="[23]"), "does your site use the layers that it is given?"),
        (lost(layers="layers[:1]"), "which is one layer's loss"),
        (
            lost().replace("def lost(layers)", "def single(layers)")
            + "\n\ndef lost(layers):\n    return sum(single([layer]) for layer in layers)",
            "the sum of the single losses",
        ),
        (lost("abs((before - after) / before).item()"), "the ablation *helps* the source's answer"),
        (lost("max(0, ((before - after) / before).item())"), "cut it off at 0"),
        (lost("min(1, ((before - after) / before).item())"), "a loss may exceed 1"),
        (lost("(after - before).item()"), "how the metric changed, undivided"),
        (lost("((before - after) / before).item() * 100"), "is in per cent; return the share"),
        (lost().replace("metric(", "probability(lm, pair.source_answer)("), "is the share of a probability"),
        (lost(edit='mean_ablate(Site("mlp_output", layer, -1), reference)'), "your code raised KeyError"),
        (lost("print((before - after) / before)"), "your function returned None"),
    ],
    "patching.attribution": [
        (attribution("((here[site] - there[site]) * gradient).sum(-1)[0]"), "the sign is turned round"),
        (attribution(result="torch.stack(estimate).abs().detach()"), "you took absolute values"),
        (
            attribution("((here[site] - there[site]) * gradient).sum(-1)[0]", at="source", minus="base"),
            "your gradients were taken in the *source* run",
        ),
        (attribution("((there[site] - here[site]) * gradient).sum(1)[0]"), "sum over the last axis, d"),
        (attribution("((there[site] - here[site]) * gradient).sum(-1)"), "leave out the batch"),
        (attribution(result="torch.stack(estimate).T"), "turn the table round"),
        (attribution("((there[site] - here[site]) * gradient).mean(-1)[0]"), "you took the mean over d"),
        (attribution(result="torch.stack(estimate) / (end - start)"), "that is the share of the way"),
        (attribution("(here[site] * gradient).sum(-1)[0]"), "you multiplied with the base's stream"),
        (attribution("(there[site] * gradient).sum(-1)[0]"), "you multiplied with the source's stream"),
        (
            attribution().replace(
                "metric(here.logits[:, -1]).sum()", "here.logits[0, -1, lm.token_id(pair.source_answer)]"
            ),
            "the gradient is of one answer's logit alone",
        ),
        (
            attribution().replace("metric(here.logits[:, -1]).sum()", "metric(here.logits[0]).sum()"),
            "the gradient is of `metric` at every position",
        ),
        (
            "def attribution():\n    return patch_sweep(lm, base, source, metric).values",
            "these are the real patches",
        ),
        (attribution(result="2 * torch.stack(estimate)"), "it isn't the step times the gradient"),
        (attribution(result="lm"), "a table (layer, token) of numbers was expected"),
        (attribution(result="print(estimate)"), "and None came back"),
        (attribution().replace(", grad=True", ""), "record the base with `grad=True`"),
        (attribution() + "\n\nattribution = attribution()", "your function `attribution`"),
    ],
}

# Right answers in another style; each must pass.
RIGHT = {
    "patching.site": [
        "site = Site('block_output', 8, [lm.find(base, pair.base_subject)[-1]])",
        "site = Site('block_input', 9, positions=lm.find(base, pair.base_subject).stop - 1)",
        "site = Site('block_output', 8, positions=lm.find(base, pair.base_subject)[-1] - len(lm.str_tokens(base)))",
    ],
    "patching.handover": [
        handover(
            "for layer in range(len(values)):\n"
            "        if all(values[layer][-1] > values[layer][i] for i in subject):\n"
            "            return layer"
        ),
        "import numpy as np\n\n"
        + handover(
            "table = np.asarray(values)\n"
            "    won = np.flatnonzero(table[:, -1] > table[:, subject.start : subject.stop].max(axis=1))\n"
            "    return won[0] if len(won) else None"
        ),
    ],
    "patching.everything": [
        recovered("round(float((patched - start) / (end - start)), 2)"),
        """def recovered(layer, positions):
    site = Site("block_output", layer, positions)
    with intervene(lm, replace(site, record(lm, source, site))):
        after = lm(base)[0, -1]
    rows = torch.stack([lm(base)[0, -1], after, lm(source)[0, -1]])
    a, x, b = metric(rows).tolist()
    return torch.tensor([(x - a) / (b - a)])
""",
    ],
    "patching.necessary": [
        lost("1 - float(after) / float(before)"),
        """def lost(layers):
    before = metric(lm(source)[:, -1]).item()
    with ExitStack() as edits:
        for layer in layers:
            edits.enter_context(intervene(lm, mean_ablate(Site("attention_output", layer, [-1]), reference)))
        after = metric(lm(source)[:, -1]).item()
    return -(after - before) / before
""".replace("def", "from contextlib import ExitStack\n\ndef", 1),
    ],
    "patching.attribution": [
        attribution(result="[row.tolist() for row in estimate]"),
        attribution(result="torch.stack(estimate).detach().numpy()"),
        """def attribution():
    there, here = record(lm, source, "block_output"), record(lm, base, "block_output", grad=True)
    streams = here.stack("block_output")
    flat = [here["block_output", layer] for layer in range(lm.n_layers)]
    slopes = torch.stack(torch.autograd.grad(metric(here.logits[:, -1])[0], flat))
    return torch.einsum("lptd,lptd->lt", there.stack("block_output") - streams.detach(), slopes)
""",
    ],
}

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
    start = paris_over_rome(lm.next_token_logits(base))
    end = paris_over_rome(lm.next_token_logits(source))
    acts = record(lm, {source}, "block_output")
    with intervene(lm, replace(Site({where}), acts)):
        {inside}paris_over_rome(lm.next_token_logits({base}))
    {outside}
    return {result}
"""


def lost(
    result: str = "((clean - ablated) / (clean - other)).item()",
    *,
    edit: str = 'mean_ablate(Site("attention_output", layer, positions=-1), reference)',
    prompt: str = "source",
    inside: str = "ablated = ",
    outside: str = "",
) -> str:
    """The solution of exercise 4, with something changed."""
    return f"""def lost(layer):
    clean = paris_over_rome(lm.next_token_logits(source))
    other = paris_over_rome(lm.next_token_logits(base))
    with intervene(lm, {edit}):
        {inside}paris_over_rome(lm.next_token_logits({prompt}))
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
    gradients = torch.autograd.grad(paris_over_rome(here.logits[:, -1]).sum(), [here[site] for site in sites])
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
            later("sweep.values[:, list(landmark)].max(dim=1).values", last="sweep.values[:, -1]"),
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
        ("handover = 23", "the answer is your function `handover`"),
    ],
    "patching.everything": [
        (recovered("patched.item()"), "is the metric after the patch"),
        (recovered("(patched - start).item()"), "is how far the metric moved; divide it by the whole way"),
        (recovered("((patched - start) / end).item()"), "divided by one run's metric"),
        (recovered("((end - patched) / (end - start)).item()"), "what is *left* to recover"),
        (
            recovered(inside="", outside="patched = paris_over_rome(lm.next_token_logits(base))"),
            "changed nothing: is the source patched into the base",
        ),
        (
            recovered(source="base"),
            "changed nothing: is the source patched into the base",
            "a patch of the base's own activations changes as little as none",
        ),
        (recovered(where='"block_output", layer, -1'), "which is the last token's share"),
        (recovered(where='"block_output", layer'), "as with every token patched: does your site use `positions`?"),
        (
            recovered(where='"block_output", 12, positions'),
            "which is another layer's share: does your site use `layer`?",
        ),
        (
            recovered(base="source", source="base"),
            "changed nothing: is the source patched into the base",
            "base and source exchanged give the base run",
        ),
        (recovered("float((patched - start) / (end - start)) * 100"), "100 is in per cent"),
        (
            recovered("float((patched - start) / (end - start)) / 2"),
            "what the later blocks see is then all the source's",
        ),
        (recovered("print((patched - start) / (end - start))"), "your function returned None"),
        (
            "def recovered(layer, positions):\n    return 1.0",
            "as with every token patched",
            "a constant uses no positions",
        ),
        ("recovered = sweep", "the answer is your function `recovered`"),
    ],
    "patching.necessary": [
        (lost("((ablated - other) / (clean - other)).item()"), "is what is *left* at layer 23"),
        (lost("((ablated - clean) / (clean - other)).item()"), "has the sign turned round"),
        (lost("(clean - ablated).item()"), "divide it by the way"),
        (lost("((clean - ablated) / clean).item()"), "you divided by the source run's own metric"),
        (
            lost(inside="", outside="ablated = paris_over_rome(lm.next_token_logits(source))"),
            "is the metric read inside the `with`?",
        ),
        (lost("((ablated - other) / (clean - other)).item()", prompt="base"), "you ablated the base run"),
        (
            lost(edit='replace(Site("attention_output", layer, -1), record(lm, base, "attention_output"))'),
            "you replaced the output by the *base run's*",
        ),
        (
            "from interp_helpers import zero\n\n" + lost(edit='zero(Site("attention_output", layer, -1))'),
            "you put in *zero*",
        ),
        (lost(edit='mean_ablate(Site("attention_output", layer), reference)'), "you ablated every token"),
        (lost(edit='mean_ablate(Site("attention_output", 23, -1), reference)'), "does your site use `layer`?"),
        (lost("abs((clean - ablated) / (clean - other)).item()"), "the ablation *helps* the source's answer"),
        (lost("max(0, ((clean - ablated) / (clean - other)).item())"), "you cut it off at 0"),
        (lost("(ablated - clean).item()"), "how the metric changed, undivided"),
        (lost("((clean - ablated) / (clean - other)).item() * 100"), "is in per cent; return the share"),
        (lost(edit='mean_ablate(Site("mlp_output", layer, -1), reference)'), "your code raised KeyError"),
        (lost("print((clean - ablated) / (clean - other))"), "your function returned None"),
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
        (attribution(result="torch.stack(estimate) / gap"), "that is the share of the way"),
        (attribution("(here[site] * gradient).sum(-1)[0]"), "these are not (source − base) · gradient"),
        (
            "def attribution():\n    return patch_sweep(lm, base, source, paris_over_rome).values",
            "these are not (source − base) · gradient",
            "real patches are no estimate either",
        ),
        (attribution(result="estimate"), "a tensor (layer, token) was expected, and [tensor"),
        (attribution(result="print(estimate)"), "and None came back"),
        (attribution().replace(", grad=True", ""), "your code raised RuntimeError"),
        (attribution() + "\n\nattribution = attribution()", "your function `attribution`"),
    ],
}

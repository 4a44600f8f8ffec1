"""Wrong answers that learners give to the exercises of notebook 02, and what each is told."""


def effect(
    result: str = "(restored - corrupted).mean().item()",
    *,
    clean: str = 'record(lm, prompt, "block_output")',
    places: str = "span",
    first: str = "draws",
    second: str = "draws",
    site: str = '"block_output", layer, position',
) -> str:
    """The solution of exercise 1, with something changed."""
    return f"""def indirect_effect(layer, position):
    clean = {clean}
    rows = lm.tokens([prompt] * len(draws))
    with intervene(lm, add(Site("block_input", 0, positions={places}), {first})):
        corrupted = p_answer(lm.next_token_logits(rows))
    with intervene(lm, add(Site("block_input", 0, positions={places}), {second}), replace(Site({site}), clean)):
        restored = p_answer(lm.next_token_logits(rows))
    return {result}
"""


def needed(result: str) -> str:
    return f"import math\n\n\ndef draws_needed(pilot, tolerance):\n    return {result}"


def centres(result: str) -> str:
    return f"def centres_with(target, width, n_layers):\n    return {result}"


def edit(body: str) -> str:
    return f"def rank_one(x, output, key, delta):\n    {body}"


WRONG = {
    "tracing.indirect": [
        (effect("restored.mean().item()"), "has to be subtracted"),
        (effect("(corrupted - restored).mean().item()"), "the sign is turned"),
        (effect("(p_answer(lm.next_token_logits(prompt)) - restored).mean().item()"), "still *missing*"),
        (effect("(p_answer(lm.next_token_logits(prompt)) - corrupted).mean().item()"), "*total* effect"),
        (effect("(restored - corrupted).sum().item()"), "summed over the draws"),
        (effect("(restored - corrupted)[0].item()"), "first draw only"),
        (effect(places="[0, *span][: len(span)]"), "on the subject's tokens only"),
        (effect(first="draws / 3", second="draws / 3"), "as large as in `draws`"),
        (effect(site='"block_input", layer, position', clean='record(lm, prompt, "block_input")'), "what *enters*"),
        (effect(site='"block_output", layer, -1'), "you found"),
        (effect("(restored - restored).mean().item()"), "nothing comes back anywhere"),
        (effect("(restored - corrupted)[-1].item()"), "last draw only"),
        (effect("(restored - corrupted).max().item()"), "the largest effect"),
        (effect("(restored - corrupted).clamp(min=0).mean().item()"), "cut off"),
        (
            effect(first="draws.mean(0)[None].expand_as(draws)", second="draws.mean(0)[None].expand_as(draws)"),
            "averaged before",
        ),
        (effect(first="torch.randn_like(draws)", second="torch.randn_like(draws)"), "the second time"),
        (effect().replace("add(", "replace("), "takes the embeddings' place"),
        (
            "def indirect_effect(layer, position):\n"
            "    sites = dict(layers=[layer], positions=[position])\n"
            "    trace = causal_trace(lm, prompt, subject, answer, samples=4, seed=1, **sites)\n"
            "    return trace.indirect_effect.values.item()",
            "make the runs yourself",
        ),
        (effect("restored - corrupted"), "one number was expected"),
        (effect("None"), "is there a `return`"),
        ("indirect_effect = 0.3", "the answer is your function"),
    ],
    "tracing.draws": [
        (needed("max(1, int((pilot.std().item() / tolerance) ** 2))"), "rounded down"),
        (needed("(pilot.std().item() / tolerance) ** 2"), "whole"),
        (needed("math.ceil(pilot.std().item() / tolerance)"), "*square root*"),
        (needed("math.ceil((pilot.std().item() / tolerance) ** 2 / len(pilot))"), "own size"),
        (needed("math.ceil(pilot.var().item() / tolerance)"), "square the tolerance"),
        (needed("math.ceil((pilot.numpy().std() / tolerance) ** 2)"), "divides by n"),
        (needed("1000"), "more than needed"),
        (needed("math.ceil((pilot.std().item() / tolerance) ** 2)"), "at least one"),
        (needed("max(2, math.ceil((pilot.std().item() / tolerance) ** 2))"), "one draw is enough"),
        (
            needed("max(3, math.ceil((pilot.std().item() / tolerance) ** 2))"),
            "one draw is enough",
            "also a least number that nothing asks for",
        ),
        (needed("int((pilot.std().item() / tolerance) ** 2) + 1"), "one draw too many"),
    ],
    "tracing.window": [
        (
            centres("list(range(max(0, target - width // 2), min(n_layers, target - width // 2 + width)))"),
            "centres of all windows that contain it",
        ),
        (
            centres(
                "[L for L in range(n_layers) if max(0, L - width // 2) <= target <= min(n_layers, L - width // 2 + width)]"
            ),
            "one too many",
        ),
        (centres("[L for L in range(target - width // 2, target + width // 2 + 1)]"), "is one of the layers"),
        (centres("[L for L in range(n_layers) if abs(L - target) < 2]"), "is missing"),
        (
            centres("[L for L in reversed(range(n_layers)) if L - width // 2 <= target < L - width // 2 + width]"),
            "another order",
        ),
        (centres("list(range(n_layers))"), "doesn't belong"),
        (centres("target + width // 2"), "a list of centres was expected"),
        (centres("[0] + [L for L in range(n_layers)]"), "listed twice"),
    ],
    "tracing.rank-one": [
        (edit("return output + delta"), "every token alike"),
        (edit("return output + (x @ key)[..., None] * delta"), "divided by kᵀk"),
        (edit("return output + (x @ key / key.norm())[..., None] * delta"), "its square"),
        (
            edit("return output + (x @ key / key.norm() / x.norm(dim=-1))[..., None] * delta"),
            "cosine",
        ),
        (edit("return (x @ key / (key @ key))[..., None] * delta"), "add to `output`"),
        (edit("return output - (x @ key / (key @ key))[..., None] * delta"), "sign is turned"),
        (edit("return output + (x @ key).sum() / (key @ key) * delta"), "the output has to grow by exactly δ"),
        (edit("x *= 1.0001\n    return output + (x @ key / (key @ key))[..., None] * delta"), "in place"),
        (edit("return output + (x @ key / (key @ key)).clamp(-1, 1)[..., None] * delta"), "cut at 1"),
        (edit("return output + (x @ key / (key @ key)).relu()[..., None] * delta"), "cut at 0"),
        (edit("return output + (x @ key / (key @ key))[:, None] * delta"), "use `[..., None]`"),
        (edit("return x"), "it has the output's shape"),
    ],
}

RIGHT = {
    "tracing.indirect": [
        """def indirect_effect(layer, position):
    clean = record(lm, prompt, Site("block_output", layer, position))
    found = []
    for i in range(len(draws)):
        corruption = add(Site("block_input", 0, positions=list(span)), draws[i : i + 1])
        with intervene(lm, corruption):
            corrupted = p_answer(lm(prompt)[:, -1]).item()
            with intervene(lm, replace(Site("block_output", layer, position), clean)):
                restored = p_answer(lm(prompt)[:, -1]).item()
        found.append(restored - corrupted)
    return sum(found) / len(found)
""",
        """def indirect_effect(layer, position):
    site, rows = Site("block_output", layer, positions=[position]), [prompt] * len(draws)
    corruption = add(Site("block_input", 0, positions=span), draws)
    value = record(lm, prompt, site)[site]
    p = []
    for edits in ([corruption], [corruption, replace(site, value)]):
        with intervene(lm, *edits):
            p.append(lm(rows)[:, -1].softmax(-1)[:, lm.token_id(answer)])
    return (p[1] - p[0]).mean()
""",
    ],
    "tracing.draws": [
        "import math\n\n\ndef draws_needed(pilot, tolerance):\n    n = 1\n    while float(pilot.std()) / math.sqrt(n) > tolerance:\n"
        "        n += 1\n    return n",
        "import numpy as np\n\n\ndef draws_needed(pilot, tolerance):\n"
        "    return np.maximum(1, np.ceil((np.std(pilot.numpy(), ddof=1) / tolerance) ** 2))",
    ],
    "tracing.window": [
        "def centres_with(target, width, n_layers):\n    found = []\n    for L in range(n_layers):\n        first = L - width // 2\n"
        "        if first <= target < first + width:\n            found.append(L)\n    return found",
        "def centres_with(target, width, n_layers):\n    low = target + width // 2 - width + 1\n"
        "    return range(max(0, low), min(n_layers, low + width))",
        "def centres_with(target, width, n_layers):\n    L = torch.arange(n_layers)\n    first = L - width // 2\n"
        "    return L[(first <= target) & (target < first + width)]",
    ],
    "tracing.rank-one": [
        edit("output += (x @ key / (key @ key))[..., None] * delta\n    return output"),
        edit("return output + torch.einsum('...i,i,o->...o', x, key, delta) / key.dot(key)"),
        edit("return output + x @ torch.outer(key, delta) / key.square().sum()"),
    ],
}

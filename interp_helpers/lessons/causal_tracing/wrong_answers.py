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
        corrupted = paris(lm.next_token_logits(rows))
    with intervene(lm, add(Site("block_input", 0, positions={places}), {second}), replace(Site({site}), clean)):
        restored = paris(lm.next_token_logits(rows))
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
        (effect("(paris(lm.next_token_logits(prompt)) - restored).mean().item()"), "still *missing*"),
        (effect("(paris(lm.next_token_logits(prompt)) - corrupted).mean().item()"), "*total* effect"),
        (effect("(restored - corrupted).sum().item()"), "summed over the draws"),
        (effect("(restored - corrupted)[0].item()"), "first draw only"),
        (effect(places="[0, *span][: len(span)]"), "on the subject's tokens only"),
        (effect(first="draws / 3", second="draws / 3"), "Noise on the subject's tokens only"),
        (effect(site='"block_input", layer, position', clean='record(lm, prompt, "block_input")'), "what *enters*"),
        (effect(site='"block_output", layer, -1'), "you found"),
        (effect("(restored - restored).mean().item()"), "nothing comes back anywhere"),
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
        (edit("output += (x @ key / (key @ key))[..., None] * delta\n    return output"), "in place"),
        (edit("return output + (x @ key / (key @ key))[:, None] * delta"), "use `[..., None]`"),
        (edit("return x"), "it has the output's shape"),
    ],
}

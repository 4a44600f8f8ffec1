"""gpt2's own weights, wherever they can be had, have the values that are published of them. Without the weights this is skipped, and
says so. `make test MODEL=gpt2` runs the notebooks on them."""

from __future__ import annotations

import pytest

from interp_helpers import ioi, load_model, logit_diff

# pyvene's tutorial Basic_Intervention, as its outputs show them.
PUBLISHED = {
    "The capital of Spain is": {" Madrid": 0.1050, " the": 0.0950, " Barcelona": 0.0703},
    "The capital of Italy is": {" Rome": 0.1573, " the": 0.0732, " Milan": 0.0469},
}


@pytest.fixture(scope="module")
def gpt2():
    try:
        return load_model("gpt2", fallback=False)
    except ConnectionError as error:
        pytest.skip(f"gpt2's weights can't be had here: {error}")


@pytest.mark.parametrize("prompt", PUBLISHED)
def test_published_probabilities(gpt2, prompt):
    top = dict(gpt2.top(prompt, 3))
    assert top == pytest.approx(PUBLISHED[prompt], abs=1e-3)


def test_indirect_object_identification(gpt2):
    """pyvene's tutorial IOI_Replication finds .94 right and a mean logit difference of 3.76, on prompts of its own."""
    prompts = ioi()
    found = [logit_diff(gpt2, p.indirect_object, p.subject)(gpt2.next_token_logits(p.prompt)).item() for p in prompts]
    assert sum(d > 0 for d in found) / len(found) > 0.9
    assert 2.5 < sum(found) / len(found) < 5

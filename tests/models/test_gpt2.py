"""The course on gpt2's own weights, wherever they can be had: published values, and every notebook, with a table of which of the
lessons' expectations hold there.

`GLASS_BOX_GPT2` names another folder or model to run them on. Without the weights everything here is skipped, and says so.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from interp_helpers import ioi, load_model, logit_diff

ROOT = Path(__file__).resolve().parents[2]
NAME = os.environ.get("GLASS_BOX_GPT2", "gpt2")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TABLE = ROOT / "build" / "gpt2.md"

# pyvene's tutorial Basic_Intervention, as its outputs show them.
PUBLISHED = {
    "The capital of Spain is": {" Madrid": 0.1050, " the": 0.0950, " Barcelona": 0.0703},
    "The capital of Italy is": {" Rome": 0.1573, " the": 0.0732, " Milan": 0.0469},
}


@pytest.fixture(scope="module")
def gpt2():
    try:
        return load_model(NAME, fallback=False)
    except ConnectionError as error:
        pytest.skip(f"{NAME}'s weights can't be had here: {error}")


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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_expectations_are_told(gpt2, path, tmp_path):
    nb = nbformat.read(path, as_version=4)
    environment = {
        **os.environ,
        "INTERP_MODEL": NAME,
        "INTERP_PROGRESS": str(tmp_path / "progress.json"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    client = NotebookClient(nb, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment)
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    said = "".join(o.text for cell in cells for o in cell.outputs if o.get("name") == "stdout")
    held = re.findall(r"✓ on .+? too: (.*)|✓ as measured: (.*)", said)
    failed = re.findall(r"this does not hold: (.*)\. The text describes", said)
    assert held or failed
    TABLE.parent.mkdir(exist_ok=True)
    with TABLE.open("a", encoding="utf-8") as table:
        table.write(f"\n## {path.stem} on {NAME}\n\n")
        table.writelines(f"- holds: {one or other}\n" for one, other in held)
        table.writelines(f"- **does not hold**: {one}\n" for one in failed)

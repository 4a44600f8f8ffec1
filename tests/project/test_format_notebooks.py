"""`make format` on the notebooks: what it writes, and that they are as it writes them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import format_notebooks  # noqa: E402

FIRST = SimpleNamespace(heading="Exercise 1 · Where is it?", effort="●●○ · 6 minutes")
RIGHT = "### Exercise 1 · Where is it?\n\n●●○ · 6 minutes\n\nFind it."


@pytest.mark.parametrize("path", format_notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_as_make_format_writes_it(path):
    text = path.read_text(encoding="utf-8")
    assert format_notebooks.formed(text) == text, "run `make format`"


@pytest.mark.parametrize(
    "task, wanted",
    [
        (RIGHT, RIGHT),
        ("Find it.", RIGHT),
        (RIGHT.replace("Where is it", "Where").replace("●●○ · 6", "●○○ · 12"), RIGHT),
        (RIGHT.replace("6 minutes", "1 minute"), RIGHT),
        (RIGHT.replace("\n\n●●○ · 6 minutes", ""), RIGHT),
        ("## Now you\n\n" + RIGHT.replace("●●○", "●○○"), "## Now you\n\n" + RIGHT),
        (
            RIGHT.replace("●●○ · 6 minutes", "●●● · 6 minutes · optional"),
            RIGHT.replace("minutes", "minutes · optional"),
        ),
    ],
    ids=["as it is", "none yet", "another", "singular", "no effort", "below a section", "more behind it"],
)
def test_heading_and_effort_are_those_of_the_check(task, wanted):
    assert format_notebooks.headed(task, FIRST) == wanted


def test_outputs_go_and_everything_else_stays(monkeypatch):
    monkeypatch.setattr(format_notebooks.registry, "find", lambda kind, id: FIRST if id == "a.one" else None)
    task, answer = new_markdown_cell("Find it."), new_code_cell('answer = ...\n\ncheck("a.one", answer)')
    answer.metadata.update(tags=["exercise"], execution={"shell.execute_reply": "now"})
    answer.update(execution_count=3, outputs=[new_output("stream", text="said")])
    text = nbformat.writes(new_notebook(cells=[task, answer], metadata={"widgets": {}, "kept": 1}))
    formed = nbformat.reads(format_notebooks.formed(text), as_version=4)
    assert formed.cells[0].source == RIGHT and formed.cells[0].id == task.id
    assert formed.cells[1].outputs == [] and formed.cells[1].execution_count is None
    assert formed.cells[1].metadata == {"tags": ["exercise"]} and formed.metadata == {"kept": 1}

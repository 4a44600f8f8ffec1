"""Bring the notebooks into their form: no outputs and execution counts, and above each exercise its heading and effort, as its check says."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from interp_helpers.course import registry

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def formed(text: str) -> str:
    """A notebook's file in that form; nothing else in it is changed, ids and metadata included."""
    notebook = nbformat.reads(text, as_version=4)
    notebook.metadata.pop("widgets", None)
    for above, cell in zip([None, *notebook.cells], notebook.cells, strict=False):
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "exercise" in cell.metadata.get("tags", []) and above is not None and above.cell_type == "markdown":
            id = re.search(r"""^check\(\s*["']([^"']+)""", cell.source, re.MULTILINE)[1]
            above.source = headed(above.source, registry.find("exercise", id))
    return nbformat.writes(notebook, indent=1) + "\n"


def headed(task: str, exercise) -> str:
    """The text of an exercise under its heading and effort; behind the effort may stand more, such as “· optional”."""
    heading, effort = f"### {exercise.heading}", exercise.effort
    task = re.sub(r"^### Exercise .*$", lambda _: heading, task, count=1, flags=re.MULTILINE)
    task = re.sub(r"^[●○]{3} · [\d.]+ minutes?", lambda _: effort, task, count=1, flags=re.MULTILINE)
    if heading not in task.splitlines():
        return f"{heading}\n\n{effort}\n\n{task}".rstrip()
    return task if effort in task else task.replace(heading, f"{heading}\n\n{effort}", 1)


if __name__ == "__main__":
    for path in NOTEBOOKS:
        before = path.read_text(encoding="utf-8")
        if (after := formed(before)) != before:
            path.write_text(after, encoding="utf-8")
            print("formatted", path.name)

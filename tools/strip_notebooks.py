"""Remove outputs and execution counts from the notebooks, and nothing else: ids and metadata stay as they are."""

from pathlib import Path

import nbformat

for path in sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb")):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    text = nbformat.writes(notebook, indent=1) + "\n"
    if text != path.read_text(encoding="utf-8"):
        path.write_text(text, encoding="utf-8")
        print("stripped", path.name)

"""`make notebooks` on a notebook of two cells: pages with outputs, and a table of what took how long."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("notebooks_tool", ROOT / "tools" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "OUT", tmp_path / "build" / "notebooks")
    monkeypatch.setattr(module, "LONG", 1)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "handouts").mkdir()
    return module


def write(folder: Path, name: str, *cells: str) -> None:
    nb = new_notebook(cells=[new_code_cell(cell, id=f"cell-{i}") for i, cell in enumerate(cells)])
    nb.cells.insert(0, new_markdown_cell("# A title\n\nText.\n\n## 1 · A section"))
    nbformat.write(nb, folder / "notebooks" / f"{name}.ipynb")


def test_pages_have_outputs_and_slow_cells_are_named(tool, tmp_path, capsys):
    write(tmp_path, "one", "print('Model: a small one.')", "import time; time.sleep(1.5); 6 * 7")
    write(tmp_path, "two", "1")
    assert tool.main(["--keep"]) == 0
    page = (tool.OUT / "one.html").read_text(encoding="utf-8")
    assert "Model: a small one." in page and "42" in page
    kept = (tmp_path / "handouts" / "timings.md").read_text(encoding="utf-8")
    assert kept == (tool.OUT / "timings.md").read_text(encoding="utf-8")
    assert "Model: a small one;" in kept and "| one | 2 | 1 · A section (`cell-1`) 2 |" in kept
    assert "`cell-0`" not in kept
    assert not list((tmp_path / "notebooks").glob("*progress*")), "nothing is left beside the notebooks"


def test_only_the_named_ones_run_and_the_table_stays(tool, tmp_path, capsys):
    write(tmp_path, "one", "1")
    write(tmp_path, "two", "2")
    assert tool.main(["two"]) == 0
    assert [path.name for path in tool.OUT.glob("*.html")] == ["two.html"]
    assert not (tmp_path / "handouts" / "timings.md").exists() and not (tool.OUT / "timings.md").exists()
    assert tool.main(["three"]) == 1 and "three" in capsys.readouterr().err


def test_a_model_that_stands_in_for_another_is_named(tool, tmp_path):
    write(
        tmp_path,
        "one",
        "import sys; print('gpt2 is out of reach, so this is the offline model S (3 blocks) on cpu. Go on.', file=sys.stderr)",
    )
    assert tool.main([]) == 0
    assert "Model: S (3 blocks) on cpu;" in (tool.OUT / "timings.md").read_text(encoding="utf-8")


def test_a_cell_that_raises_stops_it(tool, tmp_path):
    write(tmp_path, "one", "1 / 0")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        tool.main([])

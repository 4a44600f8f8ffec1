"""How much a learner reads on the core path: what stands above *Go deeper*. `make check` tells the counts."""

from __future__ import annotations

import re

import pytest
from test_notebooks import NOTEBOOKS, read

WORDS, LINES, WIDTH = 1500, 160, 88


def core(nb) -> list:
    """The cells above *Go deeper*, without the solutions."""
    end = next(i for i, cell in enumerate(nb.cells) if re.search(r"^## Go deeper", cell.source, re.MULTILINE))
    return [cell for cell in nb.cells[:end] if "solution" not in cell.metadata.get("tags", [])]


def counts(nb) -> tuple[int, int]:
    """Words of prose, and lines of code that aren't empty."""
    prose = " ".join(cell.source for cell in core(nb) if cell.cell_type == "markdown")
    prose = re.sub(
        r"\[!\[[^)]*\)\]\([^)]*\)|(?<=\])\([^)]*\)|\$[^$]*\$", " ", prose
    )  # badges, links' targets, formulas
    code = [line for cell in core(nb) if cell.cell_type == "code" for line in cell.source.splitlines()]
    return len(re.findall(r"\w[\w'’.-]*", prose)), sum(bool(line.strip()) for line in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_core_path_is_short(path, record_property):
    words, lines = counts(read(path))
    record_property("length", f"{path.stem}: {words} words, {lines} lines of code")
    assert words <= WORDS and lines <= LINES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_line_of_code_fits_a_laptops_cell(path):
    code = [line for cell in read(path).cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    long = [line for line in code if len(line) > WIDTH and "://" not in line]
    assert long == []


if __name__ == "__main__":
    for path in NOTEBOOKS:
        print("{}: {} words, {} lines of code".format(path.stem, *counts(read(path))))

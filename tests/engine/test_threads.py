"""Threads that wait for each other go to sleep soon, unless the user said otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SAY = "import os; print(os.environ.get('GOMP_SPINCOUNT'), torch.get_num_threads())"


@pytest.mark.parametrize(
    "given, first, count",
    [
        ({}, "import interp_helpers, torch", "10000"),
        ({"GOMP_SPINCOUNT": "5"}, "import interp_helpers, torch", "5"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "import interp_helpers, torch", "None"),
        ({}, "import torch, interp_helpers", "None"),  # torch has read it, and it would mean nothing
    ],
)
def test_threads_sleep_soon_unless_the_user_or_torch_was_first(given, first, count):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment |= given | {"OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", f"{first}; {SAY}"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert said == [count, "2"]  # and the number of threads is the user's


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_import_the_helper_before_torch(path):
    code = [
        "".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"
    ]
    lines = "\n".join(code).splitlines()
    first = {name: next((i for i, line in enumerate(lines) if f"import {name}" in line or f"from {name}" in line), None)
             for name in ("interp_helpers", "torch")}  # fmt: skip
    assert first["torch"] is None or first["interp_helpers"] < first["torch"]

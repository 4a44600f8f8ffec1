"""Every notebook run by nbmake, untouched, on a GPT-2 that is narrow and knows nothing: what a lesson says must be true there, too.

`make test MODEL=gpt2` takes gpt2 itself (or whatever `load_model` takes) in its place, and `make test-all` the offline model and a second
real one besides.
Which of the lessons' expectations hold where is told in `build/expectations`.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from second import second_real_folder
from test_notebooks import NOTEBOOKS, ROOT, code_cells
from tiny import gpt2_shaped_folder

from interp_helpers import load_model

MODEL = os.environ.get("GLASS_BOX_MODEL") or "narrow"
TOLD = ROOT / "build" / "expectations"

pytestmark = pytest.mark.notebook


@pytest.fixture(scope="session")
def narrow(tmp_path_factory) -> str:
    """The folder of a GPT-2 with its layers, heads and tokenizer, an eighth of its width, and random weights."""
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    return str(
        gpt2_shaped_folder(folder, width=96, seed=1)
    )  # with seed 0 the lens reads one and the same token at every layer


@pytest.fixture(scope="session")
def second(tmp_path_factory) -> str:
    """The folder of the offline model without four of its blocks."""
    return str(second_real_folder(tmp_path_factory.mktemp("models") / "second"))


def on(path: Path, model: str, *marks):
    return pytest.param((path, model), id=f"{path.stem}-{model}", marks=marks)


RUNS = [on(path, MODEL) for path in NOTEBOOKS]
RUNS += [on(path, model, pytest.mark.slow) for model in ("offline", "second") for path in NOTEBOOKS]


@pytest.fixture(scope="module", params=RUNS)
def run(request, tmp_path_factory):
    """The notebook as nbmake leaves a copy of it, and the model's name."""
    path, model = request.param
    if model not in ("narrow", "offline", "second"):
        load_model(model, fallback=False)  # or an error that says how to get it
    folder = tmp_path_factory.mktemp("run")
    copy = shutil.copy(path, folder)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "INTERP_MODEL": request.getfixturevalue(model) if model in ("narrow", "second") else model,
        "INTERP_PROGRESS": str(folder / "progress.json"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    nbmake = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--nbmake",
        "--nbmake-timeout=600",
        "--overwrite",
    ]
    done = subprocess.run([*nbmake, copy], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
    return nbformat.read(copy, as_version=4), model


@pytest.fixture
def executed(run):
    return run[0]


@pytest.fixture
def model(run) -> str:
    return run[1]


def outputs(nb):
    return [(cell, output) for cell in code_cells(nb) for output in cell.outputs]


def printed(nb, stream="stdout") -> str:
    return "".join(output.text for _, output in outputs(nb) if output.get("name") == stream)


def test_nbmake_runs_it_to_its_end(executed):
    assert all(cell.execution_count for cell in code_cells(executed))
    assert [cell.id for cell, output in outputs(executed) if output.output_type == "error"] == []


def test_expectations_are_reported_and_fail_nothing(executed, model):
    calls = [
        node.value
        for cell in code_cells(executed)
        for node in ast.parse(re.sub(r"^( *)%.*", r"\1pass", cell.source, flags=re.MULTILINE)).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "expect"
    ]
    of_the_model = [call for call in calls if any(keyword.arg == "lm" for keyword in call.keywords)]
    text = printed(executed)
    held, failed = text.count("✓ on "), text.count("this does not hold: ")
    if model == "offline":
        assert held == failed == 0 and text.count("✓ as measured") == len(calls)
    else:
        assert held + failed == len(of_the_model) and (failed > 0 or model != "narrow")
        assert text.count("✓ as measured") == len(calls) - len(of_the_model)


def test_nothing_is_said_on_stderr_but_progress_bars(executed):
    said = printed(executed, "stderr")
    assert "Traceback" not in said and "Warning" not in said
    assert "Error" not in said


def test_every_figure_has_a_text_alternative(executed):
    figures = [(cell.id, output) for cell, output in outputs(executed) if "image/png" in output.get("data", {})]
    assert figures
    for id, output in figures:
        alt = output.metadata["image/png"]["alt"]
        assert len(alt) > 40 and output.data["text/plain"] == alt, id


def test_nothing_is_shown_as_a_bare_repr(executed):
    for cell, output in outputs(executed):
        text = output.get("data", {}).get("text/plain", "")
        assert not re.search(r"<[\w.]+ (object )?at 0x", text), cell.id


def test_untouched_exercises_say_so_and_solutions_pass(executed):
    found = [output.metadata["glassbox"] for _, output in outputs(executed) if "glassbox" in output.get("metadata", {})]
    assert {seen["status"] for seen in found if "exercise" in seen} == {"not attempted"}
    assert {seen["exercise"] for seen in found if "exercise" in seen} == {
        seen["solution"] for seen in found if "solution" in seen
    }


def test_it_is_told_which_expectations_hold(executed, model):
    said = printed(executed)
    held = ["".join(found) for found in re.findall(r"✓ on .+? too: (.*)|✓ as measured: (.*)", said)]
    failed = re.findall(r"this does not hold: (.*)\. The text describes", said)
    assert held or failed
    title = executed.cells[0].source.splitlines()[0]
    lines = [*(f"- holds: {one}" for one in held), *(f"- **does not hold**: {one}" for one in failed)]
    TOLD.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", f"{model} {title}").lower()
    (TOLD / f"{name}.md").write_text("\n".join([f"{title}, on {model}", "", *lines, ""]), encoding="utf-8")

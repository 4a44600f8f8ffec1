"""`make notebooks`: run every notebook from top to bottom on this machine, and keep them with their outputs as HTML, and how
long they took, in build/notebooks.

With names of notebooks (`02_causal_tracing`) only those. `--keep` writes the table of timings into handouts/timings.md, too.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
from datetime import date, datetime
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "notebooks"
LONG = 10  # seconds from which on a cell is named


def seconds(cell) -> float:
    """How long a cell ran; 0 where it didn't."""
    timing = cell.metadata.get("execution", {})
    begin, end = (timing.get(key) for key in ("iopub.execute_input", "shell.execute_reply"))
    if not begin or not end:
        return 0.0
    return (
        datetime.fromisoformat(end.replace("Z", "+00:00")) - datetime.fromisoformat(begin.replace("Z", "+00:00"))
    ).total_seconds()


def executed(path: Path, folder: Path):
    """The notebook with its outputs, run in a folder of its own; raises where a cell does."""
    nb = nbformat.read(path, as_version=4)
    environment = {**os.environ, "INTERP_PROGRESS": str(folder / "progress.json")}
    resources = {"metadata": {"path": str(folder)}}
    # A page shows the figure or text that stands for a widget, and would show a widget's saved state dead.
    client = NotebookClient(nb, timeout=900, kernel_name="python3", store_widget_state=False, resources=resources)
    client.execute(env=environment)
    return nb


def row(name: str, nb) -> str:
    """The notebook's line in the table."""
    total, long, heading = 0.0, [], ""
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            headings = [line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")]
            heading = headings[-1] if headings else heading
        else:
            total += seconds(cell)
            if seconds(cell) >= LONG:
                long.append(f"{heading} (`{cell.id}`) {seconds(cell):.0f}")
    return f"| {name} | {total:.0f} | {'; '.join(long) or '–'} |"


def table(rows: list[str], model: str) -> str:
    """The page of timings."""
    return "\n".join(
        [
            "# Timings",
            "",
            f"Seconds that the cells of each notebook take, from top to bottom, untouched. Model: {model}; {os.cpu_count()} cores of "
            f"{platform.machine()}, no GPU, Python {platform.python_version()}; {date.today():%B %Y}. `make notebooks` measures yours.",
            "",
            f"| notebook | seconds | cells of {LONG} seconds and more |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def main(arguments: list[str]) -> int:
    """Run, export, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="of notebooks; default: all")
    parser.add_argument("--keep", action="store_true", help="write handouts/timings.md, too")
    options = parser.parse_args(arguments)
    paths = [
        path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if not options.names or path.stem in options.names
    ]
    if len(paths) < len(options.names):
        print(
            f"Not all of {', '.join(options.names)} are names of notebooks, such as {paths[:1] or '01_activation_patching'}.",
            file=sys.stderr,
        )
        return 1
    OUT.mkdir(parents=True, exist_ok=True)
    exporter, rows, model = HTMLExporter(), [], ""
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            nb = executed(path, Path(folder))
        html, _ = exporter.from_notebook_node(nb, {"metadata": {"name": path.stem}})
        (OUT / f"{path.stem}.html").write_text(html, encoding="utf-8")
        nbformat.write(nb, OUT / path.name)
        said = "".join(o.get("text", "") for cell in nb.cells if cell.cell_type == "code" for o in cell.outputs)
        found = re.search(r"(?:^Model: |this is the offline model )(.+?)\.(?: |$)", said, re.MULTILINE)
        model = found[1] if found else model
        rows.append(row(path.stem, nb))
        print(rows[-1], flush=True)
    page = table(rows, model)
    if not options.names:
        (OUT / "timings.md").write_text(page, encoding="utf-8")
    if options.keep:
        (ROOT / "handouts" / "timings.md").write_text(page, encoding="utf-8")
    print(f"{len(paths)} notebooks as HTML in {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

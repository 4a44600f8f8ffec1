"""Run notebooks on a quiet machine and on a busy one: `python -m bench.busy 03_trainable_interventions`, from the repository's root.

Busy: two other processes of this script's own compute without a pause. A laptop in a workshop is like that. The bar: not more than three times
the quiet time. With `--cells` only the network of notebook 3 and DAS on it are timed, which takes seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUSY = "while True: sum(range(10**6))"
NOTEBOOK = """
import sys, tempfile, nbformat, nbclient
nb = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(nb, timeout=3600, kernel_name="python3", resources={"metadata": {"path": tempfile.mkdtemp()}}).execute()
"""
CELLS = """
import interp_helpers as ih, torch
from torch import nn
def inputs(n):
    return torch.randn(n, 16)
network = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
optimiser = torch.optim.AdamW(network.parameters())
for _ in range(1000):
    x = inputs(512)
    loss = nn.functional.cross_entropy(network(x), (x[:, 0] > 0).long())
    optimiser.zero_grad(); loss.backward(); optimiser.step()
pairs = [(base, source, int(source[0] > 0)) for base, source in zip(inputs(8000), inputs(8000))]
ih.train_das(network, "1", ih.RotatedSubspace(64, 1), pairs, steps=600, batch_size=256)
"""


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """While the block lasts, so many other processes compute."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def seconds(script: str, *arguments: str) -> float:
    """How long a script takes in a process of its own."""
    environment = {"GOMP_SPINCOUNT": "10000", **os.environ, "INTERP_MODEL": "offline", "TQDM_DISABLE": "1"}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, env=environment, check=True)
    return time.perf_counter() - start


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.busy", description="Time notebooks quietly and on a busy machine."
    )
    parser.add_argument("notebooks", nargs="*", help="names such as 03_trainable_interventions; by default all")
    parser.add_argument("--cells", action="store_true", help="only a small network and DAS on it")
    options = parser.parse_args(arguments)
    names = options.notebooks or sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    jobs = {name: (NOTEBOOK, str(ROOT / "notebooks" / f"{name}.ipynb")) for name in names}
    for name, job in ({"a small network": (CELLS,)} if options.cells else jobs).items():
        quiet = seconds(*job)
        with busy(2):
            shared = seconds(*job)
        print(
            f"{name:32} quiet {quiet:5.0f} s, beside two busy processes {shared:5.0f} s: {shared / quiet:.1f} times",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])

"""Colab, simulated: a lone notebook, an environment that has everything but the helper, and Colab's own versions.

What is simulated: a kernel in a fresh virtual environment that sees this one's packages except `interp_helpers`, a stub
of `google.colab`, and the repository's address answered by this very checkout. The set-up cell runs as it stands.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BY_HAND = "largest difference from the version by hand: 0.0e+00"
LAST_CELL = {  # how far to go (set-up, model, prompts, one experiment), and what is printed there
    "01_activation_patching": ("helper", BY_HAND),
    "02_causal_tracing": ("helper", BY_HAND),
    "03_trainable_interventions": ("names", "80 names; trained on 96 pairs of 32"),
    "04_position_specific": ("helper", BY_HAND),
    "05_collecting_activations": ("helper", BY_HAND),
    "06_generation_with_interventions": ("helper-where", "the helper writes the same texts"),
    "steering_workshop": ("expect-toronto", "steered, five texts or more name Toronto"),
}

# Colab in August 2026 (with Python 3.13): what the helper must leave alone.
COLAB = {
    "filelock": "3.20.0",
    "huggingface_hub": "1.12.0",
    "ipython": "7.34.0",
    "ipywidgets": "7.7.1",
    "matplotlib": "3.10.0",
    "numpy": "2.1.3",
    "packaging": "25.0",
    "platformdirs": "4.5.0",
    "pyyaml": "6.0.3",  # gguf's, as is requests
    "requests": "2.32.4",
    "safetensors": "0.7.0",
    "tokenizers": "0.22.2",
    "torch": "2.11.0+cu128",
    "tqdm": "4.67.1",
    "transformers": "5.15.0",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A git repository that holds the project as it is now, committed or not."""
    folder = tmp_path_factory.mktemp("repository")
    files = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in files:
        if name.startswith(("interp_helpers/", "pyproject.toml", "README.md", "LICENSE")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-q", "-m", "now")
    return folder


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def new_environment(folder: Path) -> tuple[Path, Path]:
    """A virtual environment without any package, not even pip: its python and its site-packages."""
    venv.create(folder, symlinks=True)
    python = next(path for path in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if path.exists())
    find = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return python, Path(subprocess.run([python, "-c", find], check=True, capture_output=True, text=True).stdout.strip())


def lend(packages: Path, to: Path, wanted=lambda name: True) -> None:
    """Let an environment see this one's packages: those whose names are wanted, by links in a folder of their own.

    (The `.pth` files among them, such as an editable installation's, have no effect there.)
    """
    packages.mkdir()
    for site in map(Path, sys.path):
        if site.name in ("site-packages", "dist-packages"):
            for entry in site.iterdir():
                if wanted(entry.name.lower().replace("-", "_")) and not (packages / entry.name).exists():
                    (packages / entry.name).symlink_to(entry)
    (to / "lent.pth").write_text(f"{packages}\n")


# -- the notebook on its own --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """pip reaches a package registry, from which the helper's build takes setuptools."""
    folder = tmp_path_factory.mktemp("download")
    fetch = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "-d",
        str(folder),
        "--retries=0",
        "--timeout=15",
    ]
    if subprocess.run([*fetch, "setuptools>=68"], capture_output=True).returncode:
        pytest.skip("no package registry is reachable, and the set-up cell needs one")


@pytest.fixture
def colab(tmp_path, monkeypatch, checkout, registry, offline_path):
    """What a notebook's kernel gets on Colab: its environment variables; the kernel's name is "colab"."""
    python, site = new_environment(tmp_path / "venv")
    lend(tmp_path / "packages", site, lambda name: "interp_helpers" not in name)
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").write_text("")
    (site / "zz_colab.pth").write_text("import google.colab\n")  # Colab's kernels have imported it, too
    spec = tmp_path / "share" / "kernels" / "colab"
    spec.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    address = re.search(r'^Repository = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return environment | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{checkout.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
        "INTERP_MODEL": "offline",
        "INTERP_PROGRESS": str(tmp_path / "progress.json"),
    }


def run(path: Path, environment: dict):
    """The notebook's first cells, run in its own folder by Colab's kernel; then where the helper was found."""
    nb = nbformat.read(path, as_version=4)
    last = [cell.id for cell in nb.cells].index(LAST_CELL[path.stem][0])
    where = "import interp_helpers, sys; print(interp_helpers.__file__, 'google.colab' in sys.modules)"
    nb.cells = [*nb.cells[: last + 1], nbformat.v4.new_code_cell(where, id="where")]
    client = NotebookClient(nb, timeout=300, kernel_name="colab", resources={"metadata": {"path": str(path.parent)}})
    client.execute(env=environment)
    return {cell.id: cell for cell in nb.cells}


def printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lone_notebook_installs_the_helper_and_runs(path, colab, tmp_path):
    (tmp_path / "content").mkdir()
    alone = Path(shutil.copy(path, tmp_path / "content"))
    first = run(alone, colab)
    assert "ERROR" not in printed(first["setup"]), printed(first["setup"])
    assert printed(first["where"]).startswith(str(tmp_path / "venv")) and printed(first["where"]).endswith("True\n")
    assert "Model: SmolLM2-135M-Instruct (offline)" in printed(first["imports"])
    last, says = LAST_CELL[path.stem]
    assert says in printed(first[last])
    assert any("✓ as measured" in printed(cell) for cell in first.values() if cell.cell_type == "code")
    again = run(alone, colab)
    assert again["setup"].outputs == [], "with the helper there, the set-up cell does nothing and says nothing"
    assert os.listdir(tmp_path / "content") == [path.name]


# -- beside Colab's versions --------------------------------------------------------------------------------------------


def gguf_wheel(folder: Path) -> None:
    """An empty wheel with the name, version and requirements of the gguf that is installed here."""
    name = f"gguf-{distribution('gguf').version}"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        for file in ("METADATA", "WHEEL"):
            wheel.writestr(f"{name}.dist-info/{file}", distribution("gguf").read_text(file))
        wheel.writestr(f"{name}.dist-info/RECORD", "")


def to_install(project: Path, versions: dict[str, str], folder: Path) -> subprocess.CompletedProcess:
    """What pip would install with the project where these versions are present; all that it can fetch is gguf."""
    python, site = new_environment(folder / "venv")
    lend(folder / "tools", site, re.compile(r"pip|wheel|_distutils_hack|setuptools(_.*)?").fullmatch)
    for name, version in versions.items():
        (site / f"{name}-{version}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (site / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata)
    gguf_wheel(folder)
    copy = shutil.copytree(project, folder / "project", ignore=shutil.ignore_patterns(".git"))
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--quiet",
        "--report",
        "-",
        "--no-index",
        f"--find-links={folder}",
        "--no-build-isolation",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHONPATH"))}
    environment["PIP_CONFIG_FILE"] = os.devnull
    return subprocess.run([*command, str(copy)], env=environment, capture_output=True, text=True)


@pytest.fixture
def setuptools():
    """Looked for, not imported: setuptools refuses to be imported after another test's package brought Python's distutils."""
    if find_spec("setuptools") is None:
        pytest.skip("the project is built with setuptools")


def test_the_helper_brings_gguf_and_changes_none_of_colabs_versions(checkout, setuptools, tmp_path):
    pip = to_install(checkout, COLAB, tmp_path)
    assert pip.returncode == 0, pip.stderr
    assert {package["metadata"]["name"] for package in json.loads(pip.stdout)["install"]} == {"interp-helpers", "gguf"}


def test_an_older_version_would_have_been_noticed(checkout, setuptools, tmp_path):
    pip = to_install(checkout, COLAB | {"ipywidgets": "7.5.1"}, tmp_path)
    assert pip.returncode != 0 and "requirement ipywidgets>=" in pip.stderr


def test_the_list_of_colabs_versions_is_complete():
    text = (ROOT / "pyproject.toml").read_text()
    needed = re.findall(r'"([\w.-]+)[><=]', re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1])
    assert set(needed) - {"gguf"} == set(COLAB) - {"pyyaml", "requests"}

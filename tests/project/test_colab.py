"""Colab, simulated: a lone notebook, an environment that has everything but the helper, and Colab's own versions.

What is simulated: a kernel in a fresh virtual environment that sees this one's packages except `interp_helpers`, a stub
of `google.colab`, and the repository's address answered by this very checkout. The set-up cell runs as it stands.
"""

from __future__ import annotations

import copy
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

from interp_helpers import personas
from interp_helpers.course.registry import everything

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.colab
WHOLE = ("01_activation_patching", "05_collecting_activations")

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
    "regex": "2025.11.3",
    "requests": "2.32.4",
    "safetensors": "0.7.0",
    "tokenizers": "0.22.2",
    "torch": "2.11.0+cu128",
    "tqdm": "4.67.1",
    "transformers": "5.15.0",
    "typing_extensions": "4.15.0",  # anywidget's
}
BROUGHT = ("gguf", "anywidget", "psygnal")  # what the helper has pip fetch there


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


# -- notebooks on their own ---------------------------------------------------------------------------------------------


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


def run(cells: list, folder: Path, environment: dict) -> list:
    """Cells, run by Colab's kernel in a folder with nothing in it but a notebook; then where the helper was found."""
    where = "import interp_helpers, sys; print(interp_helpers.__file__, 'google.colab' in sys.modules)"
    nb = nbformat.v4.new_notebook(cells=[*copy.deepcopy(cells), nbformat.v4.new_code_cell(where)])
    client = NotebookClient(nb, timeout=600, kernel_name="colab", resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    assert printed(nb.cells[-1]).startswith(str(folder.parent / "venv")) and printed(nb.cells[-1]).endswith("True\n")
    return [cell for cell in nb.cells[:-1] if cell.cell_type == "code"]


def printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def beginning(path: Path) -> list:
    """The set-up cell and the imports."""
    cells = {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}
    return [cells["setup"], cells["imports"]]


@pytest.fixture
def content(tmp_path) -> Path:
    (tmp_path / "content").mkdir()
    return tmp_path / "content"


def test_every_notebooks_beginning_runs_in_one_environment(colab, content):
    """The first set-up cell installs the helper; the others have nothing to do, and say nothing. All lessons have come with it."""
    registered = """
from interp_helpers import personas
from interp_helpers.course import registry
print(*personas(), *registry.everything("exercise"), *registry.everything("quiz"), registry._broken)
"""
    cells = [cell for path in NOTEBOOKS for cell in beginning(path)]
    *cells, last = run([*cells, nbformat.v4.new_code_cell(registered)], content, colab)
    assert "ERROR" not in printed(cells[0]), printed(cells[0])
    assert [cell.outputs for cell in cells[2::2]] == [[]] * (len(NOTEBOOKS) - 1)
    for imports in cells[1::2]:
        assert "Model: SmolLM2-135M-Instruct (offline)" in printed(imports)
    assert printed(last).split() == [*personas(), *everything("exercise"), *everything("quiz"), "{}"]
    assert os.listdir(content) == []


@pytest.mark.parametrize("name", WHOLE)
def test_a_lone_notebook_installs_the_helper_and_runs_to_its_end(name, colab, content):
    path = Path(shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", content))
    setup, *rest = run(nbformat.read(path, as_version=4).cells, content, colab)
    assert "ERROR" not in printed(setup), printed(setup)
    assert "Model: SmolLM2-135M-Instruct (offline)" in printed(rest[0])
    expected = sum(len(re.findall(r"^expect\(", cell.source, re.MULTILINE)) for cell in rest)
    assert sum(printed(cell).count("✓ as measured") for cell in rest) == expected > 0
    assert run(beginning(path), content, colab)[0].outputs == []
    assert os.listdir(content) == [path.name]


# -- beside Colab's versions --------------------------------------------------------------------------------------------


def empty_wheel(package: str, folder: Path) -> None:
    """An empty wheel with the name, version and requirements of a package that is installed here."""
    name = f"{package}-{distribution(package).version}"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.dist-info/METADATA", distribution(package).read_text("METADATA"))
        wheel.writestr(
            f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{name}.dist-info/RECORD", "")


def to_install(project: Path, versions: dict[str, str], folder: Path) -> subprocess.CompletedProcess:
    """What pip would install with the project where these versions are present; all that it can fetch is `BROUGHT`."""
    python, site = new_environment(folder / "venv")
    lend(folder / "tools", site, re.compile(r"pip|wheel|_distutils_hack|setuptools(_.*)?").fullmatch)
    for name, version in versions.items():
        (site / f"{name}-{version}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (site / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata)
    for package in BROUGHT:
        empty_wheel(package, folder)
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


def test_the_helper_brings_little_and_changes_none_of_colabs_versions(checkout, setuptools, tmp_path):
    pip = to_install(checkout, COLAB, tmp_path)
    assert pip.returncode == 0, pip.stderr
    assert {package["metadata"]["name"] for package in json.loads(pip.stdout)["install"]} == {
        "interp-helpers",
        *BROUGHT,
    }


def test_an_older_version_would_have_been_noticed(checkout, setuptools, tmp_path):
    pip = to_install(checkout, COLAB | {"ipywidgets": "7.5.1"}, tmp_path)
    assert pip.returncode != 0 and "requirement ipywidgets>=" in pip.stderr


def test_the_list_of_colabs_versions_is_complete():
    text = (ROOT / "pyproject.toml").read_text()
    needed = re.findall(r'"([\w.-]+)[><=]', re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1])
    assert set(needed) - set(BROUGHT) == set(COLAB) - {"pyyaml", "requests", "typing_extensions"}

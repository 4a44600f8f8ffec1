"""The project as a newcomer finds it: what the README says exists, the layers point one way, `make lab` works."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_importing_the_library_loads_neither_matplotlib_nor_ipywidgets():
    code = "import sys, interp_helpers; assert not {'matplotlib', 'ipywidgets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)]+)\)", README) + re.findall(r'(?:src|href)="([^"]+)"', README)
    here = [link for link in links if "://" not in link]
    assert len(here) >= 20
    assert [link for link in here if not (ROOT / link).exists()] == []


def test_the_gallery_shows_a_figure_of_each_notebook_and_says_what_it_shows():
    """Its numbers are those that the figure's text alternative has, as `make figures` drew it."""
    drawn = json.loads((ROOT / "slides" / "figures" / "index.json").read_text(encoding="utf-8"))
    cell = r'<a href="notebooks/([\w-]+)\.ipynb">(?:<picture>.*?)?<img src="([^"]+)\.\w+" alt="([^"]+)">(?:</picture>)?</a><br><b>([^<]+)</b>(.*?)</td>'
    gallery = re.findall(cell, README)
    assert [notebook for notebook, *_ in gallery] == [path.stem for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
    for notebook, figure, alt, title, line in gallery:
        assert len(alt) > 60 and len(line) > 60, title
        if figure.startswith("assets/"):
            assert (ROOT / f"{figure}.gif").stat().st_size < 1_000_000 and f'(<a href="{figure}.png">a still' in line
        else:
            name = figure.removeprefix("slides/figures/")
            assert name.startswith(f"{notebook}/")
            known = re.findall(r"\d+(?:\.\d+)?", drawn[name]["alt"])
            for number, percent in re.findall(r"(\d+(?:\.\d+)?)(%?)", f"{alt} {line}"):
                share = f"{int(number) / 100:.2f}" if percent else number
                assert number in known or share in known, f"{title} {number}{percent} is not in the figure"


def test_files_that_are_named_are_there():
    """In prose, docstrings and comments of every file that git tracks."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folder = r"\b(?:tests|interp_helpers|tools|bench|handouts|slides|notebooks|website|assets)/"
    gone = {}
    for name in listed:
        if Path(name).suffix in (".py", ".md", ".toml", ".ipynb", ".html", ".css") and (ROOT / name).is_file():
            named = re.findall(folder + r"[\w/.-]*\.(?:py|md|json|css)\b", (ROOT / name).read_text(encoding="utf-8"))
            gone |= {one: name for one in named if not (ROOT / one).exists()}
    assert gone == {}, "{file that isn't there: where it is named}"


def test_the_map_has_every_room_and_its_tests():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for folder in ("interp_helpers", "tests"):
        here = {path.parent.name for path in (ROOT / folder).glob("*/*.py")}
        named = {name for row in re.findall(r"^\|.*|^`tests/.*", text, re.M) for name in re.findall(r"(\w+)/?`", row)}
        assert here <= named, f"{folder} that the map leaves out: {here - named}"


def test_the_readmes_commands_are_targets_of_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    mentioned = set(re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", README, re.M))
    assert {a or b for a, b in mentioned} <= targets
    assert {"lab", "test"} <= targets


def test_every_notebook_stands_in_the_readme():
    for path in ROOT.glob("notebooks/*.ipynb"):
        assert f"notebooks/{path.name}" in README


def test_conda_installs_what_make_lab_installs():
    text = (ROOT / "environment.yml").read_text()
    assert re.search(r"- pip:\n\s+- -r requirements.txt\n", text)
    assert "-r requirements.txt" in (ROOT / "Makefile").read_text()
    wanted = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(wanted) == 2 and re.fullmatch(r"torch==[\d.]+", wanted[0]) and wanted[1] == "-e .[lab,demo]"


def test_the_oldest_versions_are_the_lower_ends_of_the_ranges():
    ranges = dict(re.findall(r'"([\w.]+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text()))
    for name, version in re.findall(r"^([\w.]+)==([\d.]+)", (ROOT / ".ci" / "oldest.txt").read_text(), re.M):
        if name != "numpy":
            assert f"{version}.".startswith(f"{ranges[name]}."), f"{name}: {version} is not the oldest, {ranges[name]}"


@pytest.mark.slow
def test_make_lab_in_a_fresh_clone_opens_the_notebooks(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = f"--no-browser --allow-root --port={port} --IdentityProvider.token=secret"
    seconds = []
    for _ in range(2):  # the first start installs; the second has nothing to do
        started = time.monotonic()
        log = (tmp_path / "log.txt").open("w")
        lab = subprocess.Popen(
            ["make", "lab", f"LAB_ARGS={arguments}"], cwd=clone, stdout=log, stderr=log, start_new_session=True
        )
        try:
            listing = answer(f"http://127.0.0.1:{port}/api/contents?token=secret", lab, within=900)
            seconds.append(time.monotonic() - started)
        finally:
            os.killpg(lab.pid, signal.SIGTERM)
            lab.wait(60)
        assert "01_activation_patching.ipynb" in listing, (tmp_path / "log.txt").read_text()[-2000:]
    print(f"first start {seconds[0]:.0f} s, second {seconds[1]:.0f} s")
    assert seconds[1] < 120
    shutil.rmtree(clone)


def answer(url: str, process: subprocess.Popen, within: float) -> str:
    """What the server says, as soon as it says anything."""
    last = None
    for _ in range(int(within)):
        try:
            return urllib.request.urlopen(url, timeout=5).read().decode()
        except OSError as error:
            last = error
        if process.poll() is not None:
            break
        time.sleep(1)
    return f"no answer from {url}: {last}; make ended with {process.poll()}"

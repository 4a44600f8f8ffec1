"""`python -m interp_helpers doctor`: is this machine ready for the course, and if not, what is to be done?

It looks at versions, device, memory, disk, models and the Hub, runs one forward pass, and ends with a verdict. It
downloads nothing, changes nothing, and takes seconds.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib import metadata

import huggingface_hub
from huggingface_hub import constants, errors
from packaging.requirements import Requirement

from . import load, offline
from .hub import hub_problem, is_cached

SHOWN = ("torch", "transformers", "huggingface_hub", "matplotlib", "ipywidgets", "jupyterlab")
PROMPT = "The Eiffel Tower is in the city of"


def run() -> int:
    """Print the report. Returns 0 if this machine is ready, else 1."""
    problems: list[str] = []
    for label, text in _report(problems):
        print(f"{label:<16}{text}", flush=True)
    if problems:
        print("\nNot ready: " + " ".join(problems))
        return 1
    print("\nReady: open the notebooks.")
    return 0


def _report(problems: list[str]) -> Iterator[tuple[str, str]]:
    """Lines (label, text), one by one as they are found out; what must be put right is added to `problems`."""
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    for package in SHOWN:
        yield package, version(package) or "not installed"
    problems += _unmet_requirements()

    yield "device", f"{load.best_device()} ({os.cpu_count()} CPU cores)"
    yield "memory", _memory()
    cache = offline.cache_folder()
    yield "free disk", f"{offline.free_bytes(cache) / 1e9:,.1f} GB for {cache}"

    wrong = offline.damage(offline.model_folder())
    yield "offline model", f"{'ready' if wrong is None else 'not prepared'} ({offline.model_folder()})"
    yield "Hub cache", ", ".join(_cached_models()) or "no models"
    yield "Hub", _hub()

    try:
        yield from _forward(problems)
    except Exception as error:  # whatever it is, the learner needs it as a sentence
        problems.append(str(error) or repr(error))


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _unmet_requirements() -> list[str]:
    """A sentence for each requirement of this package that is missing or of another version."""
    try:
        requirements = map(Requirement, metadata.requires("interp-helpers") or [])
    except metadata.PackageNotFoundError:  # used from a checkout, without being installed
        return []
    sentences = []
    for requirement in requirements:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            is_there = f"{found} is installed" if found else "is not installed"
            needed = requirement.specifier or "any version"
            sentences.append(
                f'{requirement.name} {is_there}, but {needed} is needed; run `pip install "{requirement}"`.'
            )
    return sentences


def _memory() -> str:
    try:
        total, free = (os.sysconf("SC_PAGE_SIZE") * os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows has none of it, macOS not all
        return "unknown on this system"
    return f"{total / 1e9:,.1f} GB, {free / 1e9:,.1f} GB free"


def _cached_models() -> list[str]:
    try:
        repos = huggingface_hub.scan_cache_dir(constants.HF_HUB_CACHE).repos
    except errors.CacheNotFound:
        return []
    models = sorted((repo.repo_id, repo.size_on_disk_str) for repo in repos if repo.repo_type == "model")
    return [f"{name} ({size}{'' if is_cached(name) else ', incomplete'})" for name, size in models]


def _hub() -> str:
    try:
        return hub_problem(load.DEFAULT) or "answers"
    except (ValueError, PermissionError):  # it answers, though it knows no gpt2, as a mirror may
        return "answers"


def _forward(problems: list[str]) -> Iterator[tuple[str, str]]:
    """Time a forward pass of the model that `load_model()` gives without downloading anything."""
    wanted = load.model_name()
    name = wanted if load.is_here(wanted) else load.OFFLINE
    if not load.is_here(name):
        problems.append(
            f"No model is on this machine: neither {wanted} nor the offline model; run `python -m interp_helpers "
            "fetch-model` (93 MB) while there is a network."
        )
        return
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        lm = load.load_model(name, fallback=False, local_files_only=True)
    loaded = time.perf_counter()
    lm(PROMPT)  # the first pass sets things up
    warm = time.perf_counter()
    (token, probability), *_ = lm.top(PROMPT, k=1)
    done = time.perf_counter()
    yield "model", f"{lm.name}: {lm.n_layers} blocks, loaded in {loaded - start:.1f} s on {lm.device}"
    if name != wanted:
        yield "", f"({wanted} is not on this machine; `load_model()` downloads it if the Hub answers)"
    yield "forward pass", f"{1000 * (done - warm):,.0f} ms; {PROMPT!r} → {token!r} ({probability:.0%})"

"""Load a model by name, wherever the notebook runs: from a folder, the Hugging Face cache, the Hub, or offline.

The four places are tried in that order, and none makes a class wait: the Hub is asked one question with a time limit,
where `transformers` by itself would retry for most of a minute. Which model came out is always said.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from huggingface_hub import utils as hub_utils
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from . import offline
from .hub import NEEDED_FILES, hub_problem, is_cached, is_connection_error
from .language_model import LanguageModel

DEFAULT = "gpt2"
OFFLINE = "offline"
OFFLINE_LABEL = f"{offline.NAME} (offline)"

# Of the extra arguments, those that say which files are meant: the tokenizer needs them too, the offline model doesn't.
WHICH_FILES = ("revision", "token", "cache_dir", "subfolder", "trust_remote_code")
HOW_TO_LOAD = ("dtype", "torch_dtype", "device_map", "attn_implementation")


def load_model(name: str | os.PathLike | None = None, *, device=None, fallback: bool = True, **kwargs) -> LanguageModel:
    """Load a model and its tokenizer, in float32 and evaluation mode, and print one line that says which.

    >>> lm = load_model("offline")  # SmolLM2-135M-Instruct, from the Python package index
    Model: SmolLM2-135M-Instruct (offline) (30 blocks) on cpu.
    >>> lm.n_layers, lm.d_model
    (30, 576)

    Args:
        name: a folder, a name on the Hugging Face Hub, or "offline"; by default the environment variable INTERP_MODEL,
            else "gpt2". Whatever is on this machine is used without asking the Hub.
        device: where to put it; by default CUDA, then MPS, then CPU.
        fallback: what to do if the model is neither on this machine nor reachable: load the offline model and say so
            (True), or raise (False). A name that the Hub answers for but doesn't know always raises.
        kwargs: go to `AutoModelForCausalLM.from_pretrained`, as `dtype`, `device_map`, `quantization_config`,
            `revision`. The offline model as a fallback takes only those that say how to load.

    Raises:
        FileNotFoundError: the folder doesn't exist, or it isn't a model's.
        ValueError: the Hub doesn't know the name, or this machine doesn't have the device.
        PermissionError: the model is gated, and its terms were not accepted under your account.
        ConnectionError: neither on this machine nor reachable, with fallback=False.
        RuntimeError: the files are there but can't be loaded; or neither the model nor the offline one can be had.
    """
    name = model_name(name)
    device = _device(device, kwargs)
    local_only = kwargs.pop("local_files_only", False)
    if name == OFFLINE or _is_path(name):
        folder = offline.offline_folder() if name == OFFLINE else _model_folder(name)
        return _say(_load(str(folder), OFFLINE_LABEL if offline.is_copy(folder) else name, device, kwargs))
    with suppress(RuntimeError):  # incomplete after all: a shard is missing or broken, which the Hub can mend
        if is_cached(name, **kwargs):
            return _say(_load(name, name, device, kwargs))
    problem = "local_files_only=True was asked for" if local_only else hub_problem(name, **kwargs)
    if problem is None:
        try:
            return _say(_load(name, name, device, kwargs, download=True))
        except RuntimeError as error:
            if not is_connection_error(error):
                raise
            problem = "the Hugging Face Hub answered, but the download broke off"
    if not fallback:
        raise ConnectionError(
            f"{name} is neither in the cache nor reachable ({problem}); connect this machine and call again, or name a "
            'folder that holds the model, or use load_model("offline").'
        )
    return _load_instead(name, problem, device, kwargs)


def model_name(name: str | os.PathLike | None = None) -> str:
    """The name that `load_model(name)` goes by: the argument, else INTERP_MODEL, else gpt2."""
    return os.fspath(name) if name else os.environ.get("INTERP_MODEL") or DEFAULT


def best_device() -> torch.device:
    """CUDA if there is any, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def is_here(name: str) -> bool:
    """Whether `load_model(name)` would need no network. Raises FileNotFoundError for a folder that is no model's."""
    if name == OFFLINE:
        return offline.is_prepared()
    return bool(_model_folder(name)) if _is_path(name) else is_cached(name)


def _is_path(name: str) -> bool:
    looks_like_one = name.startswith((".", "~", "/")) or "\\" in name or name.count("/") > 1 or os.path.isabs(name)
    return looks_like_one or os.path.exists(name)


def _model_folder(name: str) -> Path:
    folder = Path(name).expanduser()
    asked = f"INTERP_MODEL={name}" if name == os.environ.get("INTERP_MODEL") else f'"{name}"'
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else f"does not exist (looked for {folder.absolute()})"
        raise FileNotFoundError(
            f"The model folder {asked} {what}; name a folder that holds a model, or a name on the Hugging Face Hub."
        )
    if offline.is_copy(folder) and (wrong := offline.damage(folder)):
        raise FileNotFoundError(
            f"The offline model in {asked} is damaged: {wrong}; delete the folder and make it again with `python -m "
            "interp_helpers fetch-model --to DIR`."
        )
    for part, files in NEEDED_FILES.items():
        if not any((folder / file).is_file() for file in files):
            raise FileNotFoundError(
                f"The folder {asked} holds no model for transformers: its {part} ({' or '.join(files)}) is missing; "
                "name another, or save one there with `save_pretrained`."
            )
    return folder


def _device(device, kwargs: dict) -> torch.device | None:
    """The device to move the model to, or None where `device_map` places it."""
    if "device_map" in kwargs:
        if device is not None:
            raise ValueError(
                f"Got both device={device!r} and device_map={kwargs['device_map']!r}; give one of the two."
            )
        return None
    best = best_device()
    device = best if device is None else torch.device(device)
    if device.type in ("cuda", "mps") and device.type != best.type:
        raise ValueError(f'This machine has no "{device.type}" device; leave device out to get "{best.type}".')
    return device


def _load(source: str, label: str, device, kwargs: dict, *, download: bool = False) -> LanguageModel:
    precision = {"dtype", "torch_dtype", "quantization_config"} & kwargs.keys()
    options = kwargs if precision else kwargs | {"dtype": torch.float32}
    which = {key: kwargs[key] for key in WHICH_FILES if key in kwargs}
    try:
        with _quiet(download):
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=not download, **which)
            model = AutoModelForCausalLM.from_pretrained(source, local_files_only=not download, **options)
    except (OSError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise RuntimeError(
            f"{label} was found, but can't be loaded: {reason}. Its files may be incomplete; fetch them again."
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if device is not None and not getattr(model, "is_quantized", False):  # a quantised model is placed already
        model.to(device)
    return LanguageModel(model, tokenizer, label)


def _load_instead(name: str, problem: str, device, kwargs: dict) -> LanguageModel:
    try:
        folder = offline.offline_folder()
    except (OSError, RuntimeError, ValueError) as error:
        raise RuntimeError(
            f"{name} is neither in the cache nor reachable ({problem}), and the offline model can't be had either. {error}"
        ) from error
    lm = _load(str(folder), OFFLINE_LABEL, device, {key: kwargs[key] for key in HOW_TO_LOAD if key in kwargs})
    print(
        f"{name} is neither in the cache nor reachable ({problem}), so this is the offline model {offline.NAME} "
        f'({lm.n_layers} blocks) on {lm.device}. For {name}, connect and run this again; load_model("offline") asks for '
        "this one.",
        file=sys.stderr,
    )
    return lm


def _say(lm: LanguageModel) -> LanguageModel:
    print(f"Model: {lm.name} ({lm.n_layers} blocks) on {lm.device}.")
    return lm


@contextmanager
def _quiet(download: bool) -> Iterator[None]:
    """No bars and warnings of transformers in the notebook, except the bar of a download."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not hub_utils.are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # switches the Hub's bars off too
    if download and hub_bars:
        hub_utils.enable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        if hub_bars:
            hub_utils.enable_progress_bars()

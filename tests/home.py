"""The tests' own home, set before anything else is imported: nothing that they start writes into the user's.

What is only read is linked into it: the offline model, models of the Hugging Face Hub, the settings of pip, npm and git.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

OURS = "GLASS_BOX_TESTS_HOME"  # set in whatever the tests start, which has moved in already
SETTINGS = (".config/pip", ".pip", ".netrc", ".npmrc", ".gitconfig")


def places() -> list[Path]:
    """Where the course keeps what it makes, and where it keeps a learner's progress."""
    chosen = [Path(os.environ[name]).expanduser() for name in ("INTERP_CACHE", "INTERP_PROGRESS") if name in os.environ]
    return [user_cache_path("interp_helpers", False), user_data_path("interp_helpers"), *chosen]


def written(places: list[Path]) -> dict[Path, tuple[int, int]]:
    """The files there, with the time of their last change and their size."""
    files = [file for place in places for file in (place, *place.rglob("*")) if file.is_file()]
    return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in files}


def move_in() -> None:
    """Make a home for this process and those that it starts; it goes when this process ends."""
    user, hub = Path.home(), Path(os.environ.get("HF_HUB_CACHE", "~/.cache/huggingface/hub")).expanduser()
    models = Path(os.environ.get("INTERP_CACHE", places()[0])).expanduser()
    home = Path(tempfile.mkdtemp(prefix="glass-box-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for name in [n for n in os.environ if n.startswith("XDG_") or n in ("INTERP_CACHE", "INTERP_PROGRESS", "HF_HOME")]:
        del os.environ[name]
    os.environ |= {"HOME": str(home), OURS: str(home), "HF_HUB_CACHE": str(home / "hub")}
    links = {home / name: user / name for name in SETTINGS}
    links |= {home / "hub" / model.name: model for model in hub.glob("models--*")}
    links |= {user_cache_path("interp_helpers", False) / model.name: model for model in models.glob("SmolLM2*")}
    for link, target in links.items():
        if target.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)


BEFORE: dict[Path, tuple[int, int]] | None = (
    None  # what the user's places held; None in a process that the tests started
)
PLACES = places()
if OURS not in os.environ:
    BEFORE = written(PLACES)
    move_in()


def changed() -> list[str]:
    """The user's files that were written, made or removed since the tests began."""
    return [] if BEFORE is None else sorted(str(file) for file, _ in BEFORE.items() ^ written(PLACES).items())

"""Running the blocks of code that a page has."""

from __future__ import annotations

import linecache


def run(code: str, names: dict) -> dict:
    """Run a block with these names, and give back what it leaves; nnsight reads the source of its traces, so it is kept."""
    place = f"<block {hash(code)}>"
    linecache.cache[place] = (len(code), None, code.splitlines(keepends=True), place)
    exec(compile(code, place, "exec"), names)
    return names

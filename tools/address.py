"""Write the repository's address, which pyproject.toml holds, into the notebooks and the pages that need it.

A notebook opened on its own has nothing else to find the project by, so the address must stand in it.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("notebooks/*.ipynb"))]
# In a link or an install command (github.com/OWNER/NAME), and in a Colab link (…/github/OWNER/NAME/blob/…).
PLACES = re.compile(r"(github\.com/|research\.google\.com/github/)[\w.-]+/[\w-]+")


def repository() -> str:
    """OWNER/NAME of the repository, from pyproject.toml."""
    return re.search(
        r'^Repository = "https://github\.com/([\w.-]+/[\w-]+)"', (ROOT / "pyproject.toml").read_text(), re.M
    )[1]


if __name__ == "__main__":
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(PLACES.sub(rf"\g<1>{repository()}", text), encoding="utf-8")

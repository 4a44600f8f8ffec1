"""A real browser for the tests that need one; without one they are skipped, or fail where GLASS_BOX_REQUIRE_BROWSER=1 says so."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCREENSHOTS = ROOT / "build" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]


def need(condition, what: str):
    """Go on if there is what the tests need, else skip, or fail where it must be there."""
    if not condition:
        (pytest.fail if os.environ.get("GLASS_BOX_REQUIRE_BROWSER") == "1" else pytest.skip)(what)
    return condition


@pytest.fixture(scope="module")
def browser():
    """A browser, driven by playwright."""
    need(importlib.util.find_spec("playwright"), "playwright is not installed")
    found = need(next(filter(None, map(shutil.which, BROWSERS)), None), f"no browser: none of {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()

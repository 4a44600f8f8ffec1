"""Record the map of patches while somebody types: assets/live.gif, in real time, and its last picture, assets/live.png.

The live page is served on the offline model, and a browser types into it. Needs a browser (chromium) and playwright.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from io import BytesIO
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from interp_helpers import load_model
from interp_helpers.demo import serve
from interp_helpers.demo.app import create_app
from interp_helpers.demo.texts import Vectors

ASSETS = Path(__file__).resolve().parents[1] / "assets"
BASE, SOURCE = "The Colosseum is in the city of", "The Eiffel Tower is in the city of"
SIZE = {"width": 980, "height": 790}
COLOURS = 128
PAUSE = 150  # milliseconds
SECONDS, BYTES = 10, 1_000_000  # the most that it may take


class Film:
    """Pictures of a page, each with the seconds until the next."""

    def __init__(self, page):
        self.page, self.pictures, self.times = page, [], []

    def shoot(self) -> None:
        box = self.page.locator("#patches").bounding_box()
        shot = self.page.screenshot(clip={**box, "height": SIZE["height"] - box["y"]})
        self.times.append(time.monotonic())
        self.pictures.append(Image.open(BytesIO(shot)).convert("RGB"))

    def until(self, selector: str, rest: float = 0) -> None:
        """Go on until something is there, and for some seconds more."""
        while not self.page.locator(selector).count():
            self.shoot()
            self.page.wait_for_timeout(PAUSE)  # each picture takes the model a little of its time
        end = time.monotonic() + rest
        self.shoot()
        while time.monotonic() < end:
            self.shoot()

    def save(self) -> None:
        seconds = [b - a for a, b in zip(self.times, [*self.times[1:], self.times[-1] + 2], strict=True)]
        pictures, lasting = [], []
        for picture, each in zip(self.pictures, seconds, strict=True):
            if pictures and picture.tobytes() == pictures[-1].tobytes():
                lasting[-1] += each
            else:
                pictures.append(picture)
                lasting.append(each)
        palette = pictures[-1].quantize(COLOURS)
        frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
        path = ASSETS / "live.gif"
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=[1000 * each for each in lasting],
            loop=0,
            optimize=True,
        )
        pictures[-1].quantize(COLOURS).save(ASSETS / "live.png", optimize=True)
        total, size = sum(lasting), path.stat().st_size
        print(f"{path}: {total:.1f} s, {len(frames)} pictures, {size / 1000:.0f} kB.")
        if total > SECONDS or size > BYTES:
            sys.exit(f"It may take {SECONDS} s and {BYTES / 1000:.0f} kB at most: record it again on a quiet machine.")


def main() -> None:
    listener = serve.listen("127.0.0.1", 0)
    app = create_app(load_model("offline"), Vectors({}, {}, lambda persona, layer: None))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(f"http://127.0.0.1:{listener.getsockname()[1]}/#where")
        page.add_style_tag(content="header, footer, #where > .hint { display: none; }")
        page.locator("#patches[data-state=whole]").wait_for()  # of the first example: the model is warm
        page.get_by_label("Base: the prompt").fill(BASE)
        page.get_by_label("Source: the prompt").fill("The ")
        page.locator("#patches[data-state=problem]").wait_for()
        film = Film(page)
        film.shoot()
        page.get_by_label("Source: the prompt").focus()
        for n in range(4, len(SOURCE), 2):
            page.keyboard.type(SOURCE[n : n + 2])
            film.shoot()
        film.until("#patches[data-state=whole]", 0.8)
        page.locator("#patches td[data-layer='12'][data-position='2']").click()
        film.until("#patches .top", 0.2)
        film.save()
        browser.close()
    server.should_exit = True


if __name__ == "__main__":
    main()

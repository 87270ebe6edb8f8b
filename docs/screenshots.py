"""Makes the screenshots of docs/images that show pages: `python docs/screenshots.py`.

It trains two small policies on the tabletop (some minutes on a CPU), serves them as `gymnast view` does, and takes the
pictures in a headless Chromium. With `--runs FOLDER` it takes those that are there instead. Look at the pictures before
committing them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from chromium import BINARY, Browser  # noqa: E402

from gymnast_report.viewing import viewer  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SIZE = [
    "loop.iterations=6", "loop.tasks_per_iteration=8", "evaluation.every=2", "evaluation.tasks.args.count=40",
    "evaluation.videos=4", "seed=1",
]  # fmt: skip
RUNS = {"grpo": [], "grpo-fast": ["optimizer.args.learning_rate=5e-4"]}
"""Folder -> what is changed of the tabletop preset."""
WIDE, PHONE = 1100, 375


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder that holds the runs grpo and grpo-fast")
    given = parser.parse_args().runs
    if BINARY is None:
        print("There is no chromium on PATH. Install one, e.g. apt install chromium.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        runs = given or train(Path(temporary) / "runs")
        with viewer(runs) as server, Browser(Path(temporary) / "profile", width=WIDE, height=800) as browser:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            take(browser, server.url)
            server.shutdown()
    return 0


def train(folder: Path) -> Path:
    for name, changes in RUNS.items():
        command = [sys.executable, "-m", "gymnast_core.cli", "train", "tabletop", *SIZE, *changes]
        subprocess.run([*command, f"output={folder / name}"], check=True)
    return folder


def take(browser: Browser, url: str) -> None:
    """All pictures."""
    compare = "compare?run=grpo&run=grpo-fast"
    shoot(browser, url, "view-list.png", WIDE)
    shoot(browser, url + compare, "view-compare.png", WIDE)
    shoot(browser, url + "grpo/report.html", "report-top.png", WIDE, until="#groups")
    shoot(browser, url + "grpo/report.html", "report-group.png", WIDE, part="section[aria-labelledby=groups]")
    shoot(
        browser,
        url + "grpo/report.html",
        "report-phone.png",
        PHONE,
        until="section[aria-labelledby=curves] .chart:nth-child(2)",
    )


def shoot(browser: Browser, url: str, name: str, width: int, *, until: str = "", part: str = "") -> None:
    """One picture: of the page, of what comes before the element `until`, or of the element `part`."""
    browser.resize(width, 800)
    browser.open(url)
    browser.value("document.fonts.ready.then(() => true)")
    top, bottom = 0, browser.value("document.body.getBoundingClientRect().bottom + window.scrollY")
    if until:
        bottom = browser.value(f"document.querySelector('{until}').getBoundingClientRect().top + window.scrollY - 24")
    if part:
        found = f"document.querySelector('{part}').getBoundingClientRect()"
        top = browser.value(f"{found}.top + window.scrollY - 12")
        bottom = browser.value(f"{found}.bottom + window.scrollY + 12")
    browser.screenshot(IMAGES / name)
    crop(IMAGES / name, int(top), int(bottom))
    print(IMAGES / name)


def crop(path: Path, top: int, bottom: int) -> None:
    """Leave out what is above and below, and colours that nobody sees."""
    from PIL import Image

    with Image.open(path) as image:
        cut = image.convert("RGB").crop((0, top, image.width, min(bottom, image.height)))
    cut.quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())

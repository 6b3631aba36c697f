"""Make README.md's picture anew: the page of the results that docs/evidence keeps, in headless Chromium."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lowbit.benchmark.leaderboard.build import build

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / "docs" / "evidence"
PICTURE = ROOT / "docs" / "leaderboard.png"
SUITE = "pocket_ssql"
_PATIENCE = 60  # s until the page is drawn
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the picture; return 0."""
    parser = argparse.ArgumentParser(
        prog="python -m lowbit.tools.evidence.picture", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--output", type=Path, default=PICTURE)
    parser.add_argument("--width", type=int, default=1440, help="pixels")
    parser.add_argument("--height", type=int, default=1180, help="pixels")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        shutil.copytree(EVIDENCE / SUITE, runs)  # the page is written beside its results
        page = Path(build(runs))
        photograph(page, args.output, width=args.width, height=args.height)
    print(f"wrote {args.output}")
    return 0


def photograph(page: Path, picture: Path, *, width: int, height: int) -> None:
    """Write the top of a page as a picture.

    Raises:
        ImportError: selenium is not installed.
        TimeoutError: the page was not drawn.
    """
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for option in (*_OPTIONS, f"--window-size={width},{height}"):
        options.add_argument(option)
    # Named, so that selenium does not go looking for a driver on the network.
    service = webdriver.ChromeService(os.environ.get("CHROMEDRIVER", "/usr/bin/chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page.as_uri())
        end = time.monotonic() + _PATIENCE
        while not browser.execute_script("return document.documentElement.dataset.ready"):
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{page} was not drawn within {_PATIENCE} s; no picture was written"
                )
            time.sleep(0.1)
        picture.write_bytes(browser.get_screenshot_as_png())
    finally:
        browser.quit()


if __name__ == "__main__":
    sys.exit(main())

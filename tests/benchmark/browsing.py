"""A headless Chromium for the page's tests, and what they ask it."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1440,1000",
)
WATCH_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts.push(entry.value);
}).observe({ type: "layout-shift", buffered: true });
"""


def start(profile: Path) -> Any:
    """Start a browser that keeps its console and its requests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    for option in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Named, so that selenium does not go looking for a driver on the network.
    service = webdriver.ChromeService(os.environ.get("CHROMEDRIVER", "/usr/bin/chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    browser.set_script_timeout(240)  # seconds; a checker of pages takes long on a busy machine
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH_SHIFTS})
    return browser


def open_page(browser: Any, page: Path, hash: str = "", *, width: int = 1440, dark: bool = False):
    """Open a page at a width, in a theme, and wait until it is drawn."""
    emulate(browser, width=width, dark=dark)
    browser.get("about:blank")  # so that another hash is another visit
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page.as_uri() + hash)
    until(lambda: browser.execute_script("return document.documentElement.dataset.ready"))


def emulate(browser: Any, *, width: int, dark: bool) -> None:
    """Take on a screen's width and a theme; a narrow one is a phone's."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    # clicks do not wait for scrolling
    still = {"name": "prefers-reduced-motion", "value": "reduce"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme, still]})


def until(condition, seconds=20):
    """Wait until `condition` returns something true, and return that."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.05)
    return found


def console(browser: Any) -> list[str]:
    """Return what was written to the console since the page was opened."""
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser: Any) -> list[str]:
    """Return the addresses asked for since the page was opened."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]

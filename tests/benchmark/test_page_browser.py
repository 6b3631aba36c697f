"""The page in a real browser, opened from its file: sorting, filters, download, themes, names."""

import base64
import json
import os
import re
import time
from itertools import pairwise

import pytest

from tests.benchmark.board_frames import make_frame
from tests.benchmark.board_pages import HOSTILE, TABLE_11, build_page, hostile_frame

pytestmark = pytest.mark.browser

OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1440,1000"),
)
WATCH_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shifts.push(entry.value);
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    return {
        "full": build_page(root / "full", make_frame(), reported=TABLE_11),
        "hostile": build_page(root / "hostile", hostile_frame()),
        "empty": build_page(root / "empty", make_frame().iloc[:0]),
    }


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Named, so that selenium does not go looking for a driver on the network.
    service = webdriver.ChromeService(os.environ.get("CHROMEDRIVER", "/usr/bin/chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH_SHIFTS})
    yield driver
    driver.quit()


@pytest.fixture
def open_page(browser, pages):
    """Return a function that opens a page at a width, in a theme, and waits until it is ready."""

    def open_(name, *, width=1440, dark=False):
        _emulate(browser, width=width, dark=dark)
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(pages[name].as_uri())
        _until(lambda: browser.execute_script("return document.documentElement.dataset.ready"))
        return browser

    return open_


def _emulate(browser, *, width, dark):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    still = {
        "name": "prefers-reduced-motion",
        "value": "reduce",
    }  # clicks do not wait for scrolling
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme, still]})


def _until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.05)
    return found


def _column(browser, table, index):
    script = """
      const rows = document.querySelectorAll(`#${arguments[0]} tbody tr`);
      return [...rows].map((row) => row.cells[arguments[1]].dataset.order ?? row.cells[arguments[1]].innerText);
    """
    return browser.execute_script(script, table, index)


def _console(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def _requests(browser):
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]


@pytest.mark.parametrize("name", ["full", "hostile", "empty"])
def test_it_opens_from_its_file_silently_and_fetches_nothing(open_page, pages, name):
    browser = open_page(name)
    assert browser.title == "lowbit-bench leaderboard"
    assert _console(browser) == []
    requests = _requests(browser)
    assert requests[0] == pages[name].as_uri()
    assert all(url.startswith("data:") for url in requests[1:])


def test_a_script_that_tried_to_fetch_would_be_stopped(open_page):
    browser = open_page("empty")
    script = "fetch('https://example.org').catch((e) => arguments[0](String(e)))"
    assert "Failed to fetch" in browser.execute_async_script(script)
    assert any("Content Security Policy" in message for message in _console(browser))


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", ["full", "hostile"])
def test_nothing_moves_and_the_page_does_not_scroll_sideways(open_page, name, width):
    browser = open_page(name, width=width)
    root = browser.find_element("css selector", "html")
    assert root.get_property("scrollWidth") == root.get_property("clientWidth") > width - 20
    assert browser.execute_script("return window.shifts") == []


def _until_sorted(browser, table, index, key=str, *, reverse=False):
    # DataTables sorts after the event that asked for it
    def found():
        values = [key(value) for value in _column(browser, table, index)]
        return values if values == sorted(values, reverse=reverse) else None

    return _until(found)


def test_tables_sort_by_click_and_by_keyboard(open_page):
    browser = open_page("full")
    header = browser.find_elements("css selector", "#board thead th")
    column = [th.text for th in header].index("4w4a")
    button = header[column].find_element("css selector", ".dt-column-order")
    button.click()
    values = _until_sorted(browser, "board", column, float, reverse=True)  # the best come first
    assert values[-1] == -1  # what failed comes last
    assert header[column].get_attribute("aria-sort") == "descending"
    button.send_keys("\ue007")  # Enter
    _until_sorted(browser, "board", column, float)
    assert header[column].get_attribute("aria-sort") == "ascending"
    header[0].click()
    _until_sorted(browser, "board", 0)
    assert _console(browser) == []


def test_search_and_menus_filter_rows_and_say_how_many(open_page):
    browser = open_page("full")
    toolbar = browser.find_element("css selector", '.toolbar[data-for="board"]')
    count = toolbar.find_element("css selector", ".count")
    assert count.text == "31 rows"
    menu = toolbar.find_element("css selector", 'select[name="dataset"]')
    menu.find_element("css selector", 'option[value="cifar10"]').click()
    assert count.text == "10 of 31 rows"
    assert set(_column(browser, "board", 3)) == {"cifar10"}
    search = toolbar.find_element("css selector", "input")
    search.send_keys("ssql-r10")
    assert count.text == "2 of 31 rows"
    search.send_keys(" nothing")
    assert count.text == "0 of 31 rows"
    assert "No row matches" in browser.find_element("id", "board").text
    assert len(_column(browser, "detectors", 0)) == 9  # other tables are left alone


def test_menus_filter_by_hostile_values(open_page):
    browser = open_page("hostile")
    script = """
      const menu = document.querySelector('.toolbar[data-for="board"] select[name="dataset"]');
      menu.selectedIndex = 1;
      menu.dispatchEvent(new Event("change"));
      return menu.value;
    """
    value = browser.execute_script(script)
    assert value == "cifar100<i>\"'&amp;"
    assert set(_column(browser, "board", 3)) == {value}


def test_the_csv_downloads(open_page, pages, tmp_path):
    browser = open_page("full")
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    browser.find_element("id", "csv").click()
    file = tmp_path / "results.csv"
    expected = (pages["full"].parent / "results.csv").read_bytes()
    _until(lambda: file.exists() and file.read_bytes() == expected)


def test_curves_show_the_chosen_data_set(open_page):
    browser = open_page("full")
    _until(lambda: len(browser.find_elements("css selector", "#plot .scatterlayer .trace")) == 5)
    plotted = "return document.getElementById('plot').data.map((t) => t.y[0])"
    first = browser.execute_script(plotted)
    options = browser.find_elements("css selector", "#figure option")
    (linear,) = (option for option in options if option.text.startswith("digits · linear"))
    assert linear.text == "digits · linear · top-1 (%) (group E)"
    linear.click()
    assert browser.execute_script(plotted) != first
    assert browser.execute_script(plotted)[0] == pytest.approx(95.6, abs=0.1)


def test_legend_buttons_hide_and_show_lines(open_page):
    browser = open_page("full")
    button = browser.find_elements("css selector", "#legend button")[1]
    assert button.text == "cq-c-r10"
    visible = "return document.getElementById('plot').data.map((t) => t.visible)"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert browser.execute_script(visible) == [True, False, True, True, True]
    button.click()
    assert browser.execute_script(visible) == [True] * 5


def _luminance(colour):
    red, green, blue = (int(x) / 255 for x in re.findall(r"\d+", colour)[:3])
    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in (red, green, blue)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


COLOURS = """
  const page = getComputedStyle(document.body).backgroundColor;
  const probe = document.createElement("i");
  document.body.append(probe);
  const read = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
  const found = Object.fromEntries(arguments[0].map((name) => [name, read(name)]));
  probe.remove();
  return { page, ...found };
"""


@pytest.mark.parametrize("dark", [False, True])
def test_both_themes_have_contrast(open_page, dark):
    browser = open_page("full", dark=dark)
    texts = ["--text", "--muted", "--accent", "--bad", "--warn"]  # WCAG AA: 4.5
    lines = [f"--line-{index}" for index in range(7)]  # graphics: 3
    found = browser.execute_script(COLOURS, texts + lines)
    page = _luminance(found.pop("page"))
    assert (page < 0.05) == dark
    for name, colour in found.items():
        light, deep = sorted([_luminance(colour), page], reverse=True)
        contrast = (light + 0.05) / (deep + 0.05)
        assert contrast >= (4.5 if name in texts else 3), (name, contrast)


def test_curves_follow_the_theme_when_it_changes(open_page, browser):
    open_page("full")
    ink = "return document.getElementById('plot').layout.font.color"
    assert browser.execute_script(ink) == "#586172"
    _emulate(browser, width=1440, dark=True)
    _until(lambda: browser.execute_script(ink) == "#9ca6b5")


def test_hostile_names_are_drawn_as_text(open_page):
    browser = open_page("hostile")
    labels = [b.text for b in browser.find_elements("css selector", "#legend button")]
    assert sorted(labels) == sorted(" ".join(name.split()) for name in HOSTILE.values())
    chart = browser.find_element("id", "plot")
    webdriver = pytest.importorskip("selenium.webdriver")
    webdriver.ActionChains(browser).move_to_element(chart).perform()
    layer = browser.find_element("css selector", "#plot .hoverlayer")
    drawn = _until(lambda: layer.get_attribute("textContent"))
    for name in HOSTILE.values():
        visible = name.replace("\u202e", "").replace("\u202c", "")
        assert visible[:39] in drawn
    assert browser.execute_script("return window.hurt === undefined")
    assert (
        browser.execute_script("return document.querySelectorAll('#board i, #plot img').length")
        == 0
    )
    assert _console(browser) == []


def test_the_plot_keeps_its_place_on_a_phone(open_page):
    browser = open_page("full", width=390)
    boxes = browser.execute_script("""
      const box = (query) => document.querySelector(query).getBoundingClientRect().toJSON();
      return ["#curves h2", "#plot", "#legend"].map(box);
    """)
    for above, below in pairwise(boxes):
        assert above["bottom"] <= below["top"]
    assert boxes[1]["right"] <= 390
    ticks = browser.find_elements("css selector", "#plot .xtick text")
    assert [tick.text for tick in ticks] == ["FP", "8w8a", "5w5a", "4w4a", "3w3a", "2w2a"]


def test_the_picture_of_the_page_is_not_blank(open_page):
    browser = open_page("full")
    picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    assert len(base64.b64decode(picture)) > 40_000

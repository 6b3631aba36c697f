"""The page in a real browser, opened from its file: tables, links, downloads, themes, names, access."""

import base64
import csv
import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from lowbit.benchmark.leaderboard.boards import Board, Line
from lowbit.benchmark.leaderboard.page.render import render
from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.leaderboard.table_parts import Cell
from lowbit.benchmark.leaderboard.tables import Tables
from lowbit.benchmark.results.comparability import BOARD, SUBJECT, normalize
from lowbit.benchmark.results.result_file import ADAPTIVE
from tests.benchmark.board_frames import make_frame
from tests.benchmark.board_pages import HOSTILE, TABLE_11, build_page, hostile_frame
from tests.benchmark.browsing import console, emulate, open_page, requests, until

pytestmark = pytest.mark.browser
CIFAR_10 = {"paper": "SSQL", "table": "Table 11", "dataset": "CIFAR-10"}
AXE = "axe-core@4.10.3"


def _small_frame() -> pd.DataFrame:
    """Return little of everything, failures among it."""
    frame = make_frame()
    return frame[
        frame["dataset"].isin(["digits", "digit-scenes"]) & (frame["protocol"] != "finetune")
    ]


def _many_rows(path: Path) -> Path:
    """Write a page of 5,000 rows in ten groups."""
    tables = Tables(normalize(make_frame().iloc[:0]))
    tables.boards = [
        Board(
            group=f"G{n}",
            facts=dict.fromkeys((*BOARD, *ADAPTIVE), "-")
            | {"task": "classification", "dataset": f"set {n}"},
            lines=[
                Line(
                    dict.fromkeys(SUBJECT, "-") | {"checkpoint": f"net {500 * n + m:04}"},
                    {(p, "top1"): Cell(value=m / 10, n_seeds=1, n_jobs=1) for p in ("FP", "4w4a")},
                )
                for m in range(500)
            ],
            precisions=["FP", "4w4a"],
            metrics=["top1"],
            images=[540],
        )
        for n in range(10)
    ]
    page = render(Source(tables, path.parent))
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    return {
        "full": build_page(root / "full", make_frame(), reported=TABLE_11),
        "hostile": build_page(root / "hostile", hostile_frame()),
        "empty": build_page(root / "empty", make_frame().iloc[:0]),
        "small": build_page(root / "small", _small_frame(), reported=[CIFAR_10]),
        "many": _many_rows(root / "many.html"),
    }


@pytest.fixture
def visit(browser, pages):
    """Return a function that opens a page and returns the browser."""

    def visit(name, hash="", **screen):
        open_page(browser, pages[name], hash, **screen)
        return browser

    yield visit
    browser.execute_script("try { localStorage.clear() } catch { }")


def _rows(browser, table="classification", column="checkpoint"):
    """Return the texts of a column, or what it is sorted by, of the rows on the screen."""
    script = """
      const table = document.getElementById(`${arguments[0]}-table`);
      const at = [...table.tHead.rows[0].cells].findIndex((th) => th.innerText.trim().toLowerCase() === arguments[1]);
      const rows = [...table.tBodies[0].rows].filter((row) => !row.matches(".group"));
      return rows.map((row) => (row.cells[at].querySelector(".name, .value") ?? row.cells[at]).innerText);
    """
    return browser.execute_script(script, table, column)


def _parts(browser, table="classification"):
    """Return, group by group, the column of 4w4a as numbers; what failed is -1."""
    script = """
      const table = document.getElementById(`${arguments[0]}-table`);
      const at = [...table.tHead.rows[0].cells].findIndex((th) => th.innerText.trim() === "4w4a");
      const parts = [];
      for (const row of table.tBodies[0].rows) {
        if (row.matches(".group")) parts.push([]);
        else parts.at(-1).push(Number(row.cells[at].querySelector(".value")?.innerText ?? -1));
      }
      return parts;
    """
    return browser.execute_script(script, table)


def _count(browser, table="classification"):
    return browser.find_element("css selector", f"#{table} .count").text


def _menu(browser, name, table="classification"):
    return browser.find_element("css selector", f'#{table} select[name="{name}"]')


def _choose(menu, text):
    next(o for o in menu.find_elements("css selector", "option") if o.text == text).click()


@pytest.mark.parametrize("name", ["full", "hostile", "empty", "many"])
def test_it_opens_from_its_file_silently_and_fetches_nothing(visit, pages, name):
    browser = visit(name)
    assert browser.title == "lowbit-bench leaderboard"
    assert console(browser) == []
    first, *others = requests(browser)
    assert first == pages[name].as_uri()
    assert all(url.startswith(("data:", "blob:")) for url in others)


def test_a_script_that_tried_to_fetch_would_be_stopped(visit):
    browser = visit("empty")
    script = "fetch('https://example.org').catch((e) => arguments[0](String(e)))"
    assert "Failed to fetch" in browser.execute_async_script(script)
    assert any("Content Security Policy" in message for message in console(browser))


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", ["full", "hostile"])
def test_nothing_moves_and_the_page_does_not_scroll_sideways(visit, name, width):
    browser = visit(name, width=width)
    root = browser.find_element("css selector", "html")
    assert root.get_property("scrollWidth") == root.get_property("clientWidth") > width - 20
    assert browser.execute_script("return window.shifts") == []


@pytest.mark.parametrize(("part", "end"), [(".facts", "</dl>"), (".bar", "</nav>")])
def test_nothing_side_by_side_shows_before_the_page_is_read_to_its_end(
    browser, pages, tmp_path, part, end
):
    shown = f"getComputedStyle(document.querySelector('{part}')).visibility"
    text = pages["full"].read_text(encoding="utf-8")
    looking = text.replace(end, f"<script>window.early = {shown}</script>{end}", 1)
    (tmp_path / "looking.html").write_text(looking, encoding="utf-8")
    open_page(browser, tmp_path / "looking.html")
    assert browser.execute_script(f"return [window.early, {shown}]") == ["hidden", "visible"]
    without = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    (tmp_path / "without.html").write_text(without, encoding="utf-8")
    browser.get((tmp_path / "without.html").as_uri())
    assert browser.execute_script(f"return {shown}") == "visible"  # to readers without scripts


def test_tables_sort_by_click_and_by_keyboard_inside_their_groups(visit):
    browser = visit("full")
    header = browser.find_elements("css selector", "#classification-table thead th")
    fours = next(th for th in header if th.text.strip() == "4w4a")
    before = _parts(browser)
    button = fours.find_element("css selector", ".dt-column-order")
    button.click()
    until(lambda: fours.get_attribute("aria-sort") == "descending")  # the best come first
    assert _parts(browser) == [sorted(part, reverse=True) for part in before]
    assert [part[-1] for part in _parts(browser)].count(-1) == 1  # what failed comes last
    button.send_keys("\ue007")  # Enter
    until(lambda: fours.get_attribute("aria-sort") == "ascending")
    assert _parts(browser) == [sorted(part) for part in before]
    button.send_keys("\ue007")  # a third time: as it was
    until(lambda: not fours.get_attribute("aria-sort"))
    assert _parts(browser) == before
    assert console(browser) == []


def test_search_and_menus_filter_rows_and_say_how_many(visit):
    browser = visit("full")
    assert _count(browser) == "31 rows"
    _choose(_menu(browser, "dataset"), "cifar10")
    assert _count(browser) == "10 of 31 rows"
    assert len(_parts(browser)) == 2  # linear and finetune
    search = browser.find_element("css selector", "#classification input[type=search]")
    search.send_keys("ssql-r10")
    assert _count(browser) == "2 of 31 rows"
    search.send_keys(" nothing")
    assert _count(browser) == "0 of 31 rows"
    assert "No row matches" in browser.find_element("id", "classification-table").text
    assert _count(browser, "detection") == "9 rows"  # other tables are left alone
    browser.find_element("css selector", "#classification .found .quiet").click()
    assert _count(browser) == "31 rows"
    assert console(browser) == []


def test_menus_filter_by_hostile_values(visit):
    browser = visit("hostile")
    menu = _menu(browser, "dataset")
    _choose(menu, "cifar100<i>\"'&amp;")
    assert _count(browser) == "10 of 31 rows"
    assert (
        browser.execute_script("return document.querySelectorAll('#classification i').length") == 0
    )


def test_a_link_shows_the_same_rows_in_the_same_order_again(visit, browser):
    visit("full")
    _choose(_menu(browser, "dataset"), "cifar10")
    header = browser.find_elements("css selector", "#classification-table thead th")
    next(th for th in header if th.text.strip() == "4w4a").click()
    browser.find_element("css selector", "#classification-table tbody input").click()
    _choose(browser.find_element("id", "spread"), "95 % CI")
    shown = _parts(browser), _rows(browser)
    browser.execute_script(
        "navigator.clipboard.writeText = async (text) => { window.copied = text; }"
    )
    buttons = browser.find_elements("css selector", "#classification .actions button")
    buttons[-1].click()
    until(lambda: buttons[-1].text == "Link copied")
    link = browser.execute_script("return window.copied")
    visit("full", "#" + link.partition("#")[2])
    assert (_parts(browser), _rows(browser)) == shown
    assert _count(browser) == "10 of 31 rows"
    assert browser.execute_script("return location.hash").startswith("#classification?")
    chosen = browser.find_elements("css selector", "#classification-table tr.chosen")
    assert len(chosen) == 2  # one checkpoint, two groups
    small = browser.find_element("css selector", "#classification-table td .interval")
    assert re.fullmatch(r"\[\d+\.\d, \d+\.\d\]", small.text)
    top = browser.execute_script(
        "return document.getElementById('classification').getBoundingClientRect().top"
    )
    assert 0 <= top < 120


def test_a_link_of_the_page_to_a_place_keeps_the_choices(visit):
    browser = visit("full", "#classification?classification.dataset=digits")
    browser.execute_script("location.hash = '#notes'")
    until(lambda: browser.execute_script("return location.hash").startswith("#notes?"))
    assert _count(browser) == "11 of 31 rows"
    browser.execute_script("location.hash = '#classification?classification.dataset=cifar10'")
    until(lambda: _menu(browser, "dataset").get_property("value") == "cifar10")


@pytest.mark.parametrize(
    "hash",
    ["#nowhere?classification.sort=zz:up&x=%zz", "#classification?classification.dataset=gone"],
)
def test_a_link_to_what_is_no_more_shows_everything(visit, hash):
    browser = visit("full", hash)
    assert _count(browser) == "31 rows"
    assert console(browser) == []


def test_chosen_checkpoints_can_be_shown_alone(visit):
    browser = visit("full")
    only = browser.find_element("css selector", "#classification .only")
    assert not only.is_displayed()
    browser.find_elements("css selector", "#classification-table tbody input")[1].click()
    assert only.text == "only the 6 chosen"
    only.click()
    assert set(_rows(browser)) == {"cq-c-r10"}
    assert _count(browser) == "6 of 31 rows"


def _downloaded(browser, folder, name, label):
    behaviour = {"behavior": "allow", "downloadPath": str(folder)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    buttons = browser.find_elements("css selector", "#classification .actions button")
    next(button for button in buttons if button.text == label).click()
    file = folder / name
    until(lambda: file.exists() and file.stat().st_size)
    return file.read_text(encoding="utf-8")


def test_what_is_shown_downloads_as_csv(visit, tmp_path):
    browser = visit(
        "full", "#classification?classification.dataset=cifar10&classification.search=ssql-r10"
    )
    text = _downloaded(browser, tmp_path, "classification.csv", "CSV")
    first, second = csv.DictReader(io.StringIO(text))
    assert first["group"] == "cifar10, linear (group A)"
    assert (first["Checkpoint"], first["4w4a seeds"], first["4w4a rank"]) == ("ssql-r10", "3", "1")
    assert float(first["4w4a low"]) < float(first["4w4a"]) < float(first["4w4a high"])
    assert second["group"] == "cifar10, finetune (group B)"


def test_what_is_shown_downloads_as_markdown_and_latex(visit, tmp_path):
    browser = visit(
        "full", "#classification?classification.dataset=cifar10&classification.search=ssql-r10"
    )
    text = _downloaded(browser, tmp_path, "classification.md", "Markdown")
    assert text.startswith("## Classification accuracy (%)\n\n### cifar10, linear (group A)\n")
    assert re.search(
        r"^\| ssql-r10 \| SSQL \| resnet10\\_slim \| \*82\.6 ± 0\.6\* <sup>1</sup>", text, re.M
    )
    text = _downloaded(browser, tmp_path, "classification.tex", "LaTeX")
    assert r"\toprule" in text
    assert r"\multicolumn{10}{l}{\emph{cifar10, linear (group A)}} \\" in text
    assert r"ssql-r10 & SSQL & resnet10\_slim & \textit{82.6 $\pm$ 0.6}$^{1}$" in text
    rows = [
        line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    assert {line.count("&") - line.count(r"\&") for line in rows} == {9}


def test_hostile_names_are_escaped_in_downloads(visit, tmp_path):
    browser = visit(
        "hostile", "#classification?classification.dataset=digits%3Ci%3E%22%27%26amp%3B"
    )
    text = _downloaded(browser, tmp_path, "classification.md", "Markdown")
    assert r"&lt;script&gt;window.hurt=1&lt;/script&gt;" in text
    assert r"a \| b &amp; c\_d {e} \~ ^ \\ #1 100%" in text
    text = _downloaded(browser, tmp_path, "classification.tex", "LaTeX")
    assert (
        r"a \textbar{} b \& c\_d \{e\} \textasciitilde{} \textasciicircum{} \textbackslash{} \#1 100\%"
        in text
    )
    assert "\u202e" not in text


def test_five_thousand_rows_are_paged_and_searched_at_once(visit):
    browser = visit("many")
    assert _count(browser) == "5,000 rows"
    assert len(_rows(browser)) == 100
    pages = browser.find_element("css selector", "#classification .pages")
    assert "1–100 of 5,000" in pages.text
    pages.find_elements("css selector", "button")[1].click()
    assert "101–200 of 5,000" in pages.text
    seconds = browser.execute_script("""
      const start = performance.now();
      const search = document.querySelector("#classification input[type=search]");
      search.value = "net 4321";
      search.dispatchEvent(new Event("input"));
      return (performance.now() - start) / 1000;
    """)
    assert _rows(browser) == ["net 4321"]
    assert not pages.is_displayed()
    assert seconds < 2


def test_the_theme_switch_is_remembered(visit, browser):
    ground = "return getComputedStyle(document.body).backgroundColor"
    visit("full")
    light = browser.execute_script(ground)
    button = browser.find_element("id", "theme")
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    dark = browser.execute_script(ground)
    assert _luminance(dark) < 0.05 < _luminance(light)
    assert button.get_attribute("aria-pressed") == "true"
    visit("full")
    assert browser.execute_script(ground) == dark
    emulate(browser, width=1440, dark=False)
    assert browser.execute_script(ground) == dark  # the reader's word counts, not the system's


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
def test_both_themes_have_contrast(visit, dark):
    browser = visit("empty", dark=dark)
    texts = ["--text", "--muted", "--accent", "--good", "--bad", "--warn"]  # WCAG AA: 4.5
    lines = [f"--line-{index}" for index in range(7)]  # graphics: 3
    found = browser.execute_script(COLOURS, texts + lines)
    page = _luminance(found.pop("page"))
    assert (page < 0.05) == dark
    for name, colour in found.items():
        light, deep = sorted([_luminance(colour), page], reverse=True)
        contrast = (light + 0.05) / (deep + 0.05)
        assert contrast >= (4.5 if name in texts else 3), (name, contrast)


def test_hostile_names_are_shown_as_text(visit):
    browser = visit("hostile")
    script = "return [...document.querySelectorAll('#classification-table th .name')].map((n) => n.textContent)"
    assert set(browser.execute_script(script)) >= set(HOSTILE.values())
    assert browser.execute_script("return window.hurt === undefined")
    assert (
        browser.execute_script("return document.querySelectorAll('main i, main img').length") == 0
    )
    assert console(browser) == []


def test_a_phone_hides_menus_until_asked(visit):
    browser = visit("full", width=390)
    menu = _menu(browser, "dataset")
    assert not menu.is_displayed()
    browser.find_element("css selector", "#classification .filters").click()
    assert menu.is_displayed()
    _choose(menu, "cifar10")
    assert browser.find_element("css selector", "#classification .filters").text == "Filters (1)"


@pytest.fixture(scope="session")
def axe(request, tmp_path_factory):
    """The accessibility checker's script, fetched once into pytest's cache, where it has one."""
    cache = getattr(request.config, "cache", None)
    folder = cache.mkdir("axe") if cache else tmp_path_factory.mktemp("axe")
    if not (folder / "axe.min.js").exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed, so axe-core cannot be fetched")
        fetched = subprocess.run(
            [npm, "pack", AXE, "--pack-destination", folder, "--silent"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if fetched.returncode:
            pytest.skip(f"axe-core could not be fetched: {fetched.stderr.strip()[-200:]}")
        with tarfile.open(folder / fetched.stdout.strip()) as archive:
            script = archive.extractfile("package/axe.min.js").read()
        (folder / "axe.min.js").write_bytes(script)
    return (folder / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])
def test_axe_finds_no_serious_violation(visit, axe, width, dark):
    browser = visit("small", width=width, dark=dark)
    browser.execute_script(axe)
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    serious = [
        (violation["id"], violation["nodes"][0]["html"][:200], len(violation["nodes"]))
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert len(found["passes"]) > 20  # it did look


def test_the_picture_of_the_page_is_not_blank(visit):
    browser = visit("full")
    picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    assert len(base64.b64decode(picture)) > 40_000

"""Curves, checkpoints, coverage, claims and reproduction in a real browser."""

import re

import pytest
import yaml

from lowbit.benchmark.claims.claim import load_claims
from lowbit.benchmark.leaderboard import tables
from lowbit.benchmark.leaderboard.page.render import render
from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.planning.plan_file import PlannedJob, PlannedSuite
from tests.benchmark.board_frames import make_frame
from tests.benchmark.board_pages import HOSTILE, hostile_frame
from tests.benchmark.browsing import console, open_page, requests, until
from tests.benchmark.claims.made_results import Runs
from tests.benchmark.leaderboard.page.test_reproduction import Row
from tests.benchmark.page_sources import make_source

pytestmark = pytest.mark.browser
_FACTS = {"dataset": "digits", "protocol": "knn", "engine": "torch", "seed": 0}


def _source(frame, **changes) -> Source:
    """Return a part of a frame with costs, and a suite of which two jobs wait."""
    frame = frame[~frame["dataset"].str.startswith("cifar100")]
    bits = frame["precision"].str.extract(r"(\d+)w")[0].astype(float).fillna(32)
    frame = frame.assign(weight_bytes=1e5 * bits, bit_operations=1e6 * bits**2)
    jobs = [
        PlannedJob(
            f"{n:012x}", "transfer", "knn", "ssql-r10", "SSQL", "-", ("FP", "4w4a"), facts=_FACTS
        )
        for n in range(2)
    ]
    return make_source(frame, planned=[PlannedSuite("demo", tuple(jobs))], **changes)


def _published():
    """Return what stands for the reproduction of a table."""
    return [
        Row("Table 11", "reproduced", ours=65.0, sd=0.4, n_seeds=3, difference=0.9),
        Row("Table 11", "differs", ours=60.0, n_seeds=1, difference=-4.1, precision="FP"),
        Row("Table 12", "not run", system="<script>hurt=9</script>"),
    ]


def _claimed(folder):
    """Write results that support a claim, contradict one, and leave one undecided; return the folder."""
    runs = Runs(folder)
    for method, values in {
        "SSQL": (
            {"FP": 90.0, "4w4a": 85.0},
            {"FP": 90.1, "4w4a": 85.1},
            {"FP": 90.3, "4w4a": 95.0},
        ),
        "SimSiam": ({"FP": 95.0, "4w4a": 80}, {"FP": 95.2, "4w4a": 84}, {"FP": 95.2, "4w4a": 79}),
    }.items():
        runs.method(method, dict(enumerate(values)))
        runs.method(method, dict(enumerate(values[:1])), protocol="finetune")
    for method, shift in (("BYOL+SSQL", 3.0), ("BYOL", 0.0)):
        runs.method(method, {s: {"FP": 80.0 + s + shift * (1 + 0.01 * s)} for s in range(3)})
    return runs.folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("sections") / "leaderboard"
    root.mkdir()
    frames = {"full": make_frame(), "hostile": hostile_frame()}
    runs = _claimed(tmp_path_factory.mktemp("runs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "reproduce", lambda frame, planned: _published())
        for name, frame in frames.items():
            (root / f"{name}.html").write_text(
                render(_source(frame, runs_dir=runs)), encoding="utf-8"
            )
    return {name: root / f"{name}.html" for name in frames}


@pytest.fixture
def visit(browser, pages):
    """Return a function that shows a page at an address, loading it only if need be.

    `screen` (a width, a theme) asks for a new visit.
    """

    def visit(name, hash="#curves", **screen):
        if screen or not browser.current_url.startswith(pages[name].as_uri()):
            open_page(browser, pages[name], hash, **screen)
        else:  # any choice in the address replaces those before
            address = hash if "?" in hash else f"{hash}?-=-"
            browser.execute_script("location.hash = arguments[0]", address)
            until(lambda: address in browser.current_url)
        return browser

    return visit


def _plotted(browser, chart="#curves .chart"):
    """Return the names, x and y of a chart's traces, once they are drawn."""
    script = """
      const chart = document.querySelector(arguments[0]);
      chart.scrollIntoView();
      return chart.data?.map(({ name, x, y }) => [name ?? "front", x, y]);
    """
    traces = until(lambda: browser.execute_script(script, chart))
    return {name: dict(zip(x, y, strict=True)) for name, x, y in traces}


def _texts(browser, selector):
    return [e.text for e in browser.find_elements("css selector", selector)]


def _choose(browser, selector, value):
    browser.execute_script(
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('change'));",
        selector,
        value,
    )


def test_curves_draw_the_boards_numbers(visit):
    browser = visit("full", "#curves")
    until(lambda: len(_plotted(browser)) == 5)
    drawn = _plotted(browser)
    assert set(drawn) == {"ssql-r10", "cq-c-r10", "simclr-r10", "simsiam-r10", "untrained"}
    assert list(drawn["ssql-r10"]) == ["FP", "8w8a", "5w5a", "4w4a", "3w3a", "2w2a"]
    source = _source(make_frame())
    board = source.tables.boards[0]
    line = next(line for line in board.lines if line.subject["checkpoint"] == "ssql-r10")
    assert drawn["ssql-r10"]["4w4a"] == pytest.approx(line.cells["4w4a", "top1"].value, abs=1e-3)


def test_a_link_holds_board_view_and_checkpoints_and_nothing_moves(visit, browser):
    hash = (
        "#curves?curves.board=C.top-1&curves.view=retained&checkpoint=ssql-r10&checkpoint=untrained"
    )
    drawn = _plotted(visit("full", hash, width=1280))
    assert set(drawn) == {"ssql-r10", "untrained"}
    assert browser.execute_script("return shifts.reduce((a, b) => a + b, 0)") < 0.02
    assert drawn["ssql-r10"]["FP"] == 100 and drawn["untrained"]["2w2a"] < 70


def test_lines_are_taken_away_and_added(visit):
    browser = visit("full", "#curves?checkpoint=ssql-r10&checkpoint=untrained")
    until(lambda: set(_plotted(browser)) == {"ssql-r10", "untrained"})
    browser.execute_script("document.querySelector('#curves .legend button').click()")
    until(lambda: set(_plotted(browser)) == {"untrained"})
    _choose(browser, "#curves .toolbar label:last-child select", "cq-c-r10")
    until(lambda: set(_plotted(browser)) == {"untrained", "cq-c-r10"})
    assert "checkpoint=cq-c-r10" in browser.current_url


def test_the_pareto_front_is_neither_dearer_nor_worse(visit):
    browser = visit("full", "#curves?curves.view=operations")
    drawn = until(lambda: "front" in _plotted(browser) and _plotted(browser))
    front = drawn.pop("front")
    points = [point for line in drawn.values() for point in line.items()]
    for cost, value in front.items():
        assert not [1 for x, y in points if x < cost and y > value]
    ends = list(front.items())
    assert ends[0] == max((p for p in points if p[0] == min(points)[0]), key=lambda p: p[1])
    assert max(front.values()) == max(value for _, value in points)


def test_detectors_begin_at_their_full_precision(visit):
    browser = visit("full", "#curves")
    board = next(text for text in _texts(browser, "#curves .which option") if "retinanet" in text)
    _choose(browser, "#curves .which", f"{board.split(' ')[0]}.AP")
    drawn = until(lambda: {k: v for k, v in _plotted(browser).items() if "sgdt" in k})
    assert all(list(line) == ["FP", "4w4a"] for line in drawn.values())


def test_areas_stand_in_groups(visit):
    browser = visit("full", "#areas-place")
    assert len(_texts(browser, "#areas-table tbody tr.group")) == 4
    first = browser.find_element("css selector", "#areas-table tbody tr:not(.group)").text
    assert re.search(r"ssql-r10\s+SSQL\s+resnet10_slim\s+79\.7", first)


def test_coverage_counts_seeds_and_says_why(visit):
    browser = visit("full", "#coverage?coverage.state=failed")
    (row,) = browser.find_elements("css selector", "#coverage-table tbody tr")
    assert row.text.startswith("byol-r10") and row.text.count("✕ 1") == 6
    assert any("linear probe diverged" in text for text in _texts(browser, ".reasons > li"))
    assert "2 waiting of 2 jobs" in browser.find_element("id", "coverage-suites").text
    browser = visit("full", "#coverage?coverage.state=waiting")
    (row,) = browser.find_elements("css selector", "#coverage-table tbody tr")
    assert row.text.count("… 2") == 2 and "·" in row.text


def test_a_checkpoints_own_part(visit):
    browser = visit("full", "#checkpoints?checkpoints.name=cq-c-r10")
    assert _texts(browser, ".sheet h3") == ["cq-c-r10"]
    assert len(browser.find_elements("css selector", ".sheet table")[0].text.splitlines()) > 6
    assert "digits · linear · top-1" in _plotted(browser, "#checkpoints .chart")
    _choose(browser, "#checkpoints .which", "ssql-r10")
    assert _texts(browser, ".sheet h3") == ["ssql-r10"]
    assert "checkpoints.name=ssql-r10" in browser.current_url


def _snippets(browser):
    script = "return [...document.querySelectorAll('.snippet pre')].map((pre) => pre.textContent)"
    return browser.execute_script(script)


def test_a_command_for_each_number(visit, pages):
    snippets = _snippets(visit("full", "#checkpoints?checkpoints.name=ssql-r10"))
    commands = [text for text in snippets if "lowbit-bench " in text]
    assert len(commands) == 4 + 3  # three metrics of a detector are one job's
    folder = pages["full"].parents[1]
    assert f"--config-file '{folder}'/$job/recipe.yaml" in commands[0]
    assert sum("lowbit-bench detect" in command for command in commands) == 3


def test_bibtex_names_the_method(visit):
    snippets = _snippets(visit("full", "#checkpoints?checkpoints.name=ssql-r10"))
    (bibtex,) = [text for text in snippets if text.startswith("@")]
    assert "cao2022ssql" in bibtex and "esser2020lsq" in bibtex


@pytest.mark.parametrize("name", ["full", "hostile"])
def test_the_model_index_is_as_the_hub_reads_it(visit, name):
    hub = pytest.importorskip("huggingface_hub.repocard_data", reason="no huggingface_hub")
    checkpoint = "cq-c-r10" if name == "full" else HOSTILE["cq-c-r10"]
    browser = visit(name)
    _choose(browser, "#checkpoints .which", checkpoint)
    (text,) = [text for text in _snippets(browser) if text.startswith("model-index:")]
    index = yaml.safe_load(text)["model-index"]
    found, results = hub.model_index_to_eval_results(index)
    assert found == checkpoint
    assert len(results) == 4 * 6
    first = results[0]
    assert first.task_type == "image-classification" and first.dataset_type.startswith("cifar10")
    assert first.metric_name.startswith("top-1 at FP (linear") and 0 < first.metric_value < 100
    assert hub.eval_results_to_model_index(found, results)


def test_claims_have_their_verdicts(visit):
    browser = visit("full", "#claims")
    rows = _texts(browser, "#claims-table tbody tr:not(.group)")
    verdicts = [re.search("supported|contradicted|undecided|not run", row)[0] for row in rows]
    assert verdicts == ["undecided", "contradicted", "not run", "not run", "supported"]
    assert "+7.37" in rows[0] and "+27.96" in rows[0] and "would decide it" in rows[0]
    assert "the other side has more" in rows[1] and "+23.40" in rows[1]
    assert "BYOL+SSQL against BYOL; 3 pretrainings" in rows[4]
    groups = _texts(browser, "#claims-table tr.group")
    assert groups[0].startswith("Frozen features of SSQL are more accurate") and len(groups) == 5
    assert _texts(browser, "#claims-summary li") == [
        "✓ 1 supported", "✕ 1 contradicted", "? 1 undecided", "… 2 not run"
    ]  # fmt: skip
    folded = browser.find_element("css selector", "#claims-missing")
    assert folded.get_attribute("open") is None
    others = len(load_claims()) - len(groups)
    assert folded.text == f"Claims that were not tried here, and why: {others}"


def test_reproduction_is_folded_until_something_has_run(browser, tmp_path, monkeypatch):
    rows = [Row("Table 12", "not run"), Row("Table 12", "not run", precision="FP")]
    monkeypatch.setattr(tables, "reproduce", lambda frame, planned: rows)
    (tmp_path / "page.html").write_text(render(_source(make_frame())), encoding="utf-8")
    open_page(browser, tmp_path / "page.html", "#reproduction")
    (folded,) = browser.find_elements("css selector", "#reproduction > details:not([id])")
    assert folded.get_attribute("open") is None
    assert folded.text == "2 published numbers of 1 table: none of them has been run yet"
    folded.find_element("css selector", "summary").click()
    assert len(_texts(browser, "#reproduction-table tbody tr:not(.group)")) == 2


def test_reproduction_says_how_far_off(visit):
    browser = visit("full", "#reproduction")
    rows = _texts(browser, "#reproduction-table tbody tr:not(.group)")
    assert "65.00±\u202f0.40" in rows[0] and "+0.90" in rows[0]
    assert "✓ reproduced" in rows[0] and "± 2 allowed" in rows[0]
    assert "−4.10" in rows[1] and "≠ differs" in rows[1]
    assert "<script>hurt=9</script>" in rows[2] and "… not run" in rows[2]


def test_hostile_names_stay_names(visit):
    browser = visit("hostile", "#curves", dark=True)
    _plotted(browser)
    names = _texts(browser, "#checkpoints .which option")
    assert set(HOSTILE.values()) <= {name.strip() for name in names} | {HOSTILE["simsiam-r10"]}
    for name in HOSTILE.values():
        _choose(browser, "#checkpoints .which", name)
        assert browser.execute_script("return document.querySelector('.sheet h3').innerText")
    assert browser.execute_script("return [window.hurt, document.images.length]") == [None, 0]
    assert console(browser) == [] and not [r for r in requests(browser) if r.startswith("http")]


def test_a_phone_scrolls_no_section_sideways(visit):
    browser = visit("hostile", "#checkpoints", width=390)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    browser.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390

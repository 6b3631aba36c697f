"""Integer inference in a real browser: the cells, the Pareto fronts by brute force, narrow screens."""

import numpy as np
import pytest

from lowbit.benchmark.leaderboard import build
from tests.benchmark.board_pages import HOSTILE
from tests.benchmark.browsing import console, open_page, requests, until
from tests.benchmark.deployments import some_numbers, write_deployment

pytestmark = pytest.mark.browser
RUNTIMES = ("onnxruntime 1.32.0", "openvino 2026.4.1")
OPERATIONS = {"FP": 4e9, "8w8a": 2e8, "4w4a": 1e8, "3w3a": 5e7}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """The page of four checkpoints in two runtimes, and their numbers by runtime."""
    runs, draw = tmp_path_factory.mktemp("deployed"), np.random.default_rng(1)
    written = {}
    for number, (name, engine) in enumerate((n, e) for n in "abcd" for e in RUNTIMES):
        at = {precision: some_numbers(draw, precision) for precision in OPERATIONS}
        operations = {p: int(count) for p, count in OPERATIONS.items()}
        write_deployment(
            runs, f"{number:012x}", at, name=name, engine=engine, operations=operations
        )
        written |= {(engine, name, precision): numbers for precision, numbers in at.items()}
    return build.build(runs), written


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page on which every text of a result may hold mark-up."""
    runs, draw = tmp_path_factory.mktemp("hostile"), np.random.default_rng(2)
    texts = {
        field: f"{field}</td><script>window.hurt=1</script>"
        for field in (
            "engine",
            "processor",
            "instruction_set",
            "products",
            "dataset",
            "protocol",
            "training",
        )
    }
    for number, name in enumerate(HOSTILE.values()):
        at = {precision: some_numbers(draw, precision) for precision in OPERATIONS}
        write_deployment(runs, f"{number:012x}", at, name=name, cores="<b>2</b>", **texts)
    return build.build(runs)


def plotted(browser, cost):
    """Return the points of a chart's lines, as pairs, and those of its front."""
    script = """
      const chart = document.querySelector(`#fronts-place [data-cost="${arguments[0]}"]`);
      chart.scrollIntoView();
      return chart.data?.map(({ name, x, y }) => [name ?? null, x, y]);
    """
    traces = until(lambda: browser.execute_script(script, cost))
    lines = [list(zip(x, y, strict=True)) for name, x, y in traces if name]
    (front,) = [list(zip(x, y, strict=True)) for name, x, y in traces if not name]
    return [point for line in lines for point in line], front


def undominated(points):
    """Return the points than which no other is as cheap and as good, and cheaper or better."""
    return {
        (x, y)
        for x, y in points
        if not any(a <= x and b >= y and (a < x or b > y) for a, b in points)
    }


@pytest.mark.parametrize(
    ("table", "choices", "metrics"),
    [
        (0, (), ("latency_1t_b1", "file_bytes")),
        (
            1,
            ("fronts.table=1", "fronts.latency=time_allt_b8", "fronts.bytes=packed_bytes"),
            ("latency_allt_b8", "packed_bytes"),
        ),
    ],
)
def test_a_front_is_what_no_other_point_beats(browser, deployed, table, choices, metrics):
    page, written = deployed
    open_page(browser, page, f"#fronts-place{'?' if choices else ''}{'&'.join(choices)}")
    for cost, metric in zip(("operations", "latency", "bytes"), (None, *metrics), strict=True):
        points, front = plotted(browser, cost)
        unit = 1e-3 if cost == "latency" else 1  # from ms
        expected = {
            (
                OPERATIONS[precision] if metric is None else unit * numbers[metric],
                numbers["top1"][0],
            )
            for (engine, _, precision), numbers in written.items()
            if engine == RUNTIMES[table]
        }
        assert np.allclose(sorted(points), sorted(expected), rtol=1e-4)
        assert set(map(tuple, front[:-1])) == undominated(list(map(tuple, points)))
        assert front == sorted(front) and front[-1][0] == max(x for x, _ in points)


def test_rows_show_what_was_written(browser, deployed):
    page, written = deployed
    open_page(
        browser, page, "#deployment?deployment.engine=openvino 2026.4.1&deployment.precision=8w8a"
    )
    groups = browser.find_elements("css selector", "#deployment-table tr.group")
    assert [group.text.split() for group in groups] == [
        [
            "digits",
            "linear",
            "32",
            "px",
            "openvino",
            "2026.4.1",
            "on",
            "A",
            "CPU",
            "(R)",
            "AVX512-VNNI",
            "AVX2",
            "2",
            "cores",
            "8-bit",
            "products",
            "exact",
        ]
    ]
    rows = browser.find_elements("css selector", "#deployment-table tbody tr:not(.group)")
    assert len(rows) == 4
    for name, row in zip("abcd", rows, strict=True):
        numbers = written["openvino 2026.4.1", name, "8w8a"]
        ratio, low, high = numbers["latency_ratio_allt_b1"]
        assert f"{ratio:.2f}\n[{low:.2f}, {high:.2f}]" in row.text
        assert "19 of 20" in row.text and f"{numbers['noise_floor']:.2f}" in row.text
        assert f"{numbers['top1'][0]:.1f}" in row.text


def test_chosen_checkpoints_alone_are_drawn(browser, deployed):
    open_page(browser, deployed[0], "#fronts-place?checkpoint=b")
    points, _ = plotted(browser, "bytes")
    assert len(points) == len(OPERATIONS)
    names = [e.text for e in browser.find_elements("css selector", "#fronts-place .legend li")]
    assert names == ["b"]


def test_detectors_are_drawn_by_average_precision_and_named_by_training(browser, tmp_path):
    draw = np.random.default_rng(3)
    write_deployment(tmp_path, "0" * 12, {"8w8a": some_numbers(draw, "8w8a")})
    written = {}
    for number, training in enumerate(("fp", "lsq", "lsq, backbone+neck"), start=1):
        numbers = some_numbers(draw, "4w4a") | {"AP": (40.0 + number, 38.0, 44.0)}
        del numbers["top1"]
        facts = {"dataset": "digit-scenes", "protocol": "retinanet of torchvision"}
        facts |= {"policy": "-" if training == "fp" else "ssql", "training": training}
        write_deployment(tmp_path, f"{number}" * 12, {"4w4a": numbers}, **facts)
        written[training] = numbers
    page = build.build(tmp_path)
    open_page(browser, page, "#fronts-place?fronts.table=0")
    first = browser.find_element("css selector", "#fronts-place select[name=table] option").text
    place = 0 if "digit-scenes" in first else 1
    open_page(browser, page, f"#fronts-place?fronts.table={place or ''}")
    points, _ = plotted(browser, "bytes")
    expected = [(numbers["file_bytes"], numbers["AP"][0]) for numbers in written.values()]
    assert np.allclose(sorted(points), sorted(expected), rtol=1e-4)
    title = browser.find_element("css selector", '#fronts-place [data-cost="bytes"] .ytitle')
    assert title.text == "AP (%)"
    names = [e.text for e in browser.find_elements("css selector", "#fronts-place .legend li")]
    assert sorted(names) == ["mine, fp", "mine, lsq, backbone+neck, ssql", "mine, lsq, ssql"]
    assert console(browser) == []


@pytest.mark.parametrize("width", [390, 768, 1440])
def test_nothing_scrolls_sideways_and_the_charts_have_ticks(browser, hostile, width):
    open_page(browser, hostile, "#fronts-place", width=width, dark=width == 768)
    for cost in ("latency", "bytes"):
        plotted(browser, cost)
        chart = f'#fronts-place [data-cost="{cost}"]'
        ticks = browser.find_elements("css selector", f"{chart} .xtick text")
        ticks = [tick for tick in ticks if tick.text]  # plotly hides those it has no room for
        inside = browser.find_element("css selector", chart).rect
        assert len(ticks) >= 2
        assert all(inside["x"] <= t.rect["x"] < inside["x"] + inside["width"] for t in ticks)
    uncounted = browser.find_element("css selector", '#fronts-place [data-cost="operations"]')
    assert not uncounted.is_displayed()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    hurt = browser.execute_script("return [window.hurt ?? null, document.images.length]")
    assert hurt == [None, 0]
    assert console(browser) == [] and not [r for r in requests(browser) if r.startswith("http")]

"""The page as text: content, order, escaping, size, and that nothing in it is fetched."""

import base64
import json
import re

import pandas as pd
import plotly.graph_objects
import pytest

from benchmark.comparability import normalize
from benchmark.page.curves import plain
from benchmark.page.policies import describe_policies
from tests.benchmark.board_frames import POLICY, make_frame, row, seeds
from tests.benchmark.board_pages import HOSTILE, TABLE_11, Page, build_page, hostile_frame


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Page(build_page(tmp_path_factory.mktemp("full"), make_frame(), reported=TABLE_11))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return Page(build_page(tmp_path_factory.mktemp("hostile"), hostile_frame()))


def _figures(page):
    (text,) = [text for attributes, text in page.scripts if attributes.get("id") == "figures"]
    return json.loads(text)


def test_sections_come_in_their_order(page):
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    expected = ["classification", "curves", "detection", "coverage", "reported", "notes"]
    assert sections == expected
    linked = [a["href"][1:] for tag, a in page.tags if tag == "a" and a["href"].startswith("#")]
    assert [name for name in linked if name in expected][:6] == expected


def test_the_board_has_a_line_a_checkpoint_data_set_and_protocol(page):
    header, *rows = page.tables["board"]
    assert header == [
        *("Checkpoint", "Method", "Architecture", "Data set", "Protocol"),
        *("FP", "8w8a", "5w5a", "4w4a", "3w3a", "2w2a", "Seeds", "Group", "Policy"),
    ]
    assert len(rows) == 5 * 3 * 2 + 1  # and the checkpoint that failed
    assert {len(cells) for cells in rows} == {len(header)}


def test_ways_to_train_at_low_precision_can_be_told_apart(tmp_path):
    ways = {"sgd": ("lsq", [93.0, 93.5]), "sgdt": ("tr", [90.0, 91.0])}
    rows = [
        one
        for training, (policy, values) in ways.items()
        for one in seeds(
            values,
            protocol="qat",
            training=training,
            policy=policy,
            policy_fingerprint=POLICY[policy],
        )
    ]
    built = Page(build_page(tmp_path, pd.DataFrame(rows)))
    header, *lines = built.tables["board"]
    assert [line[header.index("Training")] for line in lines] == ["sgd", "sgdt"]
    assert len({line[header.index("Group")] for line in lines}) == 1  # they are compared
    (figure,) = _figures(built)
    assert [trace["name"] for trace in figure["traces"]] == ["ssql-r10, sgd", "ssql-r10, sgdt"]
    assert len({trace["meta"]["colour"] for trace in figure["traces"]}) == 2


def test_a_cell_says_mean_spread_rank_and_drop(tmp_path):
    rows = seeds([93.0, 93.5, 94.0], precision="FP") + seeds([90.0, 91.0, 92.0])
    rows += seeds([50.0, 51.0, 52.0], checkpoint="bad")
    built = Page(build_page(tmp_path, pd.DataFrame(rows)))
    best, bad = built.tables["board"][1:]
    cell = built.tables["board"][0].index("4w4a")
    assert best[cell] == "91.0±\u202f1.0, rank 1, against full precision −2.5"
    assert bad[cell] == "51.0±\u202f1.0, rank 2"
    attributes = built.cells["board"][1][cell]
    assert "best" in attributes["class"].split()
    assert attributes["data-order"] == "91.0"
    assert attributes["title"] == (
        "91.00 %; 3 seeds, standard deviation 1.00; "
        "95 % interval of the mean 88.52 to 93.48; 540 test images"
    )
    assert "best" not in built.cells["board"][2][cell]["class"].split()


def test_a_cell_says_how_far_other_test_images_would_move_it(tmp_path):
    rows = seeds([91.0, 92.0], stderr=1.2)
    built = Page(build_page(tmp_path, pd.DataFrame(rows)))
    cell = built.tables["board"][0].index("4w4a")
    title = built.cells["board"][1][cell]["title"]
    assert title.endswith("540 test images; standard error over test images 1.20")


def test_single_seeds_and_shared_seeds_are_marked(tmp_path):
    rows = [row(value=90.0), row(value=80.0, precision="FP"), row(value=82.0, precision="FP")]
    rows[2]["job_id"] = "another"
    built = Page(build_page(tmp_path, pd.DataFrame(rows)))
    cells = dict(zip(*built.tables["board"], strict=True))
    assert cells["4w4a"].startswith("90.0†")
    assert cells["FP"].startswith("81.0†‡")
    assert "averaged first" in built.text


def test_what_failed_says_so_in_its_place_and_under_coverage(page):
    line = next(cells for cells in page.tables["board"] if cells[0].startswith("byol-r10"))
    assert line[5:11] == ["failed"] * 6
    reasons = {cells[0]: (cells[1], cells[7]) for cells in page.tables["missing"][1:]}
    assert reasons["byol-r10"][0] == "failed"
    assert "diverged at step 312" in reasons["byol-r10"][1]
    assert reasons["ssql-r10"][0] == "skipped"


def test_detectors_are_ordered_best_first_within_a_precision(page):
    header, *rows = page.tables["detectors"]
    precision, ap = header.index("Precision"), header.index("AP")
    assert header[ap : ap + 3] == ["AP", "AP50", "AP75"]
    assert [cells[precision] for cells in rows] == ["FP"] * 3 + ["4w4a"] * 6
    values = [float(cells[ap][:4]) for cells in rows]
    assert values[:3] == sorted(values[:3], reverse=True)
    assert values[3:] == sorted(values[3:], reverse=True)
    assert {cells[header.index("Training")] for cells in rows} == {"fp", "lsq", "sgdt"}
    assert {cells[header.index("Engine")] for cells in rows} == {"torchvision"}


def test_reported_numbers_stand_in_their_own_table_as_printed(page):
    header, *rows = page.tables["published"]
    assert len(rows) == 28  # 2 systems x 7 data sets x 2 protocols
    line = next(
        x for x in rows if x[0] == "SSQL" and x[3] == "CIFAR-10" and x[4].endswith("linear")
    )
    assert line[1] == "SSQL, Table 11"
    assert line[header.index("FP") :] == ["81.0", "80.9", "80.9", "79.5", "69.6"]
    pets = next(x for x in rows if x[3] == "Pets")
    assert pets[-1].endswith("?")  # could not be read beyond doubt
    assert "Synergistic Self-supervised and Quantization Learning" in page.text
    measured = {cells[3] for cells in page.tables["board"]}
    assert "CIFAR-10" not in measured


def test_groups_and_policies_are_spelled_out(page):
    groups = next(t for name, t in page.tables.items() if t[0][0] == "Group")
    assert [cells[0] for cells in groups[1:]] == list("ABCDEFG")
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {a["href"][1:] for tag, a in page.tags if tag == "a" and "group" in a["href"]}
    assert links <= targets
    policies = next(t for t in page.tables.values() if t[0][0] == "Policy")
    assert [cells[1] for cells in policies[1:]] == [POLICY[n] for n in ("lsq", "ssql", "tr")]


def test_a_policy_is_described_only_if_its_fingerprint_is_that_of_its_name():
    rows = [
        row(),
        row(policy_fingerprint="0" * 12),
        row(policy="mine", policy_fingerprint="1" * 12),
    ]
    other, unknown, named = sorted(
        describe_policies(normalize(pd.DataFrame(rows))), key=lambda p: p["fingerprint"]
    )
    assert "first layer 8 bits" in named["text"]
    assert "recipe.yaml" in other["text"]
    assert "recipe.yaml" in unknown["text"]


def test_the_download_is_the_csv_file(tmp_path):
    path = build_page(tmp_path, make_frame())
    href = next(a["href"] for tag, a in Page(path).tags if a.get("id") == "csv")
    kind, _, data = href.partition(",")
    assert kind == "data:text/csv;charset=utf-8;base64"
    assert base64.b64decode(data) == (path.parent / "results.csv").read_bytes()


def test_nothing_is_fetched(page):
    for tag, attributes in page.tags:
        assert "src" not in attributes, (tag, attributes)
        for name in ("href", "action", "srcset", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    styles = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL).group(1)
    assert "url(" not in styles
    assert "@import" not in styles
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_the_page_is_small_enough_to_send(page):
    assert len(page.text.encode()) < 8_000_000


def test_tables_are_built_for_screen_readers(page):
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert sum(tag == "caption" for tag, _ in page.tags) == tables == 6
    heads = [attributes for tag, attributes in page.tags if tag == "th"]
    assert {attributes.get("scope") for attributes in heads} == {"col", "row"}
    labelled = sum(tag == "label" for tag, _ in page.tags)
    assert labelled == sum(tag in ("input", "select") for tag, _ in page.tags)
    regions = [a for _, a in page.tags if a.get("class") == "scroll"]
    assert len(regions) == tables
    assert all(a["role"] == "region" and a["aria-label"] and a["tabindex"] == "0" for a in regions)


def test_facts_say_what_was_measured(page):
    facts = page.text.partition('<dl class="facts">')[2].partition("</dl>")[0]
    words = re.sub(r"<[^>]+>", "", facts)
    assert "Checkpoints5" in words
    assert "cifar10, cifar100, digit-scenes, digits" in words
    assert "FP, 8w8a, 5w5a, 4w4a, 3w3a, 2w2a" in words
    assert "Seeds0, 1, 2" in words
    assert "1 failed, 1 skipped" in words


def test_curves_hold_the_boards_numbers(page):
    figures = _figures(page)
    assert len(figures) == 6
    ssql = next(t for t in figures[0]["traces"] if t["name"] == "ssql-r10")
    assert ssql["x"] == ["FP", "8w8a", "5w5a", "4w4a", "3w3a", "2w2a"]
    header, *rows = page.tables["board"]
    line = next(cells for cells in rows if cells[0].startswith("ssql-r10"))
    first = header.index("FP")
    assert [f"{y:.1f}" for y in ssql["y"]] == [cell[:4] for cell in line[first : first + 6]]
    spreads = [float(re.search(r"±\s?([0-9.]+)", cell)[1]) for cell in line[first : first + 6]]
    assert ssql["error_y"]["array"] == pytest.approx(spreads, abs=0.06)


def test_curves_are_valid_plotly_and_keep_their_look(page, hostile):
    for figure in _figures(page) + _figures(hostile):
        plotly.graph_objects.Figure(data=figure["traces"])  # raises on what plotly does not know
    looks = [
        {
            t["name"]: (t["meta"]["colour"], t["line"]["dash"], t["marker"]["symbol"])
            for t in f["traces"]
        }
        for f in _figures(page)
    ]
    assert all(look == looks[0] for look in looks)
    assert len(set(looks[0].values())) == 5


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("plain", "plain"),
        ("<b>a</b> &amp;", "&lt;b&gt;a&lt;/b&gt; &amp;amp;"),
        ("\u202eabc\u2066", "abc"),
        ("y" * 300, "y" * 39 + "…"),
    ],
)
def test_names_are_plain_text_in_the_plot(name, drawn):
    assert plain(name) == drawn


def test_hostile_names_are_text_in_tables(hostile):
    names = {cells[0] for cells in hostile.tables["board"][1:]}
    for name in HOSTILE.values():
        assert any(cell.startswith(name) for cell in names), name
    reasons = [cells[7] for cells in hostile.tables["missing"][1:]]
    assert all(reason.endswith("</td></table><script>hurt=3</script>") for reason in reasons)


def test_hostile_names_make_no_tags(page, hostile):
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in page.tags}
    assert len(hostile.scripts) == len(page.scripts) == 3
    assert not any("onerror" in attributes for _, attributes in hostile.tags)
    assert "{{ 7*7 }}" in hostile.text  # a name is no template


def test_hostile_names_do_not_leave_the_embedded_json(hostile):
    (raw,) = [text for attributes, text in hostile.scripts if attributes.get("id") == "figures"]
    assert "<" not in raw
    labels = {t["meta"]["label"] for figure in _figures(hostile) for t in figure["traces"]}
    assert labels == set(HOSTILE.values())


@pytest.mark.parametrize("kept", ["none", "failures"])
def test_a_page_without_results_says_so(tmp_path, kept):
    frame = make_frame()
    frame = frame[frame["status"] != "completed"] if kept == "failures" else frame.iloc[:0]
    built = Page(build_page(tmp_path, frame))
    sections = [attributes["id"] for tag, attributes in built.tags if tag == "section"]
    assert sections == ["empty", "coverage", "notes"]
    assert "There is no result to show" in built.text
    assert ("diverged at step 312" in built.text) == (kept == "failures")
    assert len(built.text) < 1_000_000  # no plotly without a plot

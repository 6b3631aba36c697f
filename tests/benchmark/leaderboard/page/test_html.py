"""The page as text: content, order, size, that nothing of a result is in its HTML and nothing is fetched."""

import gzip
import math
import re
from base64 import b64decode

import pandas as pd
import pytest

from lowbit.benchmark.leaderboard.page.citations import describe_policies
from lowbit.benchmark.leaderboard.page.render import SECTIONS, pack, to_json
from lowbit.benchmark.results.comparability import normalize
from tests.benchmark.board_frames import POLICY, failure, make_frame, row, seeds
from tests.benchmark.board_pages import HOSTILE, TABLE_11, Page, build_page, hostile_frame


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Page(build_page(tmp_path_factory.mktemp("full"), make_frame(), reported=TABLE_11))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return Page(build_page(tmp_path_factory.mktemp("hostile"), hostile_frame()))


def test_sections_come_in_their_order_and_are_linked(page):
    shown = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert shown == list(page.sections)
    assert shown == [section.name for section in SECTIONS if section.name in shown]
    assert {"classification", "detection", "reported", "notes"} <= set(shown)
    assert "adaptive" not in shown  # nothing of it was measured
    linked = [a["href"][1:] for tag, a in page.tags if tag == "a"]
    assert [name for name in linked if name in shown][: len(shown)] == shown
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {f"{name}-title" for name in shown} <= ids  # what names the sections


def test_the_board_has_a_row_a_checkpoint_data_set_and_protocol(page):
    found = page.sections["classification"]
    assert found["columns"] == ["FP", "8w8a", "5w5a", "4w4a", "3w3a", "2w2a"]
    assert len(found["rows"]) == 5 * 3 * 2 + 1  # and the checkpoint that failed
    assert {len(one["cells"]) for one in found["rows"]} == {6}
    assert {one["group"] for one in found["rows"]} == set(found["groups"])


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
    found = Page(build_page(tmp_path, pd.DataFrame(rows))).sections["classification"]["rows"]
    assert [one["training"] for one in found] == ["sgd", "sgdt"]
    assert len({one["group"] for one in found}) == 1  # they are compared


def test_a_cell_says_mean_spread_rank_and_drop(tmp_path):
    rows = seeds([93.0, 93.5, 94.0], precision="FP") + seeds([90.0, 91.0, 92.0])
    rows += seeds([50.0, 51.0, 52.0], checkpoint="bad")
    built = Page(build_page(tmp_path, pd.DataFrame(rows)))
    best, bad = built.sections["classification"]["rows"]
    found = built.cell(best, "4w4a")
    known = {"text": "91.0", "value": 91.0, "seeds": 3, "sd": "1.0", "drop": "−2.5", "rank": 1}
    assert found.items() >= (known | {"best": 1, "marks": ""}).items()
    assert (found["low"], found["high"]) == pytest.approx(
        (88.5159, 93.4841)
    )  # t(.975, 2) / sqrt(3)
    assert built.cell(bad, "4w4a").items() >= {"text": "51.0", "rank": 2, "best": 0}.items()
    assert bad["cells"][0] is None  # nobody planned it
    assert built.sections["classification"]["groups"]["A"]["images"] == [540]


def test_a_cell_says_how_far_other_test_images_would_move_it(tmp_path):
    built = Page(build_page(tmp_path, pd.DataFrame(seeds([91.0, 92.0], stderr=1.2))))
    (line,) = built.sections["classification"]["rows"]
    assert built.cell(line, "4w4a")["error"] == 1.2


def test_single_seeds_and_shared_seeds_are_marked(tmp_path):
    rows = [row(value=90.0), row(value=80.0, precision="FP"), row(value=82.0, precision="FP")]
    rows[2]["job_id"] = "another"
    built = Page(build_page(tmp_path, pd.DataFrame(rows)))
    (line,) = built.sections["classification"]["rows"]
    single, shared = built.cell(line, "4w4a"), built.cell(line, "FP")
    assert (single["text"], single["marks"], single["sd"]) == ("90.0", "†", "")
    assert (shared["text"], shared["marks"], shared["jobs"]) == ("81.0", "†‡", 2)


def test_what_failed_says_so_in_its_place(page):
    (line,) = (r for r in page.sections["classification"]["rows"] if r["checkpoint"] == "byol-r10")
    assert {cell[0] for cell in line["cells"]} == {"failed"}
    assert all("diverged at step 312" in cell[1] for cell in line["cells"])


def test_detectors_are_ordered_best_first_within_a_precision(page):
    found = page.sections["detection"]
    assert found["columns"] == ["AP", "AP50", "AP75"]
    assert [one["precision"] for one in found["rows"]] == ["FP"] * 3 + ["4w4a"] * 6
    values = [page.cell(one, "AP", "detection")["value"] for one in found["rows"]]
    assert values[:3] == sorted(values[:3], reverse=True)
    assert values[3:] == sorted(values[3:], reverse=True)
    assert {one["training"] for one in found["rows"]} == {"fp", "lsq", "sgdt"}
    assert {one["engine"] for one in found["rows"]} == {"torchvision"}


def test_reported_numbers_stand_in_their_own_table_as_printed(page):
    found = page.sections["reported"]
    assert len(found["rows"]) == 28  # 2 systems x 7 data sets x 2 protocols
    (line,) = (
        one
        for one in found["rows"]
        if (one["checkpoint"], one["dataset"]) == ("SSQL", "CIFAR-10")
        and one["protocol"].endswith("linear")
    )
    assert [cell[0] for cell in line["cells"]] == ["81.0", "80.9", "80.9", "79.5", "69.6"]
    pets = next(one for one in found["rows"] if one["dataset"] == "Pets")
    assert pets["cells"][-1][-1] == "?"  # could not be read beyond doubt
    assert "Synergistic Self-supervised" in found["papers"]["SSQL"]
    assert not any(one["dataset"] == "CIFAR-10" for one in page.sections["classification"]["rows"])


def test_groups_and_policies_are_spelled_out(page):
    notes = page.sections["notes"]
    assert list(notes["groups"]) == list("ABCDEFG")
    assert [policy["fingerprint"] for policy in notes["policies"]] == [
        POLICY[name] for name in ("lsq", "ssql", "tr")
    ]


def test_averages_are_over_the_same_data_sets(page):
    found = page.sections["averages"]
    families = [(family["protocol"], family["datasets"]) for family in found["families"]]
    assert families == [
        ("linear", ["cifar10", "cifar100", "digits"]),
        ("finetune", ["cifar10", "cifar100", "digits"]),
    ]
    line = next(one for one in found["rows"] if one["checkpoint"] == "ssql-r10")
    same = [
        page.cell(one, "4w4a")["value"]
        for one in page.sections["classification"]["rows"]
        if (one["checkpoint"], one["protocol"]) == ("ssql-r10", "linear")
    ]
    mean = page.cell(line, "4w4a", "averages")
    assert len(same) == 3
    assert mean["value"] == pytest.approx(sum(same) / 3, abs=1e-4)
    assert mean["low"] < mean["value"] < mean["high"]


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
    assert len(page.text.encode()) < 4_000_000


def test_what_the_frame_holds_is_labelled(page):
    regions = [a for _, a in page.tags if a.get("class") == "scroll"]
    assert regions
    assert all(a["role"] == "region" and a["aria-label"] and a["tabindex"] == "0" for a in regions)
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert sum(tag == "caption" for tag, _ in page.tags) == tables
    assert {a.get("scope") for tag, a in page.tags if tag == "th"} <= {"col", "row"}


def test_the_head_says_what_was_measured(page):
    overview = page.data["overview"]
    assert overview["precisions"] == ["FP", "8w8a", "5w5a", "4w4a", "3w3a", "2w2a"]
    assert overview["seeds"] == [0, 1, 2]
    assert len(overview["checkpoints"]) == 5  # byol-r10 gave no number
    assert overview["jobs"] == {"completed": 113, "failed": 1, "skipped": 1}
    assert ">1,134<" in page.text


def test_no_text_of_a_result_is_part_of_the_html(hostile):
    for name in (*HOSTILE.values(), "<i>", "hurt", "7*7"):
        assert name not in hostile.plain
    assert {r["checkpoint"] for r in hostile.sections["classification"]["rows"]} > set(
        HOSTILE.values()
    )


def test_another_results_page_has_the_same_tags(page, hostile):
    def shape(built):
        return [tag for tag, a in built.tags if a.get("id") not in ("reported", "reported-title")]

    kept = [tag for tag in shape(hostile) if tag != "i"]
    assert len(kept) == len(shape(hostile))
    assert set(kept) <= set(shape(page))
    assert not any("onerror" in attributes for _, attributes in hostile.tags)


@pytest.mark.parametrize("kept", ["none", "failures"])
def test_a_page_without_results_says_so(tmp_path, kept):
    frame = make_frame()
    frame = frame[frame["status"] != "completed"] if kept == "failures" else frame.iloc[:0]
    built = Page(build_page(tmp_path, frame))
    shown = [attributes["id"] for tag, attributes in built.tags if tag == "section"]
    assert shown[0] == "empty"
    assert "classification" not in shown
    assert "There is no result to show" in built.text
    assert ("1 failed and 1 skipped" in built.text) == (kept == "failures")


def test_a_failed_job_alone_makes_no_board(tmp_path):
    built = Page(build_page(tmp_path, pd.DataFrame([failure("disk full", split="-")])))
    assert "classification" not in built.sections


def test_packed_text_comes_back_and_holds_no_time():
    text = "</script>\u2028 é" * 100
    assert gzip.decompress(b64decode(pack(text))).decode() == text
    assert pack(text) == pack(text)
    assert b64decode(pack(text))[4:8] == b"\0\0\0\0"


def test_numbers_that_are_not_finite_are_null():
    assert to_json({"a": [1.5, math.nan], "b": math.inf}) == '{"a":[1.5,null],"b":null}'
    assert to_json({"é": (1, "x")}) == '{"é":[1,"x"]}'


def test_a_number_that_depends_on_rounding_is_marked(tmp_path):
    rows = [row(rounding=4.25), row(rounding=0.0, precision="FP")]
    built = Page(build_page(tmp_path, pd.DataFrame(rows)))
    (line,) = built.sections["classification"]["rows"]
    marked = built.cell(line, "4w4a")
    assert (marked["marks"], marked["rounding"]) == ("†≈", 4.25)
    assert built.cell(line, "FP")["marks"] == "†"


def test_a_number_whose_interval_may_be_too_narrow_says_so(tmp_path):
    ends = {"image_low": 80.0, "image_high": 95.0}
    rows = [row(image_warning="few objects", **ends), row(precision="FP", **ends)]
    built = Page(build_page(tmp_path, pd.DataFrame(rows)))
    (line,) = built.sections["classification"]["rows"]
    assert built.cell(line, "4w4a")["warning"] == "few objects"
    assert "warning" not in built.cell(line, "FP")

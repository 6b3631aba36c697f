"""The table of adaptive bit-widths: Delta_B against hand-worked numbers, its reasons, its outputs."""

import csv
import io
import math

import pandas as pd
import pytest

from lowbit.benchmark.leaderboard.adaptive_bits import blanks, columns, delta_b
from lowbit.benchmark.leaderboard.adaptive_bits import make_adaptive as adaptive_rows
from lowbit.benchmark.leaderboard.boards import make_boards, make_reported
from lowbit.benchmark.leaderboard.tables import Tables
from lowbit.benchmark.leaderboard.text_formats import to_csv, to_latex, to_markdown
from lowbit.benchmark.published import load_published, reported_rows
from lowbit.benchmark.results.comparability import normalize
from lowbit.quant import get_policy
from tests.benchmark.board_frames import failure, row
from tests.benchmark.board_pages import HOSTILE, Page, build_page

B = ("8w8a", "6w6a", "4w4a", "2w2a")
COQUANT = {"policy": "coquant", "policy_fingerprint": get_policy("coquant").fingerprint}
JOINT = {"8w8a": 95.0, "6w6a": 94.0, "4w4a": 90.0, "2w2a": 77.0}
ALONE = {"8w8a": 100.0, "6w6a": 94.0, "4w4a": 72.0, "2w2a": 70.0}
DELTA = 107.5  # 100 (.95 + 1 + 1.25 + 1.1) / 4
TABLE_4 = [{"paper": "CoQuant", "table": "Table 4"}]


def job(method, values, *, settings="", zero_shot=(), seed=0, **changes):
    """Return the rows of one adaptive job; `settings` are those of its protocol, but for the method."""
    name = changes.get("checkpoint", "")
    ending = f"-{settings}" if settings else ""
    facts = COQUANT | {
        "protocol": f"adaptive-{method}{ending}",
        "adaptive_method": method,
        "adaptive_variant": settings,
        "adaptive_reference": f"adaptive-individual{ending}",
        "seed": seed,
    }
    facts |= changes
    return [
        row(precision=p, value=v, zero_shot=p in zero_shot, job_id=f"{method}{seed}{name}", **facts)
        for p, v in values.items()
    ]


def make_tables(rows, reported=()):
    frames = [normalize(pd.DataFrame(rows))]
    if reported:
        frames.append(normalize(reported_rows(reported)))
    return Tables(pd.concat(frames, ignore_index=True))


def make_adaptive(rows, reported=()):
    folded = make_tables(rows, reported).folded
    return adaptive_rows(folded, make_boards(folded), make_reported(folded))


def only(rows, method="CoQuant"):
    (found,) = [r for r in rows if r.method == method and r.board is not None]
    return found


def test_delta_b_is_the_mean_ratio_in_percent():
    assert delta_b(JOINT, ALONE) == pytest.approx(DELTA)
    assert delta_b(ALONE, ALONE) == 100
    assert delta_b({"8w8a": 50.0, "2w2a": 30.0}, {"8w8a": 100.0, "2w2a": 40.0}) == 62.5


def test_the_papers_delta_b_is_not_relative_to_full_precision():
    """Table 4's row for B = {8, 6, 4, 2} over Table 1's FP is 99.63 %; the paper prints 100.1 %."""
    published = load_published()
    published["value"] = pd.to_numeric(published["value"], errors="coerce")
    of_paper = published[(published.paper == "CoQuant") & (published.dataset == "CIFAR-10")]
    joint = of_paper[
        (of_paper.system == "CoQuant(B={8,6,4,2})") & (of_paper.protocol == "joint_adaptive")
    ]
    full = of_paper[(of_paper.precision == "FP") & (of_paper.architecture == "ResNet-18")]
    accuracies = dict(zip(joint.precision, joint.value, strict=True))
    assert accuracies == {"8w8a": 95.2, "6w6a": 95.4, "4w4a": 95.1, "2w2a": 94.1}
    (fp,) = full.value
    relative = delta_b(accuracies, dict.fromkeys(accuracies, fp))
    assert relative == pytest.approx(100 * 94.95 / 95.3)
    assert round(relative, 2) == 99.63
    printed = of_paper[of_paper.metric == "Delta_B_percent"].value
    assert printed.max() == 100.1 and (printed - relative).abs().min() > 0.4


def test_a_row_is_set_against_individual_networks_of_its_checkpoint():
    other = {"checkpoint": "other"}
    rows = job("coquant", JOINT) + job("individual", ALONE) + job("adabits", JOINT, **other)
    rows += job("individual", JOINT, **other)
    found = make_adaptive(rows)
    assert [(r.checkpoint, r.method) for r in found] == [
        ("other", "individual"),
        ("other", "AdaBits"),
        ("ssql-r10", "individual"),
        ("ssql-r10", "CoQuant"),
    ]
    assert only(found).delta.value == pytest.approx(DELTA)
    assert only(found).delta.reason == (
        "8w8a 95.00 %, 6w6a 100.00 %, 4w4a 125.00 %, 2w2a 110.00 %; "
        "means over 1 and, individually, 1 seed(s)"
    )
    assert only(found, "AdaBits").delta.value == pytest.approx(100)
    assert math.isnan(only([r for r in found if r.checkpoint == "other"], "individual").delta.value)


def test_zero_shot_and_full_precision_do_not_count():
    rows = job("coquant", JOINT | {"7w7a": 1.0, "FP": 1.0}, zero_shot=["7w7a"])
    rows += job("individual", ALONE | {"7w7a": 99.0, "FP": 99.0})
    row = only(make_adaptive(rows))
    assert row.delta.value == pytest.approx(DELTA)
    assert [p for p, cell in row.cells.items() if cell.zero_shot] == ["7w7a"]


def test_seeds_are_averaged_first():
    rows = job("coquant", {"8w8a": 90.0}) + job("coquant", {"8w8a": 70.0}, seed=1)
    rows += job("individual", {"8w8a": 100.0}, seed=5)
    delta = only(make_adaptive(rows)).delta
    assert delta.value == pytest.approx(80) and "over 2 and, individually, 1 seed" in delta.reason


def test_trained_columns_come_before_zero_shot_ones():
    rows = job("coquant", dict.fromkeys(("8w8a", "7w7a", "4w4a", "2w2a"), 50.0), zero_shot=["7w7a"])
    rows += job("adabits", {"8w8a": 50.0, "4w4a": 50.0, "3w3a": 9.0}, zero_shot=["4w4a", "3w3a"])
    assert columns(make_adaptive(rows)) == ["8w8a", "4w4a", "2w2a", "7w7a", "3w3a"]


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint": "other"},
        {"dataset": "cifar10"},
        {"split_sha256": "f" * 64},
        {"policy": "lsq", "policy_fingerprint": "f" * 12},
        {"image_size": 64},
        {"protocol_version": 2},
        {"settings": "trainval"},
    ],
)
def test_other_checkpoints_data_and_settings_are_no_reference(changes):
    rows = job("coquant", JOINT) + job("individual", ALONE, **changes)
    delta = only(make_adaptive(rows)).delta
    assert math.isnan(delta.value)
    assert delta.reason.startswith("no adaptive-individual result has the same checkpoint, split")


def test_other_settings_of_a_protocol_have_their_own_reference():
    rows = job("switchable-bn", JOINT, settings="trainval") + job("individual", JOINT)
    rows += job("individual", ALONE, settings="trainval")
    row = only(make_adaptive(rows), "Switchable BN (trainval)")
    assert row.delta.value == pytest.approx(DELTA)


def test_each_metric_has_its_own_delta():
    rows = job("coquant", JOINT) + job("individual", ALONE)
    rows += job("coquant", ALONE, metric="mean_per_class")
    rows += job("individual", ALONE, metric="mean_per_class")
    found = {r.metric: r for r in make_adaptive(rows) if r.method == "CoQuant"}
    assert found["top1"].delta.value == pytest.approx(DELTA)
    assert found["mean_per_class"].delta.value == pytest.approx(100)


def test_a_missing_bit_width_says_which_and_why():
    rows = job("coquant", JOINT) + job("individual", {"8w8a": 90.0, "6w6a": 90.0})
    rows.append(failure("diverged.", precision="4w4a", protocol="adaptive-individual", **COQUANT))
    delta = only(make_adaptive(rows)).delta
    assert delta.reason == "no network trained at 4w4a, 2w2a alone has a number: diverged."


def test_a_failed_individual_job_says_why():
    rows = job("coquant", JOINT)
    rows += [
        failure("no memory.", precision=p, protocol="adaptive-individual", **COQUANT) for p in B
    ]
    delta = only(make_adaptive(rows)).delta
    assert delta.reason == "the job of adaptive-individual failed: no memory."


def test_rows_blank_for_one_reason_share_a_sentence():
    rows = job("coquant", JOINT) + job("adabits", JOINT) + job("individual", {"8w8a": 90.0})
    (sentence,) = blanks(make_adaptive(rows))
    assert sentence == (
        "No Δ_B of AdaBits, ssql-r10 on digits (A); CoQuant, ssql-r10 on digits (B): "
        "no network trained at 6w6a, 4w4a, 2w2a alone has a number"
    )


def test_individual_networks_that_were_zero_shot_or_always_wrong_are_no_reference():
    rows = job("coquant", {"8w8a": 90.0}) + job("individual", {"8w8a": 90.0}, zero_shot=["8w8a"])
    assert "trained at 8w8a alone" in only(make_adaptive(rows)).delta.reason
    rows = job("coquant", {"8w8a": 90.0}) + job("individual", {"8w8a": 0.0})
    assert "accuracy 0" in only(make_adaptive(rows)).delta.reason


def test_validation_numbers_do_not_enter():
    rows = job("coquant", JOINT) + job("individual", ALONE)
    rows += job("coquant", ALONE, split="val") + job("individual", JOINT, split="val")
    assert only(make_adaptive(rows)).delta.value == pytest.approx(DELTA)


def test_published_rows_stand_below_the_measured_of_their_data_set():
    rows = job("coquant", JOINT, dataset="cifar10") + job("coquant", JOINT, dataset="digits")
    text = [{"paper": "CoQuant", "table": "Sec. 4 text"}]
    other = [{"paper": "CoQuant", "table": "Table 3", "dataset": "ActivityNet"}]
    found = make_adaptive(rows, TABLE_4 + text + other)
    datasets = [r.dataset for r in found]
    assert datasets == ["cifar10"] + ["CIFAR-10"] * 6 + ["digits"] + ["ActivityNet"] * 3
    full = next(r for r in found if r.method == "CoQuant(B={8,6,4,2})")
    assert {p: cell.printed for p, cell in full.cells.items() if not cell.zero_shot} == {
        "8w8a": "95.2", "6w6a": "95.4", "4w4a": "95.1", "2w2a": "94.1",
    }  # fmt: skip
    assert sorted(p for p, cell in full.cells.items() if cell.zero_shot) == ["3w3a", "5w5a", "7w7a"]
    assert math.isnan(full.delta.value)
    (ablation,) = [r for r in found if r.method == "CoQuant(lambda=0.001)"]
    assert (ablation.delta.printed, ablation.cells) == ("100.1", {})


def test_published_numbers_alone_make_no_table():
    assert make_adaptive([row()], TABLE_4) == []


@pytest.fixture
def suite():
    rows = job("coquant", JOINT | {"3w3a": 60.0}, zero_shot=["3w3a"]) + job("individual", ALONE)
    return rows + job("adabits", JOINT, checkpoint="a|b")


def test_markdown_and_latex_have_the_table_its_marks_and_its_reasons(suite):
    tables = make_tables(suite)
    text = to_markdown(tables)
    assert "## Adaptive bit-widths: accuracy and Δ\\_B (%)" in text
    start = "| group | checkpoint | architecture | dataset | method | metric | 8w8a | 6w6a | 4w4a "
    assert f"{start}| 2w2a | 3w3a | Δ\\_B |" in text
    line = (
        "| ssql-r10 | resnet10\\_slim | digits | CoQuant | top-1 | 95.0† | 94.0† | 90.0† | 77.0† "
    )
    assert f"{line}| 60.0†§ | 107.5 |" in text
    assert "No Δ\\_B of AdaBits, a\\|b on digits (A): no adaptive-individual result" in text
    latex = to_latex(tables)
    assert "60.0$^\\dagger$\\S{} & 107.5" in latex
    assert "\\par\\footnotesize No $\\Delta_{\\mathcal{B}}$ of AdaBits" in latex


def test_the_csv_marks_zero_shot_numbers(suite):
    rows = list(csv.DictReader(io.StringIO(to_csv(make_tables(suite)))))
    assert [row["precision"] for row in rows if row["zero_shot"] == "yes"] == ["3w3a"]


def test_the_page_has_the_section_only_where_something_adaptive_was_measured(suite, tmp_path):
    plain = Page(build_page(tmp_path / "plain", pd.DataFrame([row()]), reported=TABLE_4))
    assert not plain.sections.get("adaptive") and ("a", "#adaptive") not in links(plain)
    page = Page(build_page(tmp_path / "adaptive", pd.DataFrame(suite), reported=TABLE_4))
    found = page.sections["adaptive"]
    rows = found["rows"]
    assert {len(x["cells"]) for x in rows} == {len(found["columns"])}
    coquant = next(x for x in rows if x["method"] == "CoQuant")
    numbers = {p: page.cell(coquant, p, "adaptive")["value"] for p in ("8w8a", "3w3a")}
    assert numbers == {"8w8a": 95.0, "3w3a": 60.0} and coquant["delta"][0] == "107.5"
    assert "§" in page.cell(coquant, "3w3a", "adaptive")["marks"]
    adabits = next(x for x in rows if x["method"] == "AdaBits")
    assert adabits["delta"][1] is None and "no adaptive-individual result" in adabits["delta"][2]
    published = next(x for x in rows if x["method"] == "CoQuant(B={8,4})")
    assert published["source"] == "reported"
    assert page.cell(published, "2w2a", "adaptive")["value"] == 73.2
    assert any(
        text.startswith("No Δ_B of AdaBits, a|b on digits (A): no") for text in found["blanks"]
    )
    assert ("a", "#adaptive") in links(page)


def links(page):
    return [(tag, found.get("href")) for tag, found in page.tags]


def test_names_from_result_files_stay_text(tmp_path):
    name = HOSTILE["ssql-r10"]
    rows = job("coquant", JOINT, checkpoint=name)
    page = Page(build_page(tmp_path, pd.DataFrame(rows)))
    assert page.sections["adaptive"]["rows"][0]["checkpoint"].startswith(" ".join(name.split()))
    assert "<script>window" not in page.text

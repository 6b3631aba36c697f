"""The published numbers, and how they become rows that are never mistaken for measured ones."""

import pytest

from lowbit.benchmark.published import PAPERS, load_published, published_scores, reported_rows
from lowbit.benchmark.published.selection import published_results
from lowbit.benchmark.results.result_file import COLUMNS
from lowbit.quant import Precision

KEY = ["system", "paper", "table", "dataset", "architecture", "protocol", "precision", "metric"]


def _value(**where):
    found = load_published()
    for column, value in where.items():
        found = found[found[column] == value]
    assert len(found) == 1, found
    return found["value"].item()


def test_every_number_is_there_once():
    published = load_published()
    assert len(published) == 1024
    assert list(published.columns) == [*KEY, "value", "notes"]
    assert not published.duplicated(KEY).any()
    assert published["paper"].value_counts().to_dict() == {
        "TR": 415,
        "CQ": 274,
        "SSQL": 231,
        "CoQuant": 104,
    }
    assert set(published["paper"]) == set(PAPERS)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        # SSQL supplement, Tables 9, 10 and 11
        ("6149", {"table": "Table 9", "dataset": "Flowers", "metric": "num_test"}),
        ("0.05", {"table": "Table 10", "system": "SimSiam", "metric": "hparam:lr"}),
        (
            "92.4",
            {
                "paper": "SSQL",
                "table": "Table 11",
                "system": "SSQL",
                "dataset": "CIFAR-10",
                "protocol": "imagenet_pretrain>finetune>ptq",
                "precision": "4w4a",
            },
        ),
        (
            "6.2",
            {
                "paper": "SSQL",
                "table": "Table 11",
                "system": "SimSiam",
                "dataset": "Pets",
                "protocol": "imagenet_pretrain>linear",
                "precision": "3w3a",
            },
        ),
        # TR supplement, Table S2
        (
            "38.14",
            {
                "paper": "TR",
                "table": "Table S2",
                "system": "SGDT",
                "architecture": "RetinaNet R34-FPN",
                "precision": "4w4a",
                "metric": "AP",
            },
        ),
    ],
)
def test_spot_values(value, where):
    assert _value(**where) == value


def test_ssql_table_11_whole():
    rows = reported_rows([{"paper": "SSQL", "table": "Table 11"}])
    assert len(rows) == 140  # 2 systems x 7 data sets x 2 protocols x 5 precisions
    assert rows["dataset"].nunique() == 7
    assert set(rows["checkpoint"]) == {"SSQL", "SimSiam"}
    assert set(rows["precision"]) == {"FP", "8w8a", "5w5a", "4w4a", "3w3a"}
    assert set(rows["protocol"]) == {"imagenet_pretrain>linear", "imagenet_pretrain>finetune>ptq"}
    linear = rows[(rows["dataset"] == "CIFAR-10") & (rows["protocol"].str.endswith("linear"))]
    ssql = linear[linear["checkpoint"] == "SSQL"]
    assert ssql["value"].tolist() == [81.0, 80.9, 80.9, 79.5, 69.6]
    assert ssql["printed"].tolist() == ["81.0", "80.9", "80.9", "79.5", "69.6"]


def test_rows_fit_the_results_frame_and_say_what_they_are():
    rows = reported_rows([{"paper": "SSQL", "table": "Table 11"}])
    assert set(COLUMNS) <= set(rows.columns)
    assert set(rows["source"]) == {"reported"}
    assert set(rows["task"]) == {"classification"}
    assert rows["seed"].isna().all()
    assert set(rows["policy_fingerprint"]) == {"-"}


def test_detection_is_told_from_classification():
    rows = reported_rows([{"paper": "TR"}])
    assert set(rows[rows["metric"].str.startswith("AP")]["task"]) == {"detection"}
    assert set(rows[rows["metric"] == "top1"]["task"]) == {"classification"}


def test_what_is_drawn_has_no_number_and_is_no_score():
    drawn = published_results()[len(published_scores()) :]
    assert {row["table"] for row in drawn} == {"Fig. S5", "Sec. S3.3"}
    assert all(not row["value"] and row["notes"] for row in drawn)
    with pytest.raises(ValueError, match="no published score matches"):
        reported_rows([{"table": "Fig. S5"}])


def test_settings_are_no_scores():
    rows = reported_rows([{"paper": paper} for paper in PAPERS])
    assert len(rows) == 781
    assert not rows["metric"].str.startswith(("hparam:", "num_")).any()


def test_selections_add_up_without_repeating():
    both = [{"paper": "SSQL", "table": "Table 11"}, {"paper": "SSQL", "dataset": ["Pets", "DTD"]}]
    assert len(reported_rows(both)) == 140
    some = reported_rows([{"paper": "SSQL", "table": "Table 11", "precision": ["FP", "4w4a"]}])
    assert len(some) == 56
    assert reported_rows([]).empty


def test_precisions_are_written_as_everywhere():
    rows = load_published()
    odd = {"-", "B (set not restated)"}
    for precision in set(rows["precision"]) - odd:
        assert str(Precision.parse(precision)) == precision


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"papers": "SSQL"}, "no column 'papers'.*nothing was selected.*Did you mean 'paper'"),
        ({"table": "Table 110"}, "no published score has table 'Table 110'.*Did you mean"),
        ({"paper": "SSQL", "system": "SGDT"}, "not together: leave one out"),
        ("SSQL", "selects no published numbers.*Write each entry"),
    ],
)
def test_a_selection_that_finds_nothing_is_refused(selection, message):
    with pytest.raises(ValueError, match=message):
        reported_rows([selection])

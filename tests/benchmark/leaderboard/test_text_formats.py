"""CSV, Markdown and LaTeX: columns, formats, escaping."""

import csv
import io

import pandas as pd
import pytest

from lowbit.benchmark.leaderboard.tables import Tables
from lowbit.benchmark.leaderboard.text_formats import CSV_COLUMNS, to_csv, to_latex, to_markdown
from lowbit.benchmark.published import reported_rows
from lowbit.benchmark.results.comparability import normalize
from tests.benchmark.board_frames import failure, make_frame, row, seeds

PROMISED = [
    "checkpoint",
    "method",
    "architecture",
    "task",
    "dataset",
    "protocol",
    "precision",
    "metric",
    "value",
    "sd",
    "n_seeds",
    "engine",
    "policy",
    "source",
    "status",
]


def _tables(rows, reported=()):
    frames = [normalize(pd.DataFrame(rows))]
    if reported:
        frames.append(normalize(reported_rows(reported)))
    return Tables(pd.concat(frames, ignore_index=True))


def _records(tables):
    return list(csv.DictReader(io.StringIO(to_csv(tables))))


def test_csv_has_the_promised_columns_first_to_last():
    tables = _tables(make_frame())
    header = to_csv(tables).splitlines()[0].split(",")
    assert header == list(CSV_COLUMNS)
    assert set(PROMISED) <= set(header)
    assert len(_records(tables)) == len(tables.folded)


def test_csv_numbers_have_one_format_and_blanks_where_unknown():
    tables = _tables([*seeds([90.0, 91.0], stderr=1.25), row(checkpoint="one", value=50.0)])
    several, one = sorted(_records(tables), key=lambda r: -float(r["value"]))
    assert (several["stderr"], one["stderr"]) == ("1.2500", "")
    assert (several["value"], several["sd"], several["n_seeds"]) == ("90.5000", "0.7071", "2")
    assert (one["value"], one["sd"], one["n_seeds"]) == ("50.0000", "", "1")
    assert several["ci_low"] == "84.1469"  # 90.5 - 12.7062 * .7071 / sqrt 2


def test_csv_carries_failures_and_reported_rows():
    rows = [*seeds([90.0]), failure('disk full,\n "twice"', checkpoint="lost")]
    tables = _tables(rows, [{"paper": "SSQL", "table": "Table 11"}])
    records = _records(tables)
    lost = next(record for record in records if record["checkpoint"] == "lost")
    assert (lost["status"], lost["value"], lost["n_seeds"]) == ("failed", "", "")
    assert lost["reason"] == 'disk full, "twice"'
    reported = [record for record in records if record["source"] == "reported"]
    assert len(reported) == 140
    assert {(r["rank"], r["sd"], r["n_seeds"]) for r in reported} == {("", "", "")}
    assert {r["paper"] + r["table"] for r in reported} == {"SSQLTable 11"}


def test_an_empty_csv_is_a_header():
    tables = _tables(make_frame().iloc[:0])
    assert to_csv(tables).splitlines() == [",".join(CSV_COLUMNS)]


def test_markdown_line_of_a_board():
    tables = _tables(
        seeds([90.0, 91.0], checkpoint="good") + seeds([60.0, 61.0], checkpoint="bad_one")
    )
    text = to_markdown(tables)
    assert "## A. Classification: digits, linear, top-1 (%)" in text
    assert "| good | SSQL | resnet10\\_slim | *90.5 ± 0.7* <sup>1</sup> |" in text
    assert "| bad\\_one | SSQL | resnet10\\_slim | 60.5 ± 0.7 <sup>2</sup> |" in text


def test_a_single_seed_has_a_dagger_and_no_spread():
    tables = _tables([row(value=90.0)])
    assert "| 90.0† |" in to_markdown(tables)
    assert r"90.0$^\dagger$" in to_latex(tables)


def test_markdown_lists_what_is_missing_and_what_is_reported():
    tables = _tables([failure("out of | memory")], [{"paper": "SSQL", "table": "Table 12"}])
    text = to_markdown(tables)
    assert "There is no result to show" in text
    assert "out of \\| memory" in text
    assert text.index("Jobs without numbers") < text.index("Reported by the papers")
    assert "neither measured here nor ranked" in text


def test_latex_is_booktabs_with_balanced_rows():
    tables = _tables(make_frame(), [{"paper": "SSQL", "table": "Table 11"}])
    text = to_latex(tables)
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 10
    assert text.count("\\toprule") == text.count("\\midrule") == text.count("\\bottomrule") == 10
    for table in text.split("\\begin{tabular}{")[1:]:
        columns = len(table.split("}")[0])
        rows = [line for line in table.splitlines() if line.endswith("\\\\")]
        assert {line.count(" & ") + 1 for line in rows} == {columns}
    assert "\\textit{82." in text and "\\textbf" not in text


def test_latex_escapes_every_special_character():
    hostile = "a\\b{c}d%e&f#g$h_i^j~k<l>m|n\x07"
    tables = _tables([row(checkpoint=hostile)])
    escaped = (
        r"a\textbackslash{}b\{c\}d\%e\&f\#g\$h\_i\textasciicircum{}j\textasciitilde{}k"
        r"\textless{}l\textgreater{}m\textbar{}n &"
    )
    assert escaped in to_latex(tables)


@pytest.mark.parametrize("name", ["<script>x</script>", "a|b", "`c`", "*d*", "[e](f)"])
def test_markdown_escapes_names(name):
    tables = _tables([row(checkpoint=name)])
    line = next(x for x in to_markdown(tables).splitlines() if "resnet10" in x)
    assert name not in line
    assert line.replace("\\|", "").count("|") == 5  # three labels and one precision


def test_numbers_that_depend_on_rounding_are_marked_and_explained_in_every_format():
    rows = [row(rounding=4.25), row(precision="2w2a", rounding=0.5), row(precision="FP")]
    tables = _tables(rows)
    lines = csv.DictReader(io.StringIO(to_csv(tables)))
    assert [line["rounding"] for line in lines] == ["", "4.2500", "0.5000"]
    markdown, latex = to_markdown(tables), to_latex(tables)
    assert "| 90.0† | 90.0†≈ | 90.0† |" in markdown
    assert r"90.0$^\dagger$ & 90.0$^\dagger$$\approx$ & 90.0$^\dagger$ \\" in latex
    assert "≈: rounding alone decides at least 1 % of these predictions" in markdown
    assert r"$\approx$: rounding alone decides at least 1 \% of these predictions" in latex
    for text in map(to_markdown, (_tables(rows[1:]), _tables(rows[2:]))):
        assert "≈" not in text


def test_the_csv_says_which_intervals_may_be_too_narrow():
    ends = {"image_low": 80.0, "image_high": 95.0}
    tables = _tables([row(image_warning="few objects", **ends), row(precision="FP", **ends)])
    lines = csv.DictReader(io.StringIO(to_csv(tables)))
    assert [(line["precision"], line["warning"]) for line in lines] == [
        ("FP", ""),
        ("4w4a", "few objects"),
    ]

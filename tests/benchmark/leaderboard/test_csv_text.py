"""CSV: spreadsheets compute no name, numbers stay numbers, and every name comes back."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowbit.benchmark.leaderboard.csv_text import defused, original, read_csv, to_csv

FORMULAS = [
    '=HYPERLINK("http://example.org")', "=1+1", "+1+1", "-1+1", "@SUM(1)", " =1", "'=1", "''+a",
    "-a", "\uff1d1+1", "=\n1",
]  # fmt: skip
TEXTS = [
    "SSQL",
    "-",
    "=",
    "",
    "-1.5",
    "+.3",
    "-2e-3",
    "'quoted'",
    "a=b",
    "α @ β",
    "–",
    "a,b",
    'a"b',
]


@pytest.mark.parametrize("text", FORMULAS)
def test_what_would_be_computed_gets_an_apostrophe(text):
    assert defused(text) == "'" + text.replace("\n", "\\n")


@pytest.mark.parametrize("text", TEXTS)
def test_other_texts_stay(text):
    assert defused(text) == text


@given(st.text(alphabet=st.sampled_from("'=+-@ a1.\uff1d"), max_size=8))
def test_a_text_comes_back(text):
    assert original(defused(text)) == text


def test_a_table_comes_back(tmp_path):
    names = [*FORMULAS[:-1], *filter(None, TEXTS)]
    values = np.linspace(-2, 2, len(names))
    table = pd.DataFrame(
        {"name": names, "value": values, "=unit": pd.Categorical(["-%"] * len(names))}
    )
    text = to_csv(table, float_format="%.4f")
    (tmp_path / "a.csv").write_text(text)
    read = read_csv(tmp_path / "a.csv")
    assert read["name"].tolist() == names
    np.testing.assert_allclose(read["value"], values, atol=1e-4)
    raw = pd.read_csv(io.StringIO(text), dtype=str)
    assert raw.columns.tolist() == ["name", "value", "'=unit"]
    assert raw["value"][0] == "-2.0000"
    assert table["name"].tolist() == names  # the argument is left as it was


def test_a_line_break_does_not_begin_a_row():
    assert len(to_csv(pd.DataFrame({"name": ["a\r\nb\x1b[2J"]})).splitlines()) == 2

"""Published numbers beside ours, by table."""

import json
from dataclasses import dataclass

import pytest

from lowbit.benchmark.leaderboard import tables
from lowbit.benchmark.leaderboard.page import reproduction
from tests.benchmark.board_frames import row
from tests.benchmark.page_sources import make_source


@dataclass(frozen=True)
class Row:
    """A row as the reproduction gives it."""

    table: str
    status: str
    ours: float | None = None
    paper: str = "SSQL"
    system: str = "SimSiam"
    dataset: str = "Pets"
    architecture: str = "ResNet-18"
    protocol: str = "linear"
    precision: str = "4w4a"
    metric: str = "top1"
    published: float = 64.1
    printed: str = "64.1"
    doubt: str = ""
    sd: float | None = None
    n_seeds: int = 0
    difference: float | None = None
    tolerance: float | None = 2.0
    reason: str = ""
    differs: str = "four crops"
    suite: str | None = "ssql_table11"
    command: str | None = "lowbit-bench run configs/suites/ssql_table11.yaml"
    jobs: tuple[str, ...] = ("a" * 12,)


@pytest.fixture
def reproduce(monkeypatch):
    """Let `lowbit.benchmark.leaderboard.reproduction` give these rows."""

    def give(*rows):
        monkeypatch.setattr(tables, "reproduce", lambda frame, planned: list(rows))
        return reproduction.content(make_source([row()]))

    return give


def test_tables_with_something_of_ours_come_first(reproduce):
    content = reproduce(
        Row("Table 1", "not run"),
        Row("Table 2", "reproduced", ours=65.000049, difference=0.900049, n_seeds=1),
        Row("Table 2", "differs", ours=60.0, difference=-4.1, n_seeds=1),
    )
    assert [table["table"] for table in content["tables"]] == ["Table 2", "Table 1"]
    table = content["tables"][0]
    assert table["counts"] == [1, 1, 0, 0, 0] and table["differs"] == "four crops"
    first = dict(zip(content["columns"], table["rows"][0], strict=True))
    assert (first["ours"], first["difference"], first["metric"]) == (65.0, 0.9, "top-1")
    assert (first["status"], first["tolerance"], first["printed"]) == ("reproduced", 2.0, "64.1")
    assert (content["ran"], content["numbers"]) == (True, 3)
    assert json.dumps(content, allow_nan=False)


def test_only_tables_that_a_suite_asked_for_are_shown(reproduce):
    content = reproduce(
        Row("Table 1", "not run", jobs=()),
        Row("Table 2", "not run"),
        Row("Table 2", "not run", jobs=(), system="SSQL"),  # of the same table
    )
    (table,) = content["tables"]
    assert table["table"] == "Table 2" and len(table["rows"]) == content["numbers"] == 2
    assert reproduce(Row("Table 1", "not run", jobs=())) == {}


@pytest.mark.parametrize(
    ("status", "ours", "ran"),
    [("not run", None, False), ("not comparable", None, False), ("failed", None, True)],
)
def test_what_has_run_is_not_folded(reproduce, status, ours, ran):
    assert reproduce(Row("Table 1", status, ours=ours))["ran"] == ran


def test_why_a_number_is_uncertain_stays_in_the_csv(reproduce):
    content = reproduce(Row("Table 1", "not run", doubt="ocr-ambiguous: 64.1 or 84.1"))
    assert "ocr" not in json.dumps(content)
    first = dict(zip(content["columns"], content["tables"][0]["rows"][0], strict=True))
    assert first["doubt"] == 1


def test_nothing_published_is_no_section(reproduce):
    assert reproduce() == {}

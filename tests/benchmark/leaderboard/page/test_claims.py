"""The papers' claims on the page."""

import json
from types import SimpleNamespace

import pytest

from lowbit.benchmark.leaderboard.page import claims
from tests.benchmark.claims.made_results import Runs


def content(folder):
    return claims.content(SimpleNamespace(runs_dir=folder))


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)


def test_a_row_a_claim_and_scale_and_the_others_by_reason(runs):
    for method, shift in (("SSQL", 9.0), ("SimSiam", 0.0)):
        runs.method(method, {s: {"4w4a": 81.0 + s + shift, "FP": 90.0 + s} for s in range(3)})
    found = content(runs.folder)
    rows = {row["claim"]: row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) == sum(found["counts"])
    row = rows["Frozen features of SSQL are more accurate than those of SimSiam at 4w4a."]
    assert (row["found"], row["source"], row["data"]) == (9.0, "SSQL, Table 11", "digits")
    assert row["published"] == 27.96 and row["remark"]
    others = {one["reason"]: one["claims"] for one in found["missing"]}
    assert (
        "At 4w4a, a RetinaNet trained by SGDT is better than one trained by SGD."
        in (others["no results of either side"])
    )
    assert json.dumps(found, allow_nan=False)


def test_without_a_trial_there_is_no_section(runs, tmp_path):
    assert content(tmp_path / "none") == content(tmp_path) == {}
    runs.method("SSQL", {0: {"4w4a": 90.0}})
    assert content(runs.folder) == {}

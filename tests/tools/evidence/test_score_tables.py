"""Tables of scores: means over pretrainings, in which scoring seeds count once together."""

import pytest

from lowbit.tools.evidence.score_tables import score_table, units_of
from tests.benchmark.result_folders import make_result, write


def _facts(name, pretraining, protocol="linear"):
    return {
        "schema_version": 3,
        "checkpoint": {"name": f"{name} seed {pretraining}", "pretraining": name, "pretrain_seed": pretraining},
        "identity": {"task": "classification", "dataset": "digits", "protocol": protocol},
    }  # fmt: skip


def test_a_pretraining_counts_once_whatever_its_scoring_seeds(tmp_path):
    scores = [(0, 0, 80.0), (0, 1, 82.0), (1, 0, 85.0)]  # pretraining, seed, accuracy
    results = [
        make_result(f"{i:012x}", seed=seed, values={"FP": value}, **_facts("SSQL", made))
        for i, (made, seed, value) in enumerate(scores)
    ]
    assert units_of(results, "FP") == [81.0, 85.0]
    assert units_of(results[:2], "FP") == [80.0, 82.0]  # of one pretraining the seeds are the units
    assert units_of(results, "4w4a") == []


def test_a_row_a_method_and_a_column_a_precision(tmp_path):
    for i, (name, value) in enumerate((("SSQL", 80.0), ("SSQL", 84.0), ("SimSiam", 70.0))):
        facts = _facts(name, i)
        write(tmp_path, f"{i:012x}", values={"FP": value, "4w4a": value - 5}, **facts)
    write(tmp_path, "f" * 12, values={"FP": 1.0}, **_facts("SSQL", 0, "linear-exact"))
    head, _, *rows = score_table(tmp_path, "linear").splitlines()
    assert head == "|  | FP | 4w4a | seeds |"
    assert rows == ["| SimSiam | 70.0 | 65.0 | 1 |", "| SSQL | 82.0 ± 2.8 | 77.0 ± 2.8 | 2 |"]
    both = score_table(tmp_path, "linear*")
    assert "| SSQL, linear-exact | 1.0 | – | 1 |" in both and "| SimSiam, linear | 70.0 |" in both


def test_a_protocol_without_results_is_refused(tmp_path):
    write(tmp_path, "0" * 12)
    with pytest.raises(ValueError, match="no result of protocol qat; no table was made"):
        score_table(tmp_path, "qat")

"""Numbers of trainings, read from the details of results."""

import pytest

from lowbit.benchmark.claims.detail_numbers import DETAILS, score_after
from tests.benchmark.result_folders import make_result


def read(metric, details):
    return dict(DETAILS[metric].read(make_result("a" * 12, details=details)))


def test_the_gap_is_in_percent_of_the_target():
    curve = {"gap": [1e-3, 5e-4], "target": [8e-3, 2e-3], "running": [7e-3, 2e-3]}
    assert read("rate_gap", {"transitions": {"2w2a": curve}}) == {"2w2a": pytest.approx(15.0)}


def test_the_last_steps_are_in_percent_of_all():
    steps = [1.0] * 18 + [0.5, 0.0]
    found = read("final_step", {"transitions": {"2w2a": {"effective_step": steps}}})
    assert found == {"2w2a": pytest.approx(100 * 0.25 / (18.5 / 20))}


def test_the_largest_correlation():
    assert read("correlation", {"correlation": {"max_abs_rho": 0.08, "mean_rho": 0.0}}) == {
        "FP": 0.08
    }


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"transitions": None, "correlation": []},
        {"transitions": {"2w2a": {"gap": ["x"], "target": [1.0], "effective_step": []}}},
        {"transitions": {"2w2a": {"gap": [0.0], "target": [0.0], "effective_step": [0.0]}}},
        {"correlation": {"max_abs_rho": True}},
    ],
)
def test_what_is_missing_or_no_number_is_not_read(details):
    assert {metric: read(metric, details) for metric in DETAILS} == {m: {} for m in DETAILS}


def test_a_score_after_a_share_of_the_training():
    curve = [{"iteration": i, "AP": float(i)} for i in (10, 20, 900, 1800)]
    result = make_result("a" * 12, details={"curve": curve})
    assert score_after(result, 1 / 90, "AP") == 20.0
    assert score_after(result, 0.0111, "AP") == 20.0  # as claims write it
    assert score_after(result, 0.5, "AP") == 900.0
    assert score_after(result, 0.25, "AP") is None  # nothing was evaluated near
    assert score_after(result, 0.5, "AP50") is None
    assert score_after(make_result("a" * 12), 0.5, "AP") is None

"""Trials as text, Markdown and JSON."""

import json

import pytest

from lowbit.benchmark.claims.claim import Claim
from lowbit.benchmark.claims.claims_text import remark, to_json, to_markdown, to_text
from lowbit.benchmark.claims.trials import try_claims
from tests.benchmark.claims.made_results import CLAIM, Runs


@pytest.fixture
def trials(tmp_path):
    runs = Runs(tmp_path)
    for method, values in (("SSQL", (90.0, 91.0, 92.4)), ("SimSiam\x1b[2J", (81.0, 81.4, 84.0))):
        runs.method(method, {seed: {"4w4a": value} for seed, value in enumerate(values)})
    known = {**CLAIM, "b": {"method": "SSQL"}}
    claim = Claim.model_validate(known)
    claims = [
        claim.model_copy(update={"b": {"method": r"SimSiam\x1b[2J"}, "found": 27.96}),
        claim.model_copy(update={"id": "none", "b": {"method": "BYOL"}}),
    ]
    return try_claims([tmp_path], claims)


def test_text_has_each_trial_below_its_claim(trials):
    lines = to_text(trials).splitlines()
    assert lines[0] == (
        "SSQL is more accurate than SimSiam at 4w4a. (SSQL, Table 12: +27.96 points)"
    )
    assert lines[1].startswith("    supported    +9.00 points [")
    assert "    missing side: no results of method BYOL (1): none" in lines
    assert lines[-1] == (
        "1 supported, 1 not run. Intervals are over pairs of seeds, corrected by Holm for 1 trial: the "
        "chance that any verdict is wrong is at most 5 %."
    )
    assert "\x1b" not in to_text(trials) + to_markdown(trials)


def test_markdown_is_a_table_of_every_trial(trials):
    head, rule, *rows = to_markdown(trials).splitlines()
    assert head.count("|") == rule.count("|") == rows[0].count("|") == 7
    assert rows[0].startswith("| SSQL is more accurate than SimSiam at 4w4a. | SSQL, Table 12 |")
    assert "resnet10\\_slim" in rows[0] and "| not run; missing side" in rows[1]


def test_json_has_every_number(trials):
    tried, other = json.loads(json.dumps(to_json(trials), allow_nan=False))
    assert (tried["claim"], tried["verdict"], tried["n"]) == ("ssql-4w4a", "supported", 3)
    assert tried["found"] == pytest.approx(9.0) and tried["published"] == 27.96
    assert tried["low"] < 9.0 < tried["high"] and tried["scale"]["network"] == "resnet10_slim"
    assert (other["verdict"], other["scale"], other["found"]) == ("not run", None, None)


def test_remarks_say_how_many_seeds_would_decide(tmp_path):
    runs = Runs(tmp_path)
    for method, values in (("SSQL", (90.0, 93.0, 91.0)), ("SimSiam", (88.0, 88.0, 90.0))):
        runs.method(method, {seed: {"4w4a": value} for seed, value in enumerate(values)})
    (trial,) = try_claims([tmp_path], [Claim.model_validate(CLAIM)])
    said = f"{trial.needed} pretrainings would decide it with a probability of 80 %"
    assert trial.verdict == "undecided" and remark(trial) == said


def test_a_difference_smaller_than_the_images_tell_is_marked(tmp_path):
    """Of 540 images, each side's standard error being 1.5."""
    runs = Runs(tmp_path)
    for method, values in (("SSQL", (90.0, 91.0)), ("SimSiam", (88.0, 88.99))):
        runs.method(method, {seed: {"4w4a": value} for seed, value in enumerate(values)})
    (trial,) = try_claims([tmp_path], [Claim.model_validate(CLAIM)])
    assert trial.verdict == "supported" and trial.image_error == pytest.approx(1.5 * 2**0.5)
    assert remark(trial) == "within the uncertainty of these test images, ± 4.2"

"""The file of claims: what comes with the product names what exists, and mistakes are refused."""

import csv
from itertools import product
from pathlib import Path

import pytest
import yaml

from lowbit.benchmark.claims import known_names
from lowbit.benchmark.claims.claim import Claim, load_claims
from lowbit.benchmark.claims.detail_numbers import DETAILS
from lowbit.benchmark.recipes.errors import RecipeError
from tests.benchmark.claims.made_results import CLAIM

ROOT = Path(__file__).parents[3]
SHIPPED = load_claims()
_BY_ID = {claim.id: claim for claim in SHIPPED}


def _published():
    with (ROOT / "benchmark" / "published" / "published.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _reference_difference(claim: Claim) -> float:
    """The mean of a - b over the printed numbers, by loops over the file."""
    said, rows = claim.published, _published()

    def numbers(side, precisions, more):
        columns = side if isinstance(side, dict) else {"system": side}
        wanted = {"paper": claim.paper, "table": claim.table, "precision": precisions}
        wanted = {**wanted, **said.where, **more, **columns}
        found = {}
        for row in rows:
            if row["metric"].startswith(("hparam:", "num_")):
                continue
            for column, value in wanted.items():
                allowed = value if isinstance(value, list | tuple) else [value]
                if row[column] not in map(str, allowed):
                    break
            else:
                place = ["dataset", "architecture", "precision"]
                place += (
                    [] if {"protocol"} & {*_columns(said.a), *_columns(said.b)} else ["protocol"]
                )
                found.setdefault(tuple(row[c] for c in place), []).append(float(row["value"]))
        return {place: sum(values) / len(values) for place, values in found.items()}

    def mean(precisions, more):
        a, b = (numbers(side, precisions, more) for side in (said.a, said.b))
        both = a.keys() & b.keys()
        return sum(a[place] - b[place] for place in both) / len(both)

    found = mean(claim.precisions, {})
    if claim.less is not None:
        found -= mean(claim.less.precisions or claim.precisions, said.less)
    return found


def _columns(side):
    return side if isinstance(side, dict) else {"system": None}


@pytest.mark.parametrize("claim", [c for c in SHIPPED if c.published], ids=lambda claim: claim.id)
def test_what_the_paper_found_is_what_it_printed(claim):
    assert claim.found == pytest.approx(_reference_difference(claim), abs=0.0051)


def test_by_hand():
    """Table 12, BYOL: from FP to 2w4a 90.8 to 85.7, and 89.3 to 63.3."""
    assert _BY_ID["ssql-byol-drop"].found == pytest.approx((85.7 - 90.8) - (63.3 - 89.3))
    assert _BY_ID["tr-final-target-1e-3"].found == pytest.approx(65.61 - 62.12)
    assert _BY_ID["ssql-detector-start"].found == pytest.approx(25.4 - 19.1)
    assert _BY_ID["coquant-adabits-3w3a"].found == pytest.approx(
        ((59.3 - 53.4) + (54.5 - 44.9)) / 2
    )
    assert _BY_ID["cq-c-1pct-fp"].found == pytest.approx(1.87, abs=0.01)


@pytest.mark.parametrize("claim", SHIPPED, ids=lambda claim: claim.id)
def test_what_would_matter_is_at_most_half_of_what_was_found(claim):
    """Else the paper's own number would not support it; a bound is one that the paper kept."""
    if claim.found is None:
        assert claim.note
    elif claim.within:
        assert abs(claim.found) <= claim.matters
    else:
        assert 0 < claim.matters <= claim.found / 2 + 1e-9


def test_every_paper_makes_claims_and_every_sentence_is_one():
    papers = [claim.paper for claim in SHIPPED]
    assert {paper: papers.count(paper) > 8 for paper in papers} == dict.fromkeys(
        ("SSQL", "CQ", "TR", "CoQuant"), True
    )
    said = [claim.says for claim in SHIPPED]
    assert len(set(said)) == len(said) and all(text.endswith(".") for text in said)


@pytest.fixture
def registries_alone(monkeypatch):
    """Let nothing be known without a look into its registry; return what was."""
    often = dict(known_names._OFTEN)
    monkeypatch.setattr(known_names, "_OFTEN", {fact: frozenset() for fact in often})
    monkeypatch.setattr(known_names, "_NUMBERS", frozenset())
    return often


def test_everything_that_the_shipped_claims_name_is_in_a_registry(registries_alone):
    assert load_claims() == SHIPPED


def test_every_name_that_is_known_without_a_registry_is_in_one(registries_alone):
    for fact in registries_alone.keys() - {"task", "training"}:
        for name in registries_alone[fact]:
            known_names.check_fact(fact, name)


def test_the_sets_of_detectron2_are_those_of_the_shipped_configurations():
    texts = [p.read_text() for p in (ROOT / "configs/detection/detectron2").glob("*.yaml")]
    for name in known_names._OF_DETECTRON2:
        assert any(f"TEST: [{name}]" in text for text in texts)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"paper": "SSLQ"}, "there is no paper 'SSLQ'. Did you mean 'SSQL'"),
        ({"a": {"method": "SQSL"}}, "Did you mean 'SSQL'"),
        ({"where": {"protocol": "liner"}}, "Did you mean 'linear'"),
        ({"where": {"optimiser": "sgd"}}, "no fact 'optimiser'. Did you mean 'optimizer'"),
        (
            {"where": {"optimizer": "sgtd"}},
            "optimizer is never 'sgtd'. Did you mean 'sgd' or 'sgdt'",
        ),
        ({"where": {"adaptive.method": "coquan"}}, "Did you mean 'coquant'"),
        ({"where": {"policy": "lsqq"}}, "Did you mean 'lsq'"),
        ({"where": {"pretrain.pairing": 7}}, "pretrain.pairing is never 7"),
        ({"datasets": ["cifar11"]}, "Did you mean 'cifar10'"),
        ({"precisions": ["4w"]}, "'4w' is not a precision"),
        ({"metric": "top2"}, "there is no metric 'top2'. Did you mean 'top1'"),
        ({"b": None}, "`b` is missing"),
        ({"matters": 0}, "greater than 0"),
        (
            {"found": 1.0, "published": {"a": "BYOL+SSQL", "b": "BYOL"}},
            "published numbers give 1.80",
        ),
        ({"found": 1.0, "published": {"a": "BYOL+SQL", "b": "BYOL"}}, "Did you mean 'BYOL+SSQL'"),
        ({"published": {"a": "BYOL+SSQL", "b": "BYOL"}}, "write it as `found`"),
        ({"hope": True}, "hope: unknown key"),
    ],
)
def test_a_mistake_is_refused_and_said(changed, said, tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": [CLAIM | changed]}))
    with pytest.raises(RecipeError) as refused:
        load_claims(path)
    assert said in str(refused.value) and "1 key is wrong; nothing was run" in str(refused.value)


def test_ids_are_given_once(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump({"claims": [CLAIM, CLAIM]}))
    with pytest.raises(RecipeError, match="'ssql-4w4a' is given twice"):
        load_claims(path)


def test_facts_may_be_any_field_of_a_recipe():
    facts = {
        "transition.scope": "layer",
        "pretrain.framework": "simsiam",
        "pretrain.augmentation.flip": 0.5,
        "meta_architecture": ["retinanet", "faster_rcnn"],
        "label_fraction": [0.01, 0.1],
        "architecture": "resnet20",
        "dataset": "digits",
    }
    assert Claim.model_validate(CLAIM | {"where": facts}).where == facts


def test_metrics_of_details_have_a_claim():
    used = {claim.metric for claim in SHIPPED}
    assert set(DETAILS) <= used


def test_claims_are_told_apart_by_more_than_their_words():
    """No two claims are the same test."""
    tests = [
        claim.model_dump(exclude={"id", "says", "found", "matters", "published", "note", "table"})
        for claim in SHIPPED
    ]
    assert not [1 for (i, a), (j, b) in product(enumerate(tests), repeat=2) if i < j and a == b]

"""Claims tried on result files: verdicts, scales, and why a claim was not run."""

import numpy as np
import pytest
from scipy import stats

from lowbit.benchmark.claims.claim import Claim
from lowbit.benchmark.claims.trials import try_claims
from tests.benchmark.claims.made_results import CLAIM, Runs


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)


def trials(runs, **changes):
    return try_claims([runs.folder], [Claim.model_validate(CLAIM | changes)])


def at(precision, *values):
    return {seed: {precision: value} for seed, value in enumerate(values)}


@pytest.mark.parametrize(
    ("theirs", "verdict"),
    [
        ((85.0, 86.1, 84.2), "supported"),
        ((95.3, 96.0, 94.0), "contradicted"),
        ((88.0, 93.0, 89.5), "undecided"),
    ],
)
def test_a_verdict_from_files(runs, theirs, verdict):
    ours = (90.0, 91.0, 89.0)
    runs.method("SSQL", at("4w4a", *ours))
    runs.method("SimSiam", at("4w4a", *theirs))
    (found,) = trials(runs)
    differences = np.subtract(ours, theirs)
    assert found.verdict == verdict
    assert found.found == pytest.approx(differences.mean()) and found.n == 3
    assert found.sd == pytest.approx(differences.std(ddof=1))
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.needed is not None) == (verdict == "undecided")
    assert str(found.scale) == (
        "resnet10_slim; pretrained 20 epochs (320 steps) on digits; digits; linear, 100 epochs; SSQL "
        "against SimSiam; 3 pretrainings"
    )


def test_sides_are_paired_by_seed(runs):
    """The spread over seeds that both share drops out."""
    runs.method("SSQL", at("4w4a", 60.0, 75.0, 90.0))
    runs.method("SimSiam", at("4w4a", 58.0, 73.1, 87.9))
    (found,) = trials(runs)
    assert found.verdict == "supported" and found.sd == pytest.approx(0.1)


def test_scoring_seeds_are_averaged_in_their_pretraining(runs):
    """Many scoring seeds of two pretrainings are two pairs."""
    for method, means in (("SSQL", (90.0, 92.0)), ("SimSiam", (88.0, 88.0))):
        for pretrain_seed, mean in enumerate(means):
            job = runs.pretrain(method, pretrain_seed)
            for seed, shift in enumerate((-1.0, 0.0, 1.0)):
                runs.score(method, job, pretrain_seed, {"4w4a": mean + shift}, seed=seed)
    (found,) = trials(runs)
    assert (found.n, found.found) == (2, pytest.approx(3.0))
    assert found.sd == pytest.approx(np.std([2.0, 4.0], ddof=1))
    assert found.scale.seeds == "2 pretrainings, 3 seeds each"


def test_trainings_of_one_backbone_are_paired_by_their_seeds(runs):
    job = runs.pretrain("untrained", 0, epochs=0)
    for optimizer, shift in (("sgdt", 1.0), ("sgd", 0.0)):
        identity = {"training": optimizer, "policy": "interval"}
        for seed, value in enumerate((60.0, 61.0, 62.5)):
            fields = {"optimizer": optimizer, "protocol": "qat", "identity": identity}
            values = {"2w2a": value + shift + 0.1 * seed * shift}
            runs.score("untrained", job, None, values, seed=seed, **fields)
    sides = {"a": {"optimizer": "sgdt"}, "b": {"optimizer": "sgd"}, "precisions": ["2w2a"]}
    (found,) = trials(runs, **sides)
    assert (found.verdict, found.n, found.scale.seeds) == ("supported", 3, "3 seeds")
    assert (found.scale.a, found.scale.b) == ("sgdt", "sgd")
    assert found.scale.pretraining == ""


def test_a_claim_may_subtract_another_precision(runs):
    pairs = {"SSQL": [(90.0, 85.0), (91.0, 87.0)], "SimSiam": [(88.0, 80.0), (89.0, 81.5)]}
    for method, values in pairs.items():
        runs.method(method, {s: {"FP": fp, "3w3a": low} for s, (fp, low) in enumerate(values)})
    (found,) = trials(runs, precisions=["3w3a"], less={"precisions": ["FP"]})
    assert found.found == pytest.approx(np.mean([(-5 + 8), (-4 + 7.5)]))


def test_a_claim_may_subtract_another_protocol(runs):
    for fraction, protocol, gain in ((0.01, "semi-1pct", 3.0), (0.1, "semi-10pct", 1.0)):
        for method, more in (("CQ-C", gain), ("SimCLR", 0.0)):
            by_seed = at("FP", *(50.0 + more + 0.1 * more * seed for seed in range(3)))
            identity = {"protocol": protocol}
            fields = {"label_fraction": fraction, "identity": identity, "epochs": int(1 / fraction)}
            runs.method(method, by_seed, protocol="semi", **fields)
    (found,) = trials(
        runs,
        a={"method": "CQ-C"},
        b={"method": "SimCLR"},
        where={"protocol": "semi", "label_fraction": 0.01},
        less={"where": {"label_fraction": 0.1}},
        precisions=["FP"],
    )
    assert found.found == pytest.approx(np.mean([2.0, 2.2, 2.4]))


def test_a_mean_over_precisions_takes_all_of_them(runs):
    for method, shift in (("SSQL", 2.0), ("SimSiam", 0.0)):
        values = {seed: {"4w4a": 80 + shift, "3w3a": 70 + 2 * shift + seed} for seed in range(2)}
        runs.method(method, values)
    (found,) = trials(runs, precisions=["4w4a", "3w3a"])
    assert found.found == pytest.approx(3.0)
    (found,) = trials(runs, precisions=["4w4a", "2w2a"])
    assert (found.verdict, found.reason) == ("not run", "SSQL has no top1 at 2w2a")


def test_one_side_may_stay_within_a_bound(runs):
    for seed, rho in enumerate((0.05, 0.06, 0.055)):
        runs.pretrain("SSQL", seed, details={"correlation": {"max_abs_rho": rho}})
    one_side = {"b": None, "within": True, "matters": 0.1, "precisions": ["FP"]}
    (found,) = trials(runs, where={"task": "pretrain"}, metric="correlation", **one_side)
    assert (found.verdict, found.n) == ("supported", 3)
    assert found.scale.length == "20 epochs (320 steps)" and found.scale.b == ""


def test_every_scale_is_a_trial(runs):
    for epochs, protocol in ((20, "linear"), (20, "linear-exact"), (200, "linear")):
        for method, shift in (("SSQL", 2.0), ("SimSiam", 0.0)):
            for seed in range(3):
                job = runs.pretrain(method, seed, epochs=epochs)
                runs.score(method, job, seed, {"4w4a": 80.0 + shift + seed}, protocol=protocol)
    found = trials(runs)
    scales = {(trial.scale.pretraining, trial.scale.protocol) for trial in found}
    assert len(found) == len(scales) == 3
    assert {trial.level for trial in found} != {0.05}  # corrected for three


def test_frozen_weights_are_their_own_side_and_no_plain_optimizer(runs):
    job = runs.pretrain("untrained", 0, epochs=0)
    for section, shift in (({"transition": {"controller": "eq11"}}, 1.0), (None, 0.0)):
        for seed in range(2):
            own = section or {"oscillation": {"method": "freezing", "momentum": 1e-3}}
            optimizer = "sgdt" if section else "sgd"
            identity = {"training": optimizer, "policy": "lsq"}
            fields = {"optimizer": optimizer, "protocol": "qat", "identity": identity, **own}
            values = {"2w2a": 60.0 + shift + 0.1 * seed * shift}
            runs.score("untrained", job, None, values, seed=seed, **fields)
    a = {"optimizer": "sgdt"}
    (untried,) = trials(runs, a=a, b={"optimizer": "sgd"}, precisions=["2w2a"])
    assert untried.scale is None and untried.n == 0
    (found,) = trials(runs, a=a, b={"oscillation.method": "freezing"}, precisions=["2w2a"])
    assert found.found == pytest.approx(1.05)


def test_variants_of_a_side_are_trials_of_their_own(runs):
    """Each against the rows of the other side that differ from it in the fewest fields."""
    for lr in (0.05, 0.1):
        for method, shift in (("SSQL", 2.0), ("SimSiam", 0.0)):
            for seed in range(2):
                job = runs.pretrain(method, seed, lr=lr)
                runs.score(method, job, seed, {"4w4a": 80 + 10 * lr + shift + 0.1 * seed * shift})
    found = trials(runs)
    assert [(trial.scale.a, trial.scale.b) for trial in found] == [
        ("SSQL [lr 0.05]", "SimSiam [lr 0.05]"),
        ("SSQL [lr 0.1]", "SimSiam [lr 0.1]"),
    ]
    assert all(trial.found == pytest.approx(2.1) for trial in found)


def test_a_row_is_not_compared_with_itself(runs):
    """Where a side's facts are those of the other as well."""
    for bits, shift in (([8, 4], 1.0), ([8, 4, 2], 0.0)):
        fields = {"adaptive": {"method": "coquant", "bits": bits}, "protocol": "adaptive"}
        runs.method("SSQL", at("4w4a", 80.0 + shift, 81.1 + shift), **fields)
    (found,) = trials(runs, a={"adaptive.bits": [8, 4]}, b={"adaptive.method": "coquant"})
    assert found.found == pytest.approx(1.0)


def test_untrained_backbones_are_of_every_length(runs):
    runs.method("SSQL", at("4w4a", 80.0, 81.0))
    for seed in range(2):
        job = runs.pretrain("untrained", seed, epochs=0)
        runs.score("untrained", job, seed, {"4w4a": 60.0 + 1.1 * seed})
    (found,) = trials(runs, b={"method": "untrained"})
    assert found.n == 2 and found.scale.pretraining == "20 epochs (320 steps) on digits"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ({"SSQL": at("4w4a", 90.0, 91.0)}, "missing side: no results of method SimSiam"),
        ({"BYOL": at("4w4a", 90.0, 91.0)}, "no results of either side"),
        (
            {"SSQL": at("4w4a", 90.0), "SimSiam": {1: {"4w4a": 80.0}}},
            "no pretraining and seed that both sides have",
        ),
        (
            {"SSQL": at("FP", 90.0), "SimSiam": at("4w4a", 80.0)},
            "SSQL has no top1 at 4w4a",
        ),
    ],
)
def test_why_a_claim_was_tried_nowhere(runs, written, reason):
    for method, by_seed in written.items():
        runs.method(method, by_seed)
    (found,) = trials(runs)
    assert (found.verdict, found.reason, found.scale) == ("not run", reason, None)


def test_other_lengths_are_another_scale(runs):
    runs.method("SSQL", at("4w4a", 90.0, 91.0), epochs=100)
    runs.method("SimSiam", at("4w4a", 80.0, 81.0), epochs=50)
    (found,) = trials(runs)
    assert found.reason == "both sides have results, but none at one scale"


def test_too_few_seeds(runs):
    """Several scoring seeds of one pretraining say nothing of methods."""
    for method, value in (("SSQL", 90.0), ("SimSiam", 80.0)):
        job = runs.pretrain(method, 0)
        for seed in range(3):
            runs.score(method, job, 0, {"4w4a": value + seed}, seed=seed)
    (found,) = trials(runs)
    assert (found.verdict, found.found, found.low) == ("not run", pytest.approx(10.0), None)
    assert found.reason == ("too few seeds: one pretraining has both sides, and a spread takes 2")


def test_claims_about_their_images_are_not_tried_elsewhere(runs):
    runs.method("SSQL", at("4w4a", 90.0, 91.0))
    runs.method("SimSiam", at("4w4a", 80.0, 81.5))
    assert trials(runs)[0].scale.data == "digits"
    (found,) = trials(runs, elsewhere=False)
    assert (found.verdict, found.reason) == ("not run", "no results of either side")


def test_verdicts_are_corrected_over_all_claims(runs):
    runs.method("SSQL", at("4w4a", 90.0, 91.0, 92.4))
    runs.method("SimSiam", at("4w4a", 85.0, 86.2, 86.0))
    claim = Claim.model_validate(CLAIM)
    (alone,) = try_claims([runs.folder], [claim])
    several = [claim, *(claim.model_copy(update={"id": f"c{n}"}) for n in range(9))]
    together = try_claims([runs.folder], several)
    assert alone.verdict == "supported" and {t.verdict for t in together} == {"undecided"}
    assert together[0].level == pytest.approx(0.05 / 10)
    assert together[0].needed > 3

"""Recipes of quantization-aware training: defaults, what contradicts, and names on the board."""

import hashlib
import json
import typing

import pytest
from pydantic import ValidationError

from lowbit.quant import FP
from lowbit.training.optimizers import OPTIMIZERS, T_VARIANTS
from lowbit.transfer import Recipe, identity
from lowbit.transfer.recipe.board_labels import protocol_label, training_label
from lowbit.transfer.recipe.sections import BASES, BaseOptimizer, TOptimizer


def _qat(**fields):
    return Recipe(**{"checkpoint": "b.pth", "protocol": "qat", **fields})


def test_published_defaults_are_those_of_tr_on_cifar():
    qat = _qat()  # SPEC C.6, ResNet-20
    assert (qat.epochs, qat.lr, qat.weight_decay, qat.schedule) == (400, 0.1, 1e-4, "cosine")
    assert (qat.optimizer, qat.scale_lr_factor, qat.scale_weight_decay) == ("sgd", None, 0.0)
    assert FP not in qat.precisions and qat.transition is None
    assert (_qat(optimizer="adamt").lr, _qat(optimizer="adam").weight_decay) == (1e-3, 1e-4)
    assert (_qat(optimizer="adamw").weight_decay, _qat(optimizer="adamwt").lr) == (1e-2, 1e-3)
    assert _qat(optimizer="adam", lr=0.5).lr == 0.5


def test_a_t_variant_has_the_paper_s_section_written_out():
    section = _qat(optimizer="sgdt").transition
    assert (section.lambda_, section.controller, section.scope) == (5e-3, "eq11", "layer")
    assert (section.schedule, section.momentum, section.final_target) == ("cosine", 0.99, 0.0)
    step = _qat(optimizer="sgdt", epochs=400, transition={"schedule": "step"}).transition
    assert step.decays(400) == (100, 200, 300) and step.factor == 0.2  # TR's Table S3


def test_a_bound_that_is_not_set_leaves_no_trace_in_the_recipe():
    """So that a job without it has the id from before the field existed."""
    free, bounded = (
        _qat(optimizer="sgdt", transition=section).model_dump(mode="json")["transition"]
        for section in ({}, {"highest": 2})
    )
    assert bounded == free | {"highest": 2.0} and "highest" not in free


def test_what_is_not_done_about_oscillation_leaves_no_trace_in_the_recipe():
    assert "oscillation" not in _qat().model_dump(mode="json")
    assert _qat(oscillation={"method": "freezing"}).model_dump()["oscillation"]["most_bits"] == 4


def test_every_optimizer_has_a_name_and_a_t_variant():
    assert set(OPTIMIZERS) == set(BASES) == set(typing.get_args(BaseOptimizer))
    assert set(T_VARIANTS) == set(typing.get_args(TOptimizer))


def test_a_start_has_published_rates_and_its_own_seed():
    assert _qat(fp_start={}).fp_start.lr == 0.1
    start = _qat(fp_start={"optimizer": "adam", "epochs": 10}, seed=4).fp_start
    assert (start.lr, start.milestones, start.seed) == (1e-3, (6, 8), 0)


@pytest.mark.parametrize(
    ("fields", "label", "training"),
    [
        ({}, "qat", "sgd"),
        ({"optimizer": "adamwt"}, "qat", "adamwt"),
        ({"optimizer": "sgdt", "fp_start": {}}, "qat-fp-start", "sgdt"),
        ({"warmup_fc": {}}, "qat-warmup-fc", "sgd"),
        ({"checkpoint_head": True, "amp": "bf16"}, "qat-checkpoint-head-bf16", "sgd"),
        ({"distillation": {"teacher": "t.pth"}}, "qat-distilled", "sgd"),
        (
            {"optimizer": "sgdt", "transition": {"controller": "s2", "scope": "global"}},
            "qat",
            "sgdt-s2-global",
        ),
        (
            {"optimizer": "sgdt", "transition": {"schedule": "linear", "decay": "base"}},
            "qat",
            "sgdt-linear-target-base-decay",
        ),
        ({"optimizer": "adamt", "transition": {"lambda_": 1e-3}}, "qat", "adamt-lambda0.001"),
        ({"optimizer": "sgdt", "transition": {"lambda_": "natural"}}, "qat", "sgdt-natural"),
        ({"optimizer": "sgdt", "transition": {"controller": "scaled"}}, "qat", "sgdt-scaled"),
        ({"optimizer": "sgdt", "transition": {"highest": 1}}, "qat", "sgdt-upto1"),
        (
            {"optimizer": "sgdt", "transition": {"final_target": 1e-4}},
            "qat",
            "sgdt-to0.0001",
        ),
        (
            {"schedule": "step", "milestones": [9, 18], "gamma": 0.2},
            "qat",
            "sgd-step0.2",
        ),
        ({"schedule": "step", "milestones": [9, 18]}, "qat", "sgd"),
        ({"oscillation": {"method": "freezing"}}, "qat", "sgd-freezing"),
        (
            {"oscillation": {"method": "freezing", "threshold": [0.1, 0.01]}},
            "qat",
            "sgd-freezing-threshold0.1to0.01",
        ),
        (
            {"oscillation": {"method": "dampening", "reduce": "sum"}, "optimizer": "adam"},
            "qat",
            "adam-dampening-reducesum",
        ),
        ({"train_on": "trainval"}, "qat-trainval", "sgd"),
        ({"protocol": "finetune", "warmup_fc": {}}, "finetune", "-"),
        ({"protocol": "finetune", "optimizer": "adam"}, "finetune-adam", "-"),
        ({"protocol": "linear", "optimizer": "lars"}, "linear-lars", "-"),
        ({"optimizer": "larc"}, "qat", "larc"),
        ({"protocol": "semi"}, "semi-10pct", "-"),
        ({"protocol": "adaptive"}, "adaptive-coquant", "-"),
        (
            {"protocol": "adaptive", "adaptive": {"bits": [8, 2], "zero_shot": []}},
            "adaptive-coquant-b82",
            "-",
        ),
        (
            {"protocol": "adaptive", "adaptive": {"teacher_lambda": 0}},
            "adaptive-coquant-lambda0",
            "-",
        ),
        ({"protocol": "adaptive", "adaptive": {"teacher_lambda": 1e-4}}, "adaptive-coquant", "-"),
        (
            {"protocol": "adaptive", "adaptive": {"method": "individual", "bits": [8, 2]}},
            "adaptive-individual",
            "-",
        ),
    ],
)
def test_what_makes_another_protocol_is_in_its_label(fields, label, training):
    recipe = _qat(**fields)
    assert (protocol_label(recipe), training_label(recipe)) == (label, training)
    assert Recipe(**json.loads(recipe.model_dump_json())) == recipe


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({}, ("coquant", "", "adaptive-individual")),
        (
            {"adaptive": {"bits": [8, 2], "zero_shot": []}, "train_on": "trainval"},
            ("coquant", "b82-trainval", "adaptive-individual-trainval"),
        ),
        (
            {"adaptive": {"method": "individual"}, "optimizer": "adam"},
            ("individual", "adam", "adaptive-individual-adam"),
        ),
    ],
)
def test_identity_says_how_an_adaptive_network_is_shown(fields, facts):
    found = identity(_qat(protocol="adaptive", **fields))
    assert tuple(found[f"adaptive_{name}"] for name in ("method", "variant", "reference")) == facts


def test_a_policy_is_part_of_the_board_unless_it_is_trained_with():
    assert identity(_qat(protocol="linear"))["policy_on_board"] is True
    assert identity(_qat())["policy_on_board"] is False
    assert "adaptive_method" not in identity(_qat())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"transition": {}}, "'sgd' has no transition rates.*Remove it, or choose a t-variant"),
        ({"optimizer": "sgdt", "transition": None}, "'sgdt' needs section transition"),
        ({"protocol": "semi", "optimizer": "sgdt"}, "'semi' does not train.*Choose sgd"),
        ({"protocol": "linear", "optimizer": "adam"}, "by sgd, lars, larc, not by 'adam'"),
        ({"protocol": "linear-exact", "optimizer": "lars"}, "optimizer does not apply"),
        ({"optimizer": "larst"}, "Input should be 'sgd'"),
        ({"optimizer": "adam", "nesterov": True}, "nesterov has no effect on optimizer 'adam'"),
        (
            {"oscillation": {"method": "freezing"}, "optimizer": "sgdt"},
            "a rival of transition-rate scheduling.*Choose sgd, or remove oscillation",
        ),
        ({"oscillation": {"method": "freeze"}}, "Input should be 'dampening' or 'freezing'"),
        (
            {"oscillation": {"method": "freezing", "weight": 1}},
            "oscillation.weight belongs to method dampening, not freezing; nothing was trained",
        ),
        (
            {"oscillation": {"method": "freezing", "momentum": 0.01}},
            "ends at 0.011, below twice the momentum 0.01",
        ),
        (
            {"protocol": "finetune", "oscillation": {"method": "freezing"}},
            "oscillation does not apply",
        ),
        ({"protocol": "knn", "metrics": ["mAP"]}, "which protocol 'knn' does not give"),
        ({"fp_start": {}, "warmup_fc": {}}, "warmup_fc and fp_start are different starts"),
        ({"fp_start": {}, "checkpoint_head": True}, "are different starts"),
        ({"precisions": ["FP", "4w4a"]}, "classifier is random.*Give fp_start"),
        ({"protocol": "finetune", "fp_start": {}}, "fp_start does not apply"),
        ({"protocol": "finetune", "distillation": {"teacher": "t"}}, "distillation does not apply"),
        ({"fp_start": {"optimizer": "sgdt"}}, "Input should be 'sgd'"),
        ({"fp_start": {"epochs": 3, "milestones": [3]}}, "would never happen"),
        ({"distillation": {}}, "teacher"),
        ({"distillation": {"teacher": "t.pth", "weight": 0}}, "greater than 0"),
        ({"optimizer": "sgdt", "precisions": ["32w4a"]}, "no levels at 32w4a.*Choose sgd"),
        ({"amp": "fp8"}, "Input should be 'bf16'"),
        ({"adaptive": {}}, "adaptive does not apply"),
        ({"protocol": "adaptive", "adaptive": {"bits": [4, 8]}}, "do not decrease"),
        ({"protocol": "adaptive", "adaptive": {"zero_shot": [8]}}, "one of adaptive.bits"),
        ({"protocol": "adaptive", "precisions": ["2w4a"]}, "not all among those of"),
    ],
)
def test_what_contradicts_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        _qat(**fields)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"milestones": [2]}, "do not apply to schedule 'cosine'"),
        (
            {"schedule": "step", "milestones": [400]},
            r"transition.milestones \[400\] do not increase",
        ),
        ({"controller": "s4"}, "Input should be 'eq11'"),
        ({"lambda_": 0}, "greater than 0"),
        ({"lambda_": "own"}, "Input should be 'natural'"),
        ({"highest": 0}, "greater than 0"),
        ({"momentum": 1.0}, "less than 1"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(section, message):
    with pytest.raises(ValidationError, match=message):
        _qat(optimizer="sgdt", transition=section)
    with pytest.raises(ValidationError, match="no epoch of 1 to decay at"):
        _qat(optimizer="sgdt", epochs=1, transition={"schedule": "step"})


def test_an_adaptive_job_scores_its_bit_widths():
    recipe = Recipe(checkpoint="b.pth", protocol="adaptive")
    assert list(map(str, recipe.precisions)) == [
        "8w8a",
        "6w6a",
        "4w4a",
        "2w2a",
        "7w7a",
        "5w5a",
        "3w3a",
    ]
    few = Recipe(
        checkpoint="b.pth", protocol="adaptive", adaptive={"bits": [4, 2], "zero_shot": []}
    )
    assert tuple(map(str, few.precisions)) == ("4w4a", "2w2a")


def test_a_teacher_is_known_by_its_content(tmp_path):
    path = tmp_path / "t.pth"
    recipe = _qat(distillation={"teacher": str(path)})
    with pytest.raises(FileNotFoundError, match=r"no teacher .*nothing was trained"):
        identity(recipe)
    path.write_bytes(b"weights")
    assert identity(recipe)["teacher_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert "teacher_sha256" not in identity(_qat())

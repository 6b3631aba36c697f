"""The recipe: published defaults, names for the board, and messages that say how to mend it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from lowbit import pretrain
from lowbit.common.input_files.yaml_bases import load_file
from lowbit.data import Augment, image_set
from lowbit.pretrain import Recipe, identity
from lowbit.pretrain.recipe import Augmentation
from lowbit.quant import get_policy

BASE = {"architecture": "resnet10_slim", "dataset": "digits"}


CONFIGS = Path(__file__).parents[2] / "configs" / "pretrain"
TABLE_10 = {  # SSQL's supplement: batch, lr, wd, dim; tau, k and m
    "simsiam": (512, 0.05, 5e-4, 2048, {}),
    "moco_v2": (256, 0.03, 1e-4, 2048, {"temperature": 0.2, "queue_size": 4096, "ema": 0.999}),
    "simclr": (512, 0.5, 1e-4, 2048, {"temperature": 0.5}),
    "byol": (512, 0.5, 5e-4, 2048, {"ema": 0.99}),
    "ssql": (256, 0.05, 1e-4, 2048, {}),
}


def _message(**fields):
    with pytest.raises(ValidationError) as caught:
        Recipe(**{**BASE, **fields})
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "method"),
    [
        ({}, "SimSiam"),
        ({"pairing": "ssql"}, "SSQL"),
        ({"framework": "simclr"}, "SimCLR"),
        ({"framework": "simclr", "pairing": "cq-c"}, "CQ-C"),
        ({"framework": "simclr", "pairing": "cq-quant"}, "CQ-Quant"),
        ({"framework": "simclr", "pairing": "ssql"}, "SimCLR+SSQL"),
        ({"pairing": "cq-b"}, "SimSiam+CQ-B"),
        ({"pairing": "ssql", "epochs": 0}, "untrained"),
    ],
)
def test_methods_are_named_as_their_papers_name_them(fields, method):
    assert Recipe(**BASE, **fields).method == method


def test_a_pairing_brings_its_policy_and_its_reduction():
    plain, ssql, cq = (Recipe(**BASE, pairing=p) for p in ("plain", "ssql", "cq-a"))
    assert plain.quant_policy is None
    assert ssql.quant_policy == get_policy("ssql") and cq.quant_policy == get_policy("cq")
    assert (ssql.reduction, cq.reduction) == ("mean", "sum")
    assert Recipe(**BASE, pairing="ssql", loss_reduction="sum").reduction == "sum"


def test_bit_ranges_default_to_the_papers():
    recipe = Recipe(**BASE)
    assert recipe.weight_bits == (2, 8) and recipe.activation_bits == (4, 8)
    assert recipe.precision_set == (6, 16)


def test_the_augmentation_has_the_fields_and_defaults_of_augment():
    ours = Augmentation().model_dump()
    augment = Augment(32, mean=(0,) * 3, std=(1,) * 3)
    assert {name: getattr(augment, name) for name in ours} == ours


def test_identity_is_plain_and_complete():
    facts = identity(Recipe(**BASE, pairing="ssql"))
    assert facts == {
        "task": "pretrain",
        "engine": "torch",
        "dataset": "digits",
        "split_sha256": image_set("digits").split_sha256,
        "protocol": "simsiam/ssql",
        "image_size": 32,
        "policy": "ssql",
        "policy_fingerprint": get_policy("ssql").fingerprint,
        "policy_on_board": True,
        "method": "SSQL",
    }
    assert identity(Recipe(**BASE))["policy"] == "-"
    assert isinstance(pretrain.VERSION, int)


def test_cosmetic_fields_are_not_among_the_results():
    watching = {"checkpoint_every": 3, "keep_checkpoints": 5, "knn_every": 1}
    recipe = Recipe(**BASE, name="n", data_root="r", device="cpu", num_workers=2, **watching)
    assert recipe.results() == Recipe(**BASE).results()
    assert Recipe(**BASE, lr=0.1).results() != Recipe(**BASE).results()


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
@pytest.mark.parametrize("method", TABLE_10)
def test_table_10_of_ssql_on_both_sets(method, dataset):
    batch, lr, decay, dim, others = TABLE_10[method]
    twice = 2 if method == "byol" else 1  # the loss 2 - 2 cos, whose gradient is twice -cos's
    found = Recipe(**load_file(CONFIGS / f"{dataset}_{method}_table10.yaml"))
    assert (found.dataset, found.architecture, found.epochs) == (dataset, "resnet18_cifar", 400)
    assert (found.batch_size, found.dim, found.optimizer) == (batch, dim, "sgd")
    assert (found.lr * twice, found.weight_decay / twice) == pytest.approx((lr, decay))
    assert {name: getattr(found, name) for name in others} == others
    assert (found.pairing == "ssql") == (method == "ssql") and found.split == "trainval"


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("cifar100_simsiam", "cifar10_simsiam"),
        ("cifar100_ssql", "cifar10_ssql"),
        ("cifar100_moco_v2", "cifar10_moco_v2"),
        ("cifar100_simclr_400", "cifar10_simclr"),
        ("cifar100_byol_400", "cifar10_byol"),
    ],
)
def test_both_sets_have_the_official_settings(name, twin):
    found, other = (Recipe(**load_file(CONFIGS / f"{n}.yaml")).results() for n in (name, twin))
    assert found == other | {"dataset": "cifar100"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"framework": "simclear"}, "Did you mean 'simclr'"),
        ({"pairing": "sqll"}, "Did you mean 'ssql'"),
        ({"dataset": "digit"}, "Did you mean 'digits'"),
        ({"policy": "lqs", "pairing": "ssql"}, "Did you mean 'lsq'"),
        ({"weight_bits": [8, 2]}, "ends below its start; nothing was trained. Write it as"),
        ({"weight_bits": [0, 8]}, "weight_bits"),
        ({"epochs": 5, "warmup_epochs": 5}, "leave none of 5 epochs"),
        ({"policy": "ssql"}, "pairing 'plain' quantizes nothing"),
        ({"pairing": "cq-a", "policy": "ssql"}, "has none; nothing was trained. Use policy cq"),
        (
            {"pairing": "cq-a", "policy": {"base": "cq", "smooth": 0.5}},
            "smooths activations into weights when it is calibrated, and",
        ),
        ({"optimizer": "lars", "nesterov": True}, "nesterov needs sgd with momentum, not lars"),
        ({"nesterov": True, "momentum": 0}, "choose sgd and a momentum"),
        ({"amp": "fp8"}, "'off', 'bf16' or 'fp16'"),
        ({"augmentation": {"flips": 0}}, "Extra inputs are not permitted"),
        ({"augmentation": {"scale": [1.0, 0.2]}}, "ends below its start"),
        ({"momentun": 0.9}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_way_out(fields, expected):
    assert expected in _message(**fields)

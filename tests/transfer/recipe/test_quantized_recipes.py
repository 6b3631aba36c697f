"""The recipes of quantization-aware training and adaptive bit-widths: the published numbers."""

from pathlib import Path

import pytest
import torch

from lowbit.backbones import create_backbone, save_backbone
from lowbit.benchmark.recipes.yaml_files import load_yaml, validate
from lowbit.data import image_set
from lowbit.quant import get_policy, quantize, quantized_layers
from lowbit.transfer import run
from lowbit.transfer.finetuning.recipe_optimizer import build_optimizer

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "transfer"


def read(stem, *words):
    return validate("transfer", load_yaml(FOLDER / f"{stem}.yaml", ["checkpoint", "b.pth", *words]))


CIFAR, IMAGENET = ("cifar10", "cifar100"), ("imagenet",)

# Table S8 (SPEC C.6): epochs, rate of SGD and of Adam, weight decay, schedule, lambda
TR = [
    (CIFAR, "resnet20", 400, 1e-1, 1e-3, 1e-4, "cosine", 5e-3),
    (CIFAR, "resnet20_binary", 400, 1e-1, 1e-3, 1e-4, "cosine", 5e-3),
    (CIFAR, "reactnet18", 200, 1e-1, 1e-3, 1e-4, "cosine", 5e-3),
    (IMAGENET, "resnet18", 120, 1e-2, 1e-4, 1e-4, "cosine", 1e-3),
    (IMAGENET, "resnet18_binary", 120, 1e-2, 1e-4, 1e-4, "cosine", 1e-3),
    (IMAGENET, "reactnet18", 120, 1e-1, 1e-3, 0.0, "linear", 5e-4),
    (IMAGENET, "mobilenetv2", 120, 1e-2, 1e-4, 2.5e-5, "cosine", 1e-3),
    (IMAGENET, "deit", 300, None, 3e-4, 5e-2, "cosine", 1e-3),
]


@pytest.mark.parametrize("row", TR, ids=lambda row: f"{row[0][0]}-{row[1]}")
def test_table_s8(row):
    datasets, network, epochs, sgd, adam, weight_decay, schedule, lambda_ = row
    names = ("adamw",) if sgd is None else ("sgd", "adam")
    for dataset in datasets:
        for name in names:
            plain = read(f"{dataset}_qat_{network}_{name}")
            scheduled = read(f"{dataset}_qat_{network}_{name}t")
            for r in (plain, scheduled):
                assert (r.dataset, r.epochs, r.batch_size) == (dataset, epochs, 256)
                assert (r.lr, r.weight_decay) == (sgd if name == "sgd" else adam, weight_decay)
                assert (r.schedule, r.momentum, r.scale_lr_factor) == (schedule, 0.9, 0.1)
                assert (r.scale_weight_decay, r.train_on) == (0.0, "trainval")
            assert (plain.optimizer, scheduled.optimizer) == (name, f"{name}t")
            assert plain.transition is None
            assert scheduled.transition.lambda_ == lambda_
            assert scheduled.transition.momentum == 0.99 and scheduled.transition.eta is None
            assert scheduled.transition.schedule == schedule
            # the same start, precisions and views, so that only the optimizer differs
            same = (
                "policy",
                "precisions",
                "fp_start",
                "checkpoint_head",
                "augmentation",
                "distillation",
            )
            assert all(getattr(plain, f) == getattr(scheduled, f) for f in same)


@pytest.mark.parametrize("stem", ["cifar10_qat_resnet20", "cifar100_qat_resnet20_binary"])
@pytest.mark.parametrize(("name", "learned"), [("sgd", True), ("sgdt", False), ("adamt", False)])
def test_weight_scales_are_learned_by_plain_optimizers_alone(stem, name, learned):
    r = read(f"{stem}_{name}")
    net = quantize(create_backbone("resnet20"), get_policy(r.policy))
    optimizer = build_optimizer(net, r, total_steps=10, weight_bits=2)
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for layer in quantized_layers(net).values():
        assert layer.w_quant.q_scale.requires_grad is learned
        assert (id(layer.w_quant.q_scale) in stepped) is learned
        assert id(layer.a_quant.q_scale) in stepped


def test_linear_evaluation_on_imagenet_as_simsiam_and_as_ssqls_code():
    simsiam, ssql = (read(f"imagenet_linear_{name}") for name in ("simsiam", "ssql"))  # SPEC A.8
    assert (simsiam.optimizer, simsiam.epochs, simsiam.batch_size) == ("lars", 90, 4096)
    assert simsiam.lr == pytest.approx(0.1 * 4096 / 256)
    assert (ssql.optimizer, ssql.epochs, ssql.batch_size, ssql.lr) == ("larc", 60, 2048, 0.8)
    for r in (simsiam, ssql):
        assert (r.schedule, r.weight_decay, r.momentum) == ("cosine", 0.0, 0.9)


def test_lsq_as_ssql_fine_tunes_it():
    r = read("imagenet_lsq_finetune")  # SPEC A.10
    assert (r.epochs, r.batch_size, r.weight_decay, r.lr) == (50, 256, 1e-5, 1e-3)
    assert (r.schedule, r.milestones, r.gamma) == ("step", (30,), 0.1)
    assert r.warmup_fc is not None and r.fp_start is None
    assert get_policy(r.policy).weight.granularity == "channel"


@pytest.mark.parametrize(
    ("stem", "wanted"),
    [  # CoQuant's Table 2 (SPEC D.8): p_1, lambda, alpha, its rate and decay, batch, lr, decays
        ("cifar10_adaptive_resnet18", (0.9, 1e-3, 8, 0.1, 1e-4, 128, 0.1, (150, 225, 270))),
        ("cifar10_adaptive_mobilenetv2", (0.5, 1e-3, 8, 0.01, 4e-5, 128, 0.01, (82, 122))),
        ("imagenet_adaptive_resnet18", (0.7, 1e-3, 8, 0.1, 6e-5, 2880, 0.01, (30, 60, 85, 95))),
        ("activitynet_adaptive_resnet18", (0.5, 1e-3, 4, 0.01, 5e-4, 72, 0.01, "cosine")),
        ("activitynet_adaptive_resnet50", (0.7, 1e-4, 4, 0.1, 5e-4, 72, 0.01, "cosine")),
        ("minikinetics_adaptive_resnet18", (0.7, 1e-3, 2, 0.1, 1e-4, 576, 0.01, "cosine")),
    ],
)
def test_coquants_table_2(stem, wanted):
    r = read(stem)
    a = r.adaptive
    decays = r.milestones if r.schedule == "step" else r.schedule
    alpha = (a.alpha, a.alpha_lr, a.alpha_weight_decay)
    found = (a.swap_probability, a.teacher_lambda, *alpha, r.batch_size, r.lr, decays)
    assert found == wanted
    assert (a.method, a.bits, a.zero_shot) == ("coquant", (8, 6, 4, 2), (7, 5, 3))
    assert r.weight_decay == a.alpha_weight_decay
    from_random = r.fp_start is None and not r.checkpoint_head
    assert from_random == ("cifar10" in stem)  # SPEC D.4
    for method in ("adabits", "switchable-bn", "individual"):
        other = read(stem, "adaptive.method", method)
        assert other.adaptive.method == method and other.adaptive.alpha == a.alpha


@pytest.mark.parametrize(
    "stem", ["activitynet_adaptive_resnet18", "minikinetics_adaptive_resnet18"]
)
def test_video_recipes_see_eight_frames(stem):
    r = read(stem)
    assert r.dataset.startswith("frames:") and image_set(r.dataset).frames == 8


def test_the_small_recipes_differ_in_the_optimizer_alone():
    small = {name: read(f"cifar10_small_qat_{name}") for name in ("sgd", "sgdt", "adam", "adamt")}
    differing = {"name", "optimizer", "lr", "transition"}
    plain = small["sgd"].model_dump(exclude=differing)
    assert all(r.model_dump(exclude=differing) == plain for r in small.values())
    starts = {r.fp_start for r in small.values()}
    assert starts == {read("cifar10_small_adaptive_coquant").fp_start} and len(starts) == 1


def test_oscillations_as_their_authors_treat_them():
    """MobileNetV2's settings in the README of the authors' code, for 3 bits."""
    freezing, dampening = (read(f"imagenet_qat_mobilenetv2_{m}") for m in ("freezing", "dampening"))
    for r in (freezing, dampening):
        assert (r.epochs, r.batch_size, r.schedule) == (90, 128, "cosine")
        assert (r.lr, r.weight_decay, r.oscillation.start) == (1e-2, 2.5e-5, 0.25)
        policy = get_policy(r.policy)
        assert (policy.weight.kind, policy.first.weight, policy.last.weight) == ("LSQ", 8, 8)
    section = freezing.oscillation
    assert (section.threshold, section.momentum, section.most_bits) == ((0.1, 0.011), 1e-3, 4)
    assert (dampening.oscillation.weight, dampening.oscillation.reduce) == (0.1, "kernel-mean")


@pytest.mark.parametrize(
    "stem",
    ["digits_qat_sgdt", "digits_qat_freezing", "digits_qat_dampening", "digits_adaptive_coquant"],
)
def test_the_recipes_on_digits_run(stem, tmp_path):
    file = tmp_path / "b.pth"
    torch.manual_seed(0)
    save_backbone(file, create_backbone("resnet10_slim"), {"method": "untrained"})
    words = ["fp_start.epochs", "1", "epochs", "1", "checkpoint", str(file), "image_size", "16"]
    if "qat" in stem:
        words += ["precisions", "[FP, 2w2a]"]
    else:
        words += ["adaptive.bits", "[8, 4]", "adaptive.zero_shot", "[6]", "epochs", "2"]
    r = read(stem, *words)
    found = run(r, tmp_path / "job")
    scored = {m["precision"]: m["value"] for m in found["measurements"] if m["split"] == "test"}
    assert set(scored) == set(map(str, r.precisions))
    assert min(scored.values()) > 20  # chance is 10

"""Files of every project, made here as that project writes them, give the network they came from."""

import re
from argparse import Namespace

import pytest
import torch
import torchvision
from torch import nn

from lowbit.backbones import load_backbone
from lowbit.backbones.checkpoints.guess_network import signature
from lowbit.backbones.checkpoints.names import rename


def prefixed(state, prefix):
    return {prefix + k: v for k, v in state.items()}


def other(state):
    """A momentum network's tensors: alike but for their values."""
    return {k: v + 1 for k, v in state.items()}


HEAD = {"fc.0.weight": torch.zeros(3, 128), "fc.1.running_mean": torch.zeros(3)}


def sequential(state, names=("conv1", "bn1", "", "", "layer1", "layer2", "layer3", "layer4")):
    return {f"{names.index(k.split('.')[0])}.{k.split('.', 1)[1]}": v for k, v in state.items()}


def norm_inside(state):
    """Names as SSQL's quantized layers have them, with a quantizer's own tensors."""
    named = {}
    for k, v in state.items():
        k = k.replace("downsample.0.weight", "downsample.weight")
        k = k.replace("downsample.1.", "downsample.bn_function.")
        k = re.sub(r"bn([1-3])\.", r"conv\1.bn_function.", k)
        named[k] = v
        if k.endswith("conv1.weight"):
            named[k.replace("weight", "weight_quantizer.observer.min_val")] = torch.zeros(1)
            named[k.replace("weight", "weight_quantizer.weight")] = v
    return named


def detectron2(state):
    named = {}
    for k, v in state.items():
        first, rest = k.split(".", 1)
        stem = "stem." if first in ("conv1", "bn1") else f"res{int(first[-1]) + 1}."
        k = k if stem == "stem." else rest
        for n in "123":
            k = k.replace(f"bn{n}.", f"conv{n}.norm.")
        k = k.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        named[stem + k] = v
    return named


def momentum_pair(online, target):
    return lambda s: {"state_dict": {**prefixed(s, online), **prefixed(other(s), target)}}


LAYOUTS = {
    "torchvision": lambda s: {**s, **HEAD},
    "timm": lambda s: {"state_dict": {**s, "classifier.weight": torch.zeros(2, 3)}, "arch": "x"},
    "timm with its average": lambda s: {"state_dict_ema": other(s), "state_dict": s},
    "DataParallel": lambda s: {"model": prefixed({**s, **HEAD}, "module.")},
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "MoCo v1 and v2": lambda s: {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": {
            **prefixed({**s, **HEAD}, "module.encoder_q."),
            **prefixed(other({**s, **HEAD}), "module.encoder_k."),
            "module.queue": torch.zeros(128, 8),
            "module.queue_ptr": torch.zeros(1),
        },
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
    },
    "MoCo v3": momentum_pair("module.base_encoder.", "module.momentum_encoder."),
    "SimSiam": lambda s: {
        "state_dict": {
            **prefixed({**s, **HEAD}, "module.encoder."),
            "module.predictor.0.weight": torch.zeros(2, 2),
        }
    },
    "BYOL, byol-pytorch": lambda s: {
        **prefixed(s, "net."),
        **prefixed(s, "online_encoder.net."),
        **prefixed(other(s), "target_encoder.net."),
    },
    "BYOL, online_encoder": lambda s: {
        **prefixed(other(s), "target_encoder."),
        **prefixed(s, "online_encoder."),
    },
    "BYOL, online_network": momentum_pair(
        "module.online_network.encoder.", "module.target_network.encoder."
    ),
    "BYOL, two dicts of a Sequential": lambda s: {
        "target_network_state_dict": prefixed(sequential(other(s)), "encoder."),
        "online_network_state_dict": prefixed(sequential(s), "encoder."),
    },
    "DINO": lambda s: {
        "student": {
            **prefixed(other(s), "module.backbone."),
            "module.head.mlp.0.weight": torch.zeros(2, 2),
        },
        "teacher": {**prefixed(s, "backbone."), "head.mlp.0.weight": torch.zeros(2, 2)},
        "args": Namespace(arch="vit_small", lr=0.1),
        "dino_loss": {"center": torch.zeros(1, 4)},
    },
    "DINO, lightly": momentum_pair("teacher_backbone.", "student_backbone."),
    "DINO, student alone": lambda s: {"student": prefixed(s, "module.backbone.")},
    "SSQL": lambda s: {
        "epoch": 400,
        "state_dict": {
            **prefixed(norm_inside(s), "encoder_q.model."),
            "encoder_q.model.fc.0.weight": torch.zeros(2, 2),
            "encoder_q.model.fc.0.bn_function.weight": torch.zeros(2),
            "predictor.0.weight": torch.zeros(2, 2),
        },
    },
    "SSQL with a momentum encoder": lambda s: {
        "state_dict": {
            **prefixed(norm_inside(s), "encoder_q.model."),
            **prefixed(other(s), "encoder_k."),
        }
    },
    "SSQL, linear evaluation": lambda s: {"state_dict": prefixed(norm_inside(s), "model.")},
    "solo-learn": momentum_pair("backbone.", "momentum_backbone."),
    "lightly": lambda s: {"state_dict": prefixed({**s, "fc.weight": torch.zeros(2)}, "backbone.")},
    "lightly, Sequential": lambda s: {"state_dict": prefixed(sequential(s), "backbone.")},
    "lightly's own ResNet": lambda s: prefixed(
        sequential(
            {k.replace("downsample", "shortcut"): v for k, v in s.items()},
            ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"),
        ),
        "backbone.",
    ),
    "kuangliu/pytorch-cifar": lambda s: {
        "net": prefixed({k.replace("downsample", "shortcut"): v for k, v in s.items()}, "module."),
        "acc": 95.0,
    },
    "VISSL": lambda s: {
        "classy_state_dict": {
            "base_model": {
                "model": {
                    "trunk": prefixed(s, "_feature_blocks."),
                    "heads": {"0.clf.0.weight": torch.zeros(2, 2)},
                }
            }
        }
    },
    "mmpretrain": lambda s: {
        "meta": {"epoch": 1},
        "state_dict": {
            **prefixed(s, "backbone."),
            "neck.fc0.weight": torch.zeros(2, 2),
            **prefixed(other(s), "target_net.module.0."),
        },
    },
    "Detectron2": lambda s: {"model": detectron2(s), "matching_heuristics": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_of_every_project_gives_its_features(layout, slim, images, tmp_path):
    torch.save(LAYOUTS[layout](slim.state_dict()), tmp_path / "x.pth")
    loaded, report = load_backbone(tmp_path / "x.pth")
    assert report.architecture == "resnet10_slim" and report.guessed
    assert len(report.warnings) == (
        layout == "Detectron2"
    )  # stride and colours are not in the file
    assert report.matched == report.total and report.share == 1 and not report.extra
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), slim(images))


@pytest.mark.parametrize("form", ["plain", "children"])
def test_torchvisions_resnet(form, resnet18, images, tmp_path):
    modules = nn.Sequential(*list(resnet18.children())[:-1])
    net = resnet18 if form == "plain" else modules
    torch.save(net.state_dict(), tmp_path / "x.pth")
    loaded, report = load_backbone(tmp_path / "x.pth")
    assert report.architecture == "resnet18"
    with torch.no_grad():
        assert torch.allclose(loaded.eval()(images), modules(images).flatten(1), atol=1e-5)


def test_torchvisions_mobilenet(randomized, images, tmp_path):
    source = randomized(torchvision.models.mobilenet_v2())
    torch.save(source.state_dict(), tmp_path / "x.pth")
    loaded, report = load_backbone(tmp_path / "x.pth", "mobilenetv2")
    assert report.format == "torchvision MobileNetV2" and set(report.unused) == {
        "classifier.1.weight",
        "classifier.1.bias",
    }
    with torch.no_grad():
        expected = source.features(images).mean((2, 3))
        assert torch.allclose(loaded.eval()(images), expected, rtol=1e-4, atol=1e-5)


def test_mmpretrains_mobilenet_has_a_name_for_every_tensor():
    ours = signature("mobilenetv2").shapes
    theirs = {rename("mmpretrain_mobilenetv2", k) for k in ours}
    assert len(theirs) == len(ours)
    assert {"conv1.conv.weight", "layer1.0.conv.1.bn.bias", "conv2.bn.running_var"} <= theirs
    assert {"layer2.0.conv.0.conv.weight", "layer2.0.conv.2.bn.weight"} <= theirs


VIT = {
    "timm": lambda s: {**s, "head.weight": torch.zeros(2, 2)},
    "MoCo v3": lambda s: {
        "state_dict": {
            **prefixed(s, "module.base_encoder."),
            "module.base_encoder.head.0.weight": torch.zeros(2, 2),
            **prefixed(other(s), "module.momentum_encoder."),
        }
    },
    "DINO": lambda s: {
        "student": prefixed(other(s), "module.backbone."),
        "teacher": prefixed(s, "module.backbone."),
    },
    "mmpretrain": lambda s: {
        "state_dict": prefixed(
            {
                (
                    k.replace("blocks", "layers")
                    .replace("norm1", "ln1")
                    .replace("norm2", "ln2")
                    .replace("mlp.fc1", "ffn.layers.0.0")
                    .replace("mlp.fc2", "ffn.layers.1")
                    .replace("patch_embed.proj", "patch_embed.projection")
                )
                if "." in k and not k.startswith("norm.")
                else k.replace("norm.", "ln1."): v
                for k, v in s.items()
            },
            "backbone.",
        )
    },
}


@pytest.mark.parametrize("layout", VIT)
def test_vision_transformers(layout, vit_nano, images, tmp_path):
    torch.save(VIT[layout](vit_nano.state_dict()), tmp_path / "x.pth")
    loaded, report = load_backbone(tmp_path / "x.pth", "vit_nano")
    assert report.matched == report.total
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), vit_nano(images))


def test_torchvisions_vision_transformer(vit_nano, randomized, images, tmp_path):
    source = randomized(
        torchvision.models.VisionTransformer(
            image_size=32, patch_size=16, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=192
        )
    )
    torch.save(source.state_dict(), tmp_path / "x.pth")
    loaded, report = load_backbone(tmp_path / "x.pth", "vit_nano")
    assert report.format == "torchvision ViT" and len(report.unused) == 2  # heads.head
    source.heads = nn.Identity()
    with torch.no_grad():
        assert torch.allclose(loaded.eval()(images), source(images), atol=1e-5)


def test_torchvisions_vit_b_16_is_timms_name_for_name():
    with torch.device("meta"):
        theirs = torchvision.models.vit_b_16().state_dict()
    ours = signature("vit_base_patch16_224").shapes
    named = {rename("torchvision_vit", k): shape for k, shape in ours.items()}
    assert named == {k: v.shape for k, v in theirs.items() if not k.startswith("heads.")}


@pytest.mark.detectron2
@pytest.mark.parametrize("depth", [18, 50])
def test_detectron2_agrees_on_the_names(depth):
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone import build_resnet_backbone

    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.NORM = depth, "BN"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth == 18 else 256
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    with torch.device("meta"):
        net = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    ours = signature(f"resnet{depth}").shapes
    named = {rename("detectron2", k): shape for k, shape in ours.items()}
    assert named == {k: v.shape for k, v in net.state_dict().items()}

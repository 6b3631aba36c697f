"""What of a network is in a detector: its norms, its frozen stages, and nothing that never runs."""

import pytest
import torch
from torch import nn

from lowbit.backbones import create_backbone, pyramid
from lowbit.detection.detector.frozen_stages import build_network

ALL = ["res2", "res3", "res4", "res5"]


def built(architecture: str = "resnet10_slim", **changes) -> nn.Module:
    return build_network(architecture, **{"norm": "BN", "freeze_at": 0, "last": "res5", **changes})


@pytest.mark.parametrize("architecture", ["resnet10_slim", "resnet18", "mobilenetv2"])
@pytest.mark.parametrize("last", ["res4", "res5"])
def test_every_layer_left_gets_a_gradient(architecture, last):
    """Else distributed training ends at the second step; MobileNetV2 has a layer behind its stages."""
    network = built(architecture, last=last)
    names = ALL[: ALL.index(last) + 1]
    outputs = pyramid(network, torch.randn(2, 3, 32, 32), names)
    sum(output.square().sum() for output in outputs.values()).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]
    whole = create_backbone(architecture)
    missing, unexpected = whole.load_state_dict(network.state_dict(), strict=False)
    assert not unexpected and bool(missing) == (
        (architecture, last) != ("resnet10_slim", "res5")
        and (architecture, last) != ("resnet18", "res5")
    )
    with torch.no_grad():
        own = pyramid(network.eval(), torch.ones(1, 3, 32, 32), names)
        theirs = pyramid(whole.eval(), torch.ones(1, 3, 32, 32), names)
    assert all(torch.equal(own[name], theirs[name]) for name in names)


@pytest.mark.parametrize(
    ("architecture", "freeze_at", "trained"),
    [
        ("resnet10_slim", 0, {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}),
        ("resnet10_slim", 1, {"layer1", "layer2", "layer3", "layer4"}),
        ("resnet10_slim", 2, {"layer2", "layer3", "layer4"}),
        ("resnet10_slim", 5, set()),
        ("mobilenetv2", 1, {f"blocks.{n}" for n in range(1, 7)}),
        ("mobilenetv2", 2, {f"blocks.{n}" for n in range(2, 7)}),
    ],
)
def test_freezing_counts_as_in_detectron2(architecture, freeze_at, trained):
    network = built(architecture, freeze_at=freeze_at)
    found = [name for name, p in network.named_parameters() if p.requires_grad]
    depth = 2 if architecture == "mobilenetv2" else 1
    assert {".".join(name.split(".")[:depth]) for name in found} == trained
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    pyramid(network.train(), torch.randn(2, 3, 32, 32), ALL)
    moved = {n for n, t in network.state_dict().items() if not torch.equal(t, state[n])}
    assert {
        ".".join(name.split(".")[:depth]) for name in moved
    } <= trained  # frozen norms stand still
    assert bool(moved) == bool(trained)


@pytest.mark.parametrize("architecture", ["resnet10_slim", "mobilenetv2"])
def test_frozen_norms_compute_what_norms_do_in_evaluation(architecture):
    """With the activation that timm puts inside some of them."""
    plain, frozen = built(architecture).eval(), built(architecture, norm="FrozenBN").train()
    for name, tensor in plain.state_dict().items():
        if "running" in name:
            tensor += 0.3 * torch.rand_like(tensor)
    state = {n: t for n, t in plain.state_dict().items() if "num_batches" not in n}
    frozen.load_state_dict(state)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        a, b = pyramid(plain, x, ALL), pyramid(frozen, x, ALL)
    for name in ALL:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_synchronized_norms_replace_all_others():
    kinds = {type(m).__name__ for m in built("mobilenetv2", norm="SyncBN").modules()}
    assert any("Sync" in kind for kind in kinds)
    assert not kinds & {"BatchNorm2d", "BatchNormAct2d"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"norm": "GN"}, "Use one of BN, SyncBN, FrozenBN"),
        ({"freeze_at": 6}, r"Use 0 \(nothing is frozen\)"),
        ({"last": "res6"}, "no stage 'res6'"),
    ],
)
def test_what_cannot_be_built_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        built(**changes)

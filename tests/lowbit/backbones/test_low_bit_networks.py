"""Networks under the papers' policies: they go forward and backward at the bit-widths published."""

import pytest
import torch
from torch import nn

from lowbit.backbones import create_backbone
from lowbit.quant import calibrate, quantize, quantized_layers, set_precision

PUBLISHED = [  # network, policy, precisions
    *[
        ("resnet20", policy, ("2w2a", "4w4a"))
        for policy in ("lsqplus", "pact", "dorefa", "ewgs", "interval", "coquant")
    ],
    ("resnet20", "interval-binary", ("1w1a",)),
    ("resnet20", "ewgs", ("1w1a",)),
    ("resnet20", "pact", ("1w1a",)),
    ("resnet20", "tr", ("2w2a", "4w4a")),
    ("reactnet18_cifar", "reactnet", ("1w1a", "32w1a")),
    ("mobilenetv2_kuangliu", "coquant", ("2w2a",)),
    ("mobilenetv2_cifar", "tr", ("2w2a",)),
    ("vit_tiny_patch16_224", "tr", ("2w2a",)),  # DeiT-T is this network
]


@pytest.mark.parametrize(("name", "policy", "precisions"), PUBLISHED)
def test_every_quantized_weight_learns(name, policy, precisions):
    torch.manual_seed(0)
    net = create_backbone(name)
    vit = "vit" in name
    x = torch.randn(2, 3, 224, 224) if vit else torch.randn(8, 3, 16, 16)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.7
    for _ in range(0 if vit else 4):  # statistics that calibration, in eval mode, can go by
        with torch.no_grad():
            net(x)
    quantize(net, policy)
    calibrate(net, [x])
    for precision in precisions:
        set_precision(net, precision)
        net.train().zero_grad()
        y = net(x)
        (y * torch.randn_like(y)).sum().backward()
        assert y.isfinite().all()
        for layer_name, layer in quantized_layers(net).items():
            gradient = layer.weight.grad
            assert gradient.isfinite().all() and gradient.abs().max() > 0, (layer_name, precision)


def test_a_binary_reactnet_multiplies_signs_and_keeps_its_shortcuts_real():
    torch.manual_seed(0)
    net = create_backbone("reactnet18_cifar")
    x = torch.randn(4, 3, 16, 16)
    quantize(net, "reactnet")
    calibrate(net, [x])
    set_precision(net, "1w1a")
    layers = quantized_layers(net)
    assert len(layers) == 16 and not any("downsample" in name for name in layers)
    seen = {}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(
            lambda module, args, name=name: seen.update({name: module.a_quant(args[0]).unique()})
        )
    net.eval()(x)
    assert all(values.tolist() == [-1, 1] for values in seen.values())
    weight = layers["layer1.0.conv"].weight
    magnitude = weight.abs().mean((1, 2, 3), keepdim=True)
    signs = torch.where(weight >= 0, 1.0, -1.0)
    torch.testing.assert_close(layers["layer1.0.conv"].quantized_weight(), signs * magnitude)


def test_transformers_under_tr_have_output_scales_since_no_norm_follows():
    net = quantize(create_backbone("deit_tiny_patch16_224"), "tr")
    layers = quantized_layers(net)
    assert len(layers) == 48 and all(layer.out_scale is not None for layer in layers.values())
    convolutional = quantized_layers(quantize(create_backbone("resnet20"), "tr"))
    assert all(layer.out_scale is None for layer in convolutional.values())

"""The table, the bytes and the bit-operations of a quantized network."""

import pytest
import torch
from torch import nn

from lowbit.backbones import create_backbone
from lowbit.quant import (
    FP,
    Precision,
    bitops,
    calibrate,
    costs,
    explain,
    get_policy,
    quantize,
    set_precision,
    size_bytes,
)

IMAGES = torch.rand(1, 3, 32, 32)


def test_explains_every_layer_with_its_reason():
    net = quantize(create_backbone("resnet10_slim"), "ssql", Precision(3, 5))
    rows = {row.name: row for row in explain(net)}
    assert len(rows) == 12 + 9  # convolutions and activation modules
    assert (rows["conv1"].weight_bits, rows["conv1"].why) == (8, "fixed at 8 bits")
    assert rows["layer1.0.act2"].activation_bits == 5
    assert rows["layer2.0.downsample.0"].weight == "MinMax, channel"
    assert len(str(explain(net)).splitlines()) == 22


def test_explains_what_stays_in_full_precision():
    net = quantize(create_backbone("resnet10_slim"), "lsq", Precision(4, 4))
    assert {row.name: row.why for row in explain(net)}["conv1"] == "full precision by rule"


def test_size_counts_packed_codes_scales_and_the_rest():
    net = create_backbone("resnet10_slim")
    total = sum(p.numel() for p in net.parameters())
    assert size_bytes(net) == 4 * total
    quantize(net, "lsq", Precision(4, 4))
    quantized = sum(
        m.weight.numel()
        for n, m in net.named_modules()
        if isinstance(m, nn.Conv2d) and n != "conv1"
    )
    assert size_bytes(net) == quantized // 2 + 4 * (total - quantized) + 4 * 22  # 22 scales
    set_precision(net, FP)
    assert size_bytes(net) == 4 * total + 4 * 22


def test_bitops_by_hand():
    """3x3 convolutions on 32x32: MACs = 9 C_in C_out H W; input-side bits are the layer's own."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU()
    )
    first, second = 9 * 3 * 4 * 1024, 9 * 4 * 8 * 1024
    assert bitops(net, IMAGES) == (first + second) * 32 * 32
    quantize(net, "cq", Precision(4, 6))
    net(IMAGES)  # one training pass, for the running ranges
    assert bitops(net, IMAGES) == first * 32 * 32 + second * 4 * 6


def test_output_side_bits_reach_the_layers_behind():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1)
    )
    quantize(net, "ssql", Precision(2, 3))
    calibrate(net, [IMAGES])
    first, second = 9 * 3 * 4 * 1024, 9 * 4 * 8 * 256
    assert bitops(net, IMAGES) == first * 8 * 32 + second * 2 * 8  # the stem's output has 8 bits


@pytest.mark.parametrize("name", ["resnet18_cifar", "mobilenetv2_cifar"])
def test_bitops_fall_as_bits_fall(name):
    net = create_backbone(name)
    full = bitops(net, IMAGES)
    quantize(net, get_policy("ssql"))
    calibrate(net, [IMAGES])
    counts = []
    for bits in (8, 4, 2):
        set_precision(net, Precision(bits, bits))
        counts.append(bitops(net, IMAGES))
    assert full > counts[0] > counts[1] > counts[2]
    if name == "resnet18_cifar":  # all but the stem at b x b
        assert counts[0] < full / 12


def test_costs_of_several_precisions_come_from_one_pass():
    net = quantize(create_backbone("resnet10_slim"), "lsq")
    found = costs(net, ["FP", "8w8a", "3w2a"], IMAGES)
    calibrate(net, [IMAGES])
    for precision in ("FP", "8w8a", "3w2a"):
        set_precision(net, Precision.parse(precision))
        expected = {"weight_bytes": size_bytes(net), "bit_operations": bitops(net, IMAGES)}
        assert found[precision] == expected


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2", "vit_tiny_patch16_224"])
def test_macs_are_those_of_fvcore(name):
    from fvcore.nn import FlopCountAnalysis

    net, images = create_backbone(name).eval(), torch.rand(1, 3, 224, 224)
    counts = FlopCountAnalysis(net, (images,)).unsupported_ops_warnings(False)
    by_module = counts.uncalled_modules_warnings(False).by_module()
    layers = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert bitops(net, images) == 1024 * int(sum(by_module[name] for name in layers))


def test_a_layer_called_twice_counts_twice():
    layer = nn.Linear(4, 4)
    assert bitops(nn.Sequential(layer, layer), torch.rand(2, 4)) == 2 * (2 * 4 * 4) * 1024

"""The table, the bytes and the costs of a quantized network."""

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


def test_costs_of_several_precisions_come_from_one_pass():
    net = quantize(create_backbone("resnet10_slim"), "lsq")
    found = costs(net, ["FP", "8w8a", "3w2a"], IMAGES)
    calibrate(net, [IMAGES])
    for precision in ("FP", "8w8a", "3w2a"):
        set_precision(net, Precision.parse(precision))
        expected = {"weight_bytes": size_bytes(net), "bit_operations": bitops(net, IMAGES)}
        assert found[precision] == expected

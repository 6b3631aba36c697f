"""Weight distributions against numpy and scipy, and the quantizer's error against its formula."""

import numpy as np
import pytest
import torch
from scipy import stats

from lowbit.backbones import create_backbone
from lowbit.pretrain.analyses.weights import (
    BITS,
    draw_histograms,
    draw_layers,
    errors,
    histograms,
    measure,
    statistics,
    weight_layers,
)

NAME = "resnet10_slim"


@pytest.fixture
def layers():
    return weight_layers({"a": create_backbone(NAME), "b": create_backbone(NAME)})


def test_statistics_are_numpys_and_scipys():
    w = torch.randn(8, 4, 3, 3) ** 3 + 0.1
    x = w.double().numpy().ravel()
    outside = [np.mean(np.abs(x - x.mean()) > k * x.std()) for k in (3, 6)]
    assert outside[0] > outside[1] > 0
    assert statistics(w) == pytest.approx(
        {
            "n": x.size,
            "range": np.ptp(x),
            "sd": x.std(),
            "kurtosis": stats.kurtosis(x, fisher=False),
            "outside_3": outside[0],
            "outside_6": outside[1],
        }
    )


def test_a_constant_weight_has_no_kurtosis_and_no_outlier():
    found = statistics(torch.full((4, 4), 0.5))
    assert np.isnan(found["kurtosis"])
    assert found["range"] == found["sd"] == found["outside_3"] == 0


def test_errors_are_those_of_ssqls_weight_quantizer(layers):
    """s_c = max|w_c| / ((2^b - 1) / 2), codes -2^(b-1) .. 2^(b-1) - 1, a scale a channel."""
    for layer in (layers["a"]["conv1"], layers["a"]["layer4.0.conv2"]):
        w = layer.weight.detach().double()
        expected = {}
        for b in BITS:
            s = w.abs().amax((1, 2, 3), keepdim=True) / ((2**b - 1) / 2)
            w_q = (w / s).round().clamp(-(2 ** (b - 1)), 2 ** (b - 1) - 1) * s
            expected[f"error_{b}bit"] = float((w_q - w).norm() ** 2 / w.norm() ** 2)
        assert errors(layer) == pytest.approx(expected, rel=1e-3)


def test_measuring_leaves_weights_and_bits_alone(layers):
    layer = layers["a"]["conv1"]
    weight, bits = layer.weight.clone(), layer.w_quant.bits
    measure(layers)
    assert torch.equal(layer.weight, weight) and layer.w_quant.bits == bits


def test_every_layer_of_every_checkpoint_has_a_row(layers):
    frame = measure(layers)
    convolutions = [
        name
        for name, module in create_backbone(NAME).named_modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    for label in ("a", "b"):
        assert frame[frame.checkpoint == label].layer.tolist() == convolutions
    assert (frame.error_2bit > frame.error_4bit).all()
    assert (frame.error_4bit > frame.error_8bit).all()


def test_histograms_count_every_weight_in_bins_the_checkpoints_share(layers):
    with torch.no_grad():
        layers["b"]["layer1.0.conv1"].weight[0, 0, 0, 0] = 5.0  # an outlier widens both
    counts = histograms(layers)
    for name, layer in layers["a"].items():
        a, b = (counts[(counts.checkpoint == c) & (counts.layer == name)] for c in "ab")
        assert a["count"].sum() == b["count"].sum() == layer.weight.numel()
        assert a.left.tolist() == b.left.tolist() and a.right.tolist() == b.right.tolist()
    wide = counts[(counts.checkpoint == "b") & (counts.layer == "layer1.0.conv1")]
    assert wide.right.max() == 5.0 and wide["count"].iloc[-1] == 1


def test_pictures_show_the_numbers(layers):
    frame, counts = measure(layers), histograms(layers)
    grid = draw_layers(frame).axes
    kurtosis = grid[1].lines[0].get_ydata()
    assert kurtosis.tolist() == frame[frame.checkpoint == "a"]["kurtosis"].tolist()
    assert [line.get_label() for line in grid[0].lines] == ["a", "b"]
    shown = [axes for axes in draw_histograms(counts).axes if axes.get_visible()]
    names = [axes.get_title() for axes in shown]
    assert len(names) == 6 and names[0] == "conv1" and set(names) <= set(counts.layer)
    for axes in shown:
        for stairs in axes.patches:
            assert stairs.get_data().values.sum() == pytest.approx(100)


def test_different_networks_are_not_laid_side_by_side():
    with pytest.raises(ValueError, match="b and a have different architectures"):
        weight_layers({"a": create_backbone(NAME), "b": create_backbone("resnet20")})


def test_more_checkpoints_than_colours_are_refused():
    with pytest.raises(ValueError, match="Compare at most 10"):
        weight_layers({str(i): torch.nn.Identity() for i in range(11)})

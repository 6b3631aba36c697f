"""Products of codes against integers multiplied in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lowbit.quant.integer import products
from lowbit.quant.integer.integer_grid import ActivationGrid, WeightCodes
from lowbit.quant.integer.products import Product, UnsupportedLayerError, is_exact

needs_exact = pytest.mark.skipif(not is_exact(), reason="products of codes saturate here")
UNSIGNED = ActivationGrid(0.037, 0, 0.037, 0, 0, 255)
SHIFTED = ActivationGrid(0.037, 9, 0.037, 9, 0, 255)
SIGNED = ActivationGrid(0.2, 0, 0.037, 0, -128, 127)  # as where the output has a range of its own
EPSILON = 2.0**-23

LAYERS = {
    "1x1": (nn.Conv2d(24, 16, 1, bias=False), (3, 24, 9, 9)),
    "3x3": (nn.Conv2d(24, 16, 3, stride=2, padding=1), (3, 24, 9, 9)),
    "7x7 of 3 channels": (nn.Conv2d(3, 16, 7, stride=2, padding=3), (2, 3, 20, 20)),
    "dilated": (nn.Conv2d(24, 16, 3, padding=2, dilation=2), (3, 24, 9, 9)),
    "grouped": (nn.Conv2d(24, 16, 3, padding=1, groups=4), (3, 24, 9, 9)),
    "depthwise": (nn.Conv2d(24, 24, 3, padding=1, groups=24), (3, 24, 9, 9)),
    "linear": (nn.Linear(48, 16), (5, 7, 48)),
}


def codes_of(layer, shape, grid):
    q = torch.randint(grid.low, grid.high + 1, shape)
    w = torch.randint(-128, 128, layer.weight.shape, dtype=torch.int8)
    scale = 1e-3 * torch.randn(len(w), dtype=torch.float64)  # also negative, as a folded norm's
    return q, WeightCodes(w, scale, 8)


def stored(q, grid):
    return (q + (128 if grid.signed else 0)).to(torch.uint8)


def _reference(layer, q, weight, grid):
    """Return the output and the sum of its terms' magnitudes, float64."""
    x = (q.double() - grid.zero) * grid.scale
    w = weight.codes.double() * weight.scale.reshape(-1, *[1] * (weight.codes.dim() - 1))
    bias = None if layer.bias is None else layer.bias.double()
    magnitude = None if bias is None else bias.abs()
    if isinstance(layer, nn.Linear):
        return F.linear(x, w, bias), F.linear(x.abs(), w.abs(), magnitude)
    place = layer.stride, layer.padding, layer.dilation, layer.groups
    return F.conv2d(x, w, bias, *place), F.conv2d(x.abs(), w.abs(), magnitude, *place)


@needs_exact
@pytest.mark.parametrize("grid", [UNSIGNED, SHIFTED, SIGNED], ids=["unsigned", "shifted", "signed"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_product_is_that_of_integers_within_the_rounding_of_float32(name, grid):
    layer, shape = LAYERS[name]
    q, weight = codes_of(layer, shape, grid)
    with torch.no_grad():
        expected, magnitude = _reference(layer, q, weight, grid)
        product = Product(layer, weight, grid)
        for _ in range(2):  # packed, and packed before
            found = product(stored(q, grid))
            assert found.dtype == torch.float32
            assert ((found - expected).abs() <= 4 * EPSILON * magnitude).all()


@needs_exact
def test_sums_beyond_24_bits_are_exact():
    """All codes are the largest, so that a sum of products in float32 or in 16 bits would not do."""
    layer = nn.Conv2d(512, 8, 3, bias=False)
    weight = WeightCodes(
        torch.full((8, 512, 3, 3), 127, dtype=torch.int8), torch.ones(8, dtype=torch.float64), 8
    )
    weight.codes[0, 0, 0, 0] = 126
    grid = ActivationGrid(1.0, 0, 1.0, 0, 0, 255)
    product = Product(layer, weight, grid)
    product.bias = torch.full((8,), -255.0 * 127 * 512 * 9).double()
    found = product(torch.full((1, 512, 3, 3), 255, dtype=torch.uint8))
    # The sum itself is rounded to float32, to multiples of 16, before the bias is added.
    assert found.flatten().tolist() == pytest.approx([-255.0, *[0.0] * 7], abs=16)


@needs_exact
@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_normalization_is_folded(affine):
    layer, shape = LAYERS["3x3"]
    norm = nn.BatchNorm2d(16, affine=affine).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 1.5)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    q, weight = codes_of(layer, shape, UNSIGNED)
    with torch.no_grad():
        expected, magnitude = _reference(layer, q, weight, UNSIGNED)
        expected = norm.double()(expected)
        gain = (norm.running_var + norm.eps).rsqrt() * (norm.weight.abs() if affine else 1)
        magnitude = magnitude * gain.reshape(-1, 1, 1) + 10
        norm.float()
        product = Product(layer, weight, UNSIGNED)
        product.fold(norm)
        found = product(stored(q, UNSIGNED))
    assert ((found - expected).abs() <= 8 * EPSILON * magnitude).all()


@needs_exact
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize(
    "output",
    [
        ActivationGrid(0.5, 0, 0.5, 0, 0, 15),
        ActivationGrid(0.5, 5, 0.5, 5, 0, 15),
        ActivationGrid(0.05, 0, 0.05, 0, 0, 255),
        ActivationGrid(0.5, 0, 0.5, 0, -8, 7),
    ],
    ids=["4 bits", "4 bits, shifted", "8 bits", "signed"],
)
def test_an_output_of_codes_is_rounded_and_clipped(output, rectify):
    layer, shape = LAYERS["3x3"]
    q, weight = codes_of(layer, shape, UNSIGNED)
    with torch.no_grad():
        expected, _ = _reference(layer, q, weight, UNSIGNED)
        product = Product(layer, weight, UNSIGNED)
        product.rectify, product.output = rectify, output
        found = product(stored(q, UNSIGNED)).long() - (128 if output.signed else 0)
    place = (expected.clamp(min=0) if rectify else expected) / output.scale_in
    wanted = (place.round() + output.zero_in).clamp(output.low, output.high)
    sure = (place % 1 - 0.5).abs() > 1e-3  # ties may fall to either side
    assert torch.equal(found[sure], wanted[sure].long())
    assert len(found.unique()) > 4


def test_what_has_no_product_is_refused():
    def product_of(layer):
        w = torch.ones_like(layer.weight, dtype=torch.int8)
        return Product(layer, WeightCodes(w, torch.ones(len(w)).double(), 8), UNSIGNED)

    for padding in ({"padding_mode": "reflect", "padding": 1}, {"padding": "same"}):
        with pytest.raises(UnsupportedLayerError, match="its padding is"):
            product_of(nn.Conv2d(4, 4, 3, **padding))
    with pytest.raises(UnsupportedLayerError, match="overflow 32 bits"):
        product_of(nn.Linear(65_800, 1))
    product_of(nn.Linear(65_700, 1))


def test_a_machine_whose_products_saturate_is_not_exact(monkeypatch):
    """As processors without VNNI do: two products are added in 16 bits."""

    def saturated(self, codes):
        terms = self.codes[0].numel() // 2
        pair = 2 * int(codes.flatten()[0]) * int(self.codes.flatten()[0])
        return torch.full((4, 32), float(terms * max(-(2**15), min(pair, 2**15 - 1))))

    monkeypatch.setattr(Product, "__call__", saturated)
    assert not is_exact.__wrapped__()


def test_without_onednn_nothing_is_exact(monkeypatch):
    def absent(*arguments):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(products.Product, "__call__", absent)
    assert not is_exact.__wrapped__()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not is_exact.__wrapped__()


@needs_exact
def test_codes_of_a_rectified_output_whose_grid_ends_below_zero_are_the_highest():
    layer, shape = LAYERS["3x3"]
    q, weight = codes_of(layer, shape, UNSIGNED)
    with torch.no_grad():
        product = Product(layer, weight, UNSIGNED)
        product.rectify, product.output = True, ActivationGrid(0.5, 20, 0.5, 20, 0, 15)
        assert (product(stored(q, UNSIGNED)) == 15).all()

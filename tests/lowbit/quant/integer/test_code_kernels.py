"""Codes of tensors against the same formulas in NumPy."""

import numpy as np
import pytest
import torch

from lowbit.quant.integer import code_kernels
from lowbit.quant.integer.integer_grid import ActivationGrid

pytestmark = pytest.mark.skipif(not code_kernels.is_available(), reason="no C compiler")
GRIDS = {
    "unsigned": ActivationGrid(0.25, 0, 0.25, 0, 0, 15),
    "shifted": ActivationGrid(0.01, 77, 0.01, 77, 0, 255),
    "signed": ActivationGrid(0.5, 0, 0.125, 0, -8, 7),
}
SHAPES = [(7,), (2, 3, 5, 4), (40, 5000)]  # the last in several threads' parts


def _reference_codes(x, grid):
    step = np.float32(grid.scale_in)
    q = np.round(x.numpy() / step) + grid.zero_in
    return np.clip(q, grid.low, grid.high) + 128 * grid.signed


def _reference_values(codes, grid):
    q = codes.numpy().astype(np.float64) - 128 * grid.signed
    return (q - grid.zero) * grid.scale


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", GRIDS)
def test_codes_and_their_values(name, shape):
    grid = GRIDS[name]
    x = 3 * torch.randn(shape)
    codes = code_kernels.encode(x, grid)
    assert codes.dtype == torch.uint8
    np.testing.assert_array_equal(codes.numpy(), _reference_codes(x, grid))
    values = code_kernels.decode(codes, grid)
    np.testing.assert_allclose(values.numpy(), _reference_values(codes, grid), rtol=1e-6)
    assert code_kernels.encode(values * (grid.scale_in / grid.scale), grid).equal(codes)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_layout_stays(memory_format):
    x = torch.randn(2, 3, 5, 4).contiguous(memory_format=memory_format)
    codes = code_kernels.encode(x, GRIDS["shifted"])
    assert codes.stride() == x.stride()
    assert code_kernels.decode(codes, GRIDS["shifted"]).stride() == x.stride()


def test_a_tensor_with_gaps_is_copied():
    x = torch.randn(6, 8)[:, ::2]
    found = code_kernels.encode(x, GRIDS["unsigned"])
    assert found.equal(code_kernels.encode(x.contiguous(), GRIDS["unsigned"]))


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("output", [None, *GRIDS])
@pytest.mark.parametrize("other", [None, "shifted", "signed"])
@pytest.mark.parametrize("layouts_agree", [True, False])
def test_the_end_of_a_block(other, output, rectify, layouts_agree):
    x = torch.randn(4, 6, 5, 3)
    y = torch.randn(4, 6, 5, 3)
    if not layouts_agree:
        y = y.contiguous(memory_format=torch.channels_last)
    grid, after = GRIDS.get(other), GRIDS.get(output)
    addend = y.numpy()
    if grid is not None:
        y = code_kernels.encode(y, grid)
        addend = _reference_values(y, grid).astype(np.float32)
    total = torch.from_numpy(x.numpy() + addend)
    total = total.clamp(min=0) if rectify else total
    found = code_kernels.add(x.clone(), y, grid, rectify=rectify, grid=after)
    if after is None:
        np.testing.assert_allclose(found.numpy(), total.numpy(), rtol=1e-6, atol=1e-6)
    else:
        place = total.numpy() / after.scale_in
        sure = np.abs(place % 1 - 0.5) > 1e-4
        np.testing.assert_array_equal(found.numpy()[sure], _reference_codes(total, after)[sure])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_read_as_their_numbers(dtype):
    x, grid = (3 * torch.randn(2, 3, 5, 4)).to(dtype), GRIDS["shifted"]
    assert code_kernels.encode(x, grid).equal(code_kernels.encode(x.float(), grid))
    total = code_kernels.add(torch.zeros(2, 3, 5, 4), x, None, rectify=False, grid=None)
    assert total.equal(x.float())

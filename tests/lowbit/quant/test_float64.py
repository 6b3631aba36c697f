"""Networks that compute in float64 for a while."""

import torch
from torch import nn

from lowbit.quant.float64 import in_float64


def test_a_network_is_as_it_was_after_the_comparison():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = {name: (t.dtype, t.data_ptr()) for name, t in network.state_dict().items()}
    x = torch.randn(2, 3, 4, 4)
    expected = network.eval()(x)
    try:
        with in_float64([network]):
            assert network[0].weight.dtype == torch.float64
            assert network(x).dtype == torch.float32
            torch.testing.assert_close(network(x), expected)
            raise RuntimeError
    except RuntimeError:
        pass
    assert {name: (t.dtype, t.data_ptr()) for name, t in network.state_dict().items()} == before
    assert torch.equal(network(x), expected)


def test_every_tensor_that_a_network_returns_is_float32_again():
    class Levels(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            assert y.dtype == torch.float64
            return {"p3": y, "places": [y.argmax(1), (y, y)]}

    with in_float64([network := Levels(3, 3)]):
        found = network(torch.ones(2, 3))
    assert found["p3"].dtype == torch.float32 and found["places"][0].dtype == torch.int64
    assert [y.dtype for y in found["places"][1]] == [torch.float32] * 2

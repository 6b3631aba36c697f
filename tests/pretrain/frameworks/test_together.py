"""Views in one pass against a pass each: outputs, gradients, statistics and ranges."""

import copy

import pytest
import torch
from torch import nn

from lowbit.pretrain.frameworks.together import together
from lowbit.quant import Precision, observe, quantize, set_precision

PRECISION = Precision(4, 3)


class Mixed(nn.Module):
    """Every kind of layer whose outputs depend on the batch, and some whose do not."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.act1 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()
        self.conv2, self.norm2, self.act2 = nn.Conv2d(6, 8, 3), nn.GroupNorm(2, 8), nn.ReLU()
        self.conv3 = nn.Conv2d(8, 8, 1)
        self.norm3 = nn.InstanceNorm2d(8, track_running_stats=True)
        self.fc1, self.bn4, self.fc2 = (
            nn.Linear(8, 8),
            nn.BatchNorm1d(8, affine=False),
            nn.Linear(8, 4),
        )

    def forward(self, x):
        x = self.act2(self.norm2(self.conv2(self.act1(self.bn1(self.conv1(x))))))
        return self.fc2(self.bn4(self.fc1(self.norm3(self.conv3(x)).amax((2, 3)))))


def policy(**activation):
    return {
        "base": "cq",
        "first": "target",
        "last": "target",
        "activation": {"kind": "MinMax", "options": activation},
    }


POLICIES = {
    "unquantized": None,
    "ssql": "ssql",
    "cq": "cq",
    "affine of each call": policy(scheme="affine", range="call"),
    "running": policy(scheme="affine", range="running"),
    "moving average": policy(scheme="affine", range="observed", observer="moving_average"),
}


def made(name):
    torch.manual_seed(0)
    network = Mixed().double().train()
    if POLICIES[name] is not None:
        quantize(network, POLICIES[name])
    return network


def embedded(network, views, name, run):
    """Outputs of `run`, and the gradients of a function of them that treats views differently."""
    if name in ("ssql", "moving average"):
        with observe(network, reset=True):
            run(network, views)
    if POLICIES[name] is not None:
        set_precision(network, PRECISION)
    outputs = run(network, views)
    sum((rank + 1) * y.square().sum() for rank, y in enumerate(outputs)).backward()
    return outputs, {key: p.grad for key, p in network.named_parameters()}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", list(POLICIES))
def test_it_is_a_pass_each(name, count):
    views = [(1 + rank) * torch.randn(4, 3, 8, 8).double() for rank in range(count)]
    one = made(name)
    other = copy.deepcopy(one)
    wanted, gradients = embedded(one, views, name, lambda net, xs: [net(x) for x in xs])
    found, others = embedded(other, views, name, together)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(others, gradients)
    state = one.state_dict()
    assert list(state) == list(other.state_dict())
    torch.testing.assert_close(other.state_dict(), state)
    assert int(state["bn1.num_batches_tracked"]) >= count


def test_the_views_ranges_differ_so_that_sharing_one_would_show():
    views = [(1 + rank) * torch.randn(4, 3, 8, 8).double() for rank in range(2)]
    network = made("cq")
    set_precision(network, PRECISION)
    shared = network(torch.cat(views)).chunk(2)
    for y, x in zip(shared, views, strict=True):
        assert not torch.allclose(y, network(x))


def test_afterwards_a_batch_is_one_view_again():
    one, views = made("cq"), torch.randn(2, 4, 3, 8, 8).double()
    set_precision(one, PRECISION)
    other = copy.deepcopy(one)
    together(one, list(views))
    for view in views:
        other(view)
    assert str(one) == str(other)
    torch.testing.assert_close(one(views[0]), other(views[0]))
    torch.testing.assert_close(one.eval()(views[0]), other.eval()(views[0]))


def test_one_view_goes_as_it_is():
    network = made("unquantized")
    (found,) = together(network, [torch.randn(4, 3, 8, 8).double()])
    assert found.shape == (4, 4) and type(network.bn1) is nn.BatchNorm2d

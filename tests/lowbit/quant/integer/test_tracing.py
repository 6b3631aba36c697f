"""Graphs of networks, and networks that a graph would not compute right."""

import pytest
import torch
from torch import nn

from lowbit.quant import calibrate, quantize
from lowbit.quant.integer.tracing import Constant, NotLoweredError, trace


class Net(nn.Module):
    def __init__(self, between=lambda x: x, **norm):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, **norm)
        self.act, self.second = nn.ReLU(), nn.Conv2d(4, 4, 1)
        self.between = between

    def forward(self, x):
        return self.between(self.second(self.act(self.norm(self.conv(x)))))


def quantized(network, policy="ssql", precision="4w4a"):
    torch.manual_seed(0)
    quantize(network, policy, precision)
    calibrate(network, [torch.randn(8, 3, 8, 8)])
    return network.eval()


def write_by_index(x):
    x[:, :2].mul_(3.0)
    return x


def write_by_view(x):
    y = x.flatten(1)
    nn.functional.relu(y, inplace=True)
    return x


def add_to_what_has_two_names(x):
    before = x
    x += 1
    return x * before


def read_a_view_afterwards(x):
    y = x.flatten(1)
    x.mul_(3.0)
    return y


def write_what_is_read_once(x):
    y = x.flatten(1)
    y += y.mean()
    return y


@pytest.mark.parametrize(
    "between",
    [write_by_index, write_by_view, add_to_what_has_two_names, read_a_view_afterwards],
)
def test_writes_into_a_part_of_what_is_read_later_are_refused(between):
    with pytest.raises(NotLoweredError, match="writes over a tensor"):
        trace(quantized(Net(between)))


def test_writes_after_the_last_read_are_kept():
    names = [node.name for node in trace(quantized(Net(write_what_is_read_once))).nodes]
    assert names[-3:] == ["mean", "iadd", "output"]


LIVE = {"kind": "MinMax", "options": {"scheme": "affine", "range": "call"}}


def test_what_depends_on_the_other_images_of_a_batch_is_refused():
    with pytest.raises(NotLoweredError, match="norm normalizes by the statistics of each batch"):
        trace(quantized(Net(track_running_stats=False)))
    policy = {"base": "ssql", "activation": LIVE}
    with pytest.raises(NotLoweredError, match=r"act\.a_quant takes its range from each batch"):
        trace(quantized(Net(), policy))


@pytest.mark.parametrize("name", ["second.weight", "conv.bias", "norm.running_var", "norm.bias"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_networks_that_diverged_are_refused(name, value):
    network = quantized(Net())
    network.state_dict()[name].flatten()[1] = value
    with pytest.raises(NotLoweredError, match=f"{name} has NaN or infinite values"):
        trace(network)


class Remembering(nn.Module):
    """Keeps what it computed, as timm's LeViT does its biases, and adds a constant."""

    def __init__(self):
        super().__init__()
        self.weight, self.kept = nn.Parameter(torch.ones(4, 1, 1)), {}
        self.inner = nn.Identity()  # so that it is traced through

    def forward(self, x):
        if "key" not in self.kept:
            self.kept["key"] = self.weight * x.mean()
        return self.inner(x) + self.kept["key"] + torch.arange(3).sum()


def test_tracing_leaves_nothing_in_the_network():
    network = quantized(Net(Remembering()))
    network.between.kept.clear()
    before = set(network.__dict__)
    for _ in range(2):
        graph = trace(network)
        constants = [node.target for node in graph.nodes if isinstance(node.target, Constant)]
        assert [constant().item() for constant in constants] == [3]
        graph.lint()
        assert not network.between.kept and set(network.__dict__) == before

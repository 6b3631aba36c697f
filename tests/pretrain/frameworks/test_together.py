"""Views in one pass against a pass each: outputs, gradients, statistics and ranges."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

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


@pytest.fixture
def after_two_views():
    """A network that embedded two views together, one that embedded them one by one, and the views."""
    one, views = made("cq"), torch.randn(2, 4, 3, 8, 8).double()
    set_precision(one, PRECISION)
    other = copy.deepcopy(one)
    together(one, list(views))
    for view in views:
        other(view)
    return one, other, views


def test_afterwards_a_batch_is_one_view_again(after_two_views):
    one, other, views = after_two_views
    assert str(one) == str(other)
    torch.testing.assert_close(one(views[0]), other(views[0]))
    torch.testing.assert_close(one.eval()(views[0]), other.eval()(views[0]))


def test_one_view_goes_as_it_is():
    network, view = made("cq"), torch.randn(4, 3, 8, 8).double()
    set_precision(network, PRECISION)
    (found,) = together(copy.deepcopy(network), [view])
    assert torch.equal(found, network(view))


class Attention(nn.Module):
    """Self-attention between a fold of images into sequences and their mean."""

    def __init__(self, *, batch_first):
        super().__init__()
        self.batch_first = batch_first
        layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=batch_first)
        self.conv, self.encoder = (
            nn.Conv2d(3, 6, 3),
            nn.TransformerEncoder(layer, 1, enable_nested_tensor=False),
        )

    def forward(self, x):
        tokens = self.conv(x).flatten(2).mT  # (N, L, C)
        tokens = tokens if self.batch_first else tokens.transpose(0, 1)
        return self.encoder(tokens).mean(1 if self.batch_first else 0)


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_sequence_is_not_split_where_it_comes_first(batch_first):
    torch.manual_seed(0)
    network = Attention(batch_first=batch_first).double().train()
    quantize(network, "cq")
    set_precision(network, PRECISION)
    views = [(1 + rank) * torch.randn(4, 3, 8, 8).double() for rank in range(2)]
    torch.testing.assert_close(together(copy.deepcopy(network), views), [network(x) for x in views])


class Checkpointed(nn.Module):
    """A network that is computed again in the backward pass."""

    def __init__(self, network, *, reentrant):
        super().__init__()
        self.network, self.reentrant = network, reentrant

    def forward(self, x):
        return checkpoint(self.network, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["unquantized", "cq"])
def test_a_pass_repeated_for_the_gradient_keeps_the_views_apart(name, reentrant):
    views = [((1 + rank) * torch.randn(4, 3, 8, 8)).double().requires_grad_() for rank in range(2)]
    gradients = []
    for wrap in (lambda network: network, partial(Checkpointed, reentrant=reentrant)):

        def run(network, views, wrap=wrap):
            return together(wrap(network), views)

        gradients.append(embedded(made(name), views, name, run)[1])
    torch.testing.assert_close(*gradients)


def test_a_batch_repeated_for_the_gradient_is_one_view(after_two_views):
    one, other, views = after_two_views
    for network in (one, other):
        Checkpointed(network, reentrant=False)(views[0]).sum().backward()
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)

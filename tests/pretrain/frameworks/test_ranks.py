"""Two processes that share a batch against one that has all of it, by gloo."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from lowbit.pretrain.frameworks import FrameworkOptions, create_framework
from lowbit.pretrain.frameworks.losses import info_nce, nt_xent
from lowbit.pretrain.frameworks.ranks import gather_rows, shuffled
from lowbit.quant import FP
from tests.forked_ranks import in_processes

RANKS, ROWS = 2, 3


class _Linear(nn.Module):
    """A backbone without batch statistics, so that a share of a batch can equal the whole."""

    num_features = 5

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3)

    def forward(self, x):
        return self.conv1(x).mean((2, 3))


def _framework(name):
    torch.manual_seed(0)
    norm = {"projector_norm": "none"} if name == "simclr" else {}
    options = FrameworkOptions(dim=4, hidden_dim=6, queue_size=9, **norm)
    return create_framework(name, _Linear(), options)


def _views():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, RANKS * ROWS, 3, 5, 5, generator=generator)


def _train(name, views):
    """One pass: the loss, the gradient of the convolution, and the queue if there is one."""
    framework = _framework(name)
    framework.begin_step(0.0)
    a, b = (framework.embed(view, FP) for view in views)
    loss = framework.both_ways(a, b)
    loss.backward()
    framework.end_step()
    queue = getattr(framework, "queue", torch.zeros(()))
    return loss.detach(), framework.backbone.conv1.weight.grad, queue


def _features():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, RANKS * ROWS, 4, generator=generator, dtype=torch.float64)


def _losses(rows):
    """Both losses of features, and their gradients with respect to these features."""
    results = []
    for function in (nt_xent, info_nce):
        a, b = (f[rows].clone().requires_grad_() for f in _features())
        loss = function(a, b, temperature=0.3)
        loss.backward()
        results.append((loss.detach(), a.grad, b.grad))
    return results


def _order_kept():
    """Whether shuffling over ranks gives every rank its own rows back, computed elsewhere."""
    rank = dist.get_rank()
    x = torch.arange(rank * 40, rank * 40 + 40.0).view(40, 1)
    seen = []

    def network(rows):
        seen.append(rows)
        return 2 * rows

    kept = torch.equal(shuffled(network, x), 2 * x)
    mixed = bool(((seen[0] < 40) != (rank == 0)).any())
    return kept and mixed and torch.equal(gather_rows(x).flatten(), torch.arange(80.0))


def _work():
    rank = dist.get_rank()
    rows = slice(rank * ROWS, (rank + 1) * ROWS)
    return {
        "losses": _losses(rows),
        "order": _order_kept(),
        **{name: _train(name, _views()[:, rows]) for name in ("simclr", "moco_v2")},
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the two processes found."""
    return in_processes(_work, folder=tmp_path_factory.mktemp("ranks"), size=RANKS)


@pytest.mark.parametrize("index", [0, 1], ids=["nt_xent", "info_nce"])
def test_losses_and_gradients_equal_one_process_on_the_whole_batch(ranks, index):
    loss, *gradients = _losses(slice(None))[index]
    parts = [rank["losses"][index] for rank in ranks]
    torch.testing.assert_close(sum(part[0] for part in parts) / RANKS, loss)
    for place, gradient in enumerate(gradients, 1):
        ours = torch.cat([part[place] for part in parts]) / RANKS
        torch.testing.assert_close(ours, gradient)


@pytest.mark.parametrize("name", ["simclr", "moco_v2"])
def test_a_step_equals_one_process_on_the_whole_batch(ranks, name):
    """The mean over ranks of the loss and of the weights' gradient; the queue on every rank."""
    loss, gradient, queue = _train(name, _views())
    parts = [rank[name] for rank in ranks]
    torch.testing.assert_close(sum(part[0] for part in parts) / RANKS, loss)
    torch.testing.assert_close(sum(part[1] for part in parts) / RANKS, gradient)
    for part in parts:
        torch.testing.assert_close(part[2], queue)


def test_negatives_come_from_other_ranks_too(ranks):
    """With its own rows alone, a rank's loss is another one."""
    rows = slice(0, ROWS)
    assert (ranks[0]["losses"][0][0] - _losses(rows)[0][0]).abs() > 0.1


def test_rows_shuffled_over_ranks_come_back_in_order(ranks):
    assert all(rank["order"] for rank in ranks)


def test_alone_nothing_is_shuffled_or_gathered():
    x = torch.rand(4, 2)
    assert gather_rows(x) is x
    assert shuffled(lambda rows: rows, x) is x

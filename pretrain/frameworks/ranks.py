"""Gather and shuffle batches over the ranks of a distributed run; no-ops with one process."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from lowbit.training.distributed import rank, size


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        every = x.new_empty(size() * len(x), *x.shape[1:])
        dist.all_gather_into_tensor(every, x.contiguous())
        return every

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        # Each rank's loss depends on every rank's rows: a row's gradient is the sum over ranks.
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[rank() * ctx.rows :][: ctx.rows]


def gather_rows(x: Tensor) -> Tensor:
    """Return the rows (N, ...) of all ranks, in their order; gradient flows back to each rank.

    Every rank must pass the same number of rows. With gradients averaged over ranks, the mean of the ranks' losses
    has the gradient it would have in one process.
    """
    return x if size() == 1 else _Gather.apply(x)


def shuffled(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return network(x), each rank computing random rows of all ranks' x (MoCo's shuffling BN).

    A batch norm then sees a different grouping of images than the loss. In one process the batch is the
    same in any order, and so are its statistics.
    """
    if size() == 1:
        return network(x)
    order = torch.randperm(size() * len(x)).to(x.device)
    dist.broadcast(order, 0)
    mine, back = (index.view(size(), -1)[rank()] for index in (order, order.argsort()))
    return gather_rows(network(gather_rows(x)[mine]))[back]

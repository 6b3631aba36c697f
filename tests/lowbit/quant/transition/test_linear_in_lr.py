"""Which optimizers become T-optimizers: found by trying their steps."""

import pytest
import torch
from torch import nn, optim

from lowbit.quant import Precision, quantize, t_variant
from lowbit.quant.transition.linear_in_lr import why_not_linear


@pytest.mark.parametrize(
    "base",
    [
        optim.SGD,
        optim.Adam,
        optim.AdamW,
        optim.NAdam,
        optim.Adamax,
        optim.RMSprop,
        optim.Adagrad,
        optim.RAdam,
        optim.Adadelta,
    ],
)
def test_linear_optimizers_have_a_variant(base):
    assert why_not_linear(base) is None
    assert issubclass(t_variant(base), base)
    assert t_variant(base) is t_variant(base)
    assert t_variant(base).__name__ == f"{base.__name__}T"


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (optim.Rprop, "keeps the learning rate in its state"),
        (optim.ASGD, "keeps the learning rate in its state"),
        (optim.Adafactor, "step is not linear"),
        (optim.LBFGS, "cannot take a plain step"),
        (optim.SparseAdam, "cannot take a plain step"),
    ],
)
def test_others_are_refused_with_the_reason(base, reason):
    with pytest.raises(
        ValueError, match=f"{base.__name__} has no transition-rate variant.*{reason}"
    ):
        t_variant(base)


class Lars(optim.Optimizer):
    """Momentum over lr times trust ratio, as LARS is usually written."""

    def __init__(self, params, lr, momentum=0.9, clip=False):
        super().__init__(params, {"lr": lr, "momentum": momentum, "clip": clip})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                v = self.state[p].setdefault("v", torch.zeros_like(p))
                trust = 1e-3 * p.norm() / p.grad.norm()
                if group["clip"]:  # LARC: never above lr
                    v.mul_(group["momentum"]).add_(p.grad)
                    p.add_(v, alpha=-min(float(trust), group["lr"]))
                else:
                    v.mul_(group["momentum"]).add_(p.grad, alpha=group["lr"] * float(trust))
                    p.sub_(v)


def test_a_rate_in_the_momentum_and_a_clipped_rate_are_found():
    assert "not linear" in why_not_linear(Lars) or "state" in why_not_linear(Lars)
    assert "not linear" in why_not_linear(Lars, clip=True)


class Signs(optim.Optimizer):
    """An optimizer torch does not have: the sign of an average, decay outside (Lion)."""

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                m.lerp_(p.grad, 0.1)
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(m.sign(), alpha=-group["lr"])


def test_a_foreign_optimizer_becomes_a_t_optimizer():
    net = quantize(nn.Sequential(nn.Linear(6, 6, bias=False)), "tr", Precision(2, 2))
    optimizer = t_variant(Signs)(
        [net[0].weight], model=net, lr=0.02, target=0.0, total_steps=9, eta=1e9, weight_decay=0.1
    )
    start = net[0].weight.detach().clone()
    net[0].weight.grad = torch.randn(6, 6)
    while optimizer.rates()["lr"][0] > 0:
        moved = net[0].weight.detach().clone()
        optimizer.step()
    assert not torch.equal(start, moved) and torch.equal(moved, net[0].weight)


def test_options_that_are_refused_by_the_optimizer_are_found_before_it_is_made():
    with pytest.raises(ValueError, match="SGD has no transition-rate variant"):
        t_variant(optim.SGD)([], model=None, lr=0.1, target=0.1, total_steps=5, moment=0.9)

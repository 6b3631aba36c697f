"""A linear layer in float64 whose latent weights are driven over transition points."""

import torch
from torch import Tensor, nn

from lowbit.quant import Precision, calibrate, quantize

STEPS = 200


def make_layer(policy: str, *, bits: int = 3, granularity: str = "tensor"):
    """A quantized linear layer, normalized, and the batches (X, Y) of its training."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    net = nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5, affine=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(draw(5, 6))
    weights = {"weight": "target", "activation": "fp"}
    kind = {"lsq": "LSQ", "interval": "Interval"}[policy]
    chosen = {"base": policy, "first": weights, "last": weights, "name": "weights"}
    chosen["weight"] = {"kind": kind, "granularity": granularity}
    quantize(net, chosen, Precision(bits, 32)).double()  # the scale too
    calibrate(net, [draw(16, 6)])
    true = draw(6, 5)
    batches = [(x, x @ true) for x in (draw(16, 6) for _ in range(STEPS))]
    return net, batches


def make_sgd(net) -> torch.optim.SGD:
    """SGD with momentum, the scale at a tenth of the weights' rate."""
    layer = net[0]
    groups = [{"params": [layer.weight]}, {"params": [layer.w_quant.q_scale], "lr": 0.03}]
    return torch.optim.SGD(groups, lr=0.3, momentum=0.9)


def train(net, optimizer, batches) -> None:
    """Step on each batch."""
    for x, y in batches:
        optimizer.zero_grad()
        (net(x) - y).square().mean().backward()
        optimizer.step()


def normalized(z: Tensor) -> Tensor:
    """Batch normalization of (N, C), written out."""
    return (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()

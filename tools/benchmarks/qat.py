"""Cases of `lowbit-bench bench qat`: transition-rate steps over the plain optimizer's, and adaptive bit-widths."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lowbit.backbones import create_backbone
from lowbit.quant import Precision, quantize, quantized_layers, t_variant, use_fused_kernels
from lowbit.quant.transition import sgd_step
from lowbit.tools.benchmarks import adaptive
from lowbit.tools.benchmarks.timing import Case, moved_mib, ratio_rows

SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
ADAM = {"lr": 1e-3, "weight_decay": 1e-4}
TARGET = {"target": 1e-3, "total_steps": 10_000}


def cases(quick: bool = False) -> Iterator[Case]:
    """Yield the rows of the table, group by group; each group is one interleaved run."""
    repeats = 3 if quick else 15
    yield from sgd_steps(repeats)
    yield from adam_steps(repeats)
    yield from device_reads()
    yield from adaptive.adaptive_cases(quick)


def networks() -> tuple[nn.Module, nn.Module]:
    """Return ResNet-50 in full precision and at 4-bit codes, both with gradients."""
    torch.manual_seed(0)
    plain = create_backbone("resnet50")
    quantized = quantize(copy.deepcopy(plain), "tr", Precision(4, 4))
    for net in (plain, quantized):
        for parameter in net.parameters():
            parameter.grad = 1e-3 * torch.randn_like(parameter)
    return plain, quantized


def t_step(net: nn.Module, base: type, fused: bool, options: dict) -> Callable[[], None]:
    """Return the step of a T-optimizer of `net`, by fused kernels or eagerly."""
    learned = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = t_variant(base)(learned, model=net, **TARGET, **options)

    def run() -> None:
        use_fused_kernels(fused)
        optimizer.step()

    return run


class NaiveSGDT:
    """SGDT written as in its algorithm: layer by layer, codes computed twice, every count read back."""

    def __init__(self, net: nn.Module, lr: float, momentum: float, weight_decay: float) -> None:
        self.layers = list(quantized_layers(net).values())
        latent = {id(layer.weight) for layer in self.layers}
        self.rest = torch.optim.SGD(
            [p for p in net.parameters() if p.requires_grad and id(p) not in latent],
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
        )
        self.momentum, self.weight_decay, self.eta = momentum, weight_decay, lr
        self.buffers = [torch.zeros_like(layer.weight) for layer in self.layers]
        self.codes = [self._codes(layer) for layer in self.layers]
        self.running, self.rates = [0.0] * len(self.layers), [lr] * len(self.layers)

    @staticmethod
    def _codes(layer: nn.Module) -> torch.Tensor:
        lo, hi, gamma = layer.w_quant.constants()
        return torch.clamp(layer.weight * gamma / layer.w_quant.scale, lo, hi).round()

    @torch.no_grad()
    def step(self) -> None:
        self.rest.step()
        for i, layer in enumerate(self.layers):
            codes = self._codes(layer)
            k = (codes != self.codes[i]).float().mean().item()
            self.codes[i] = codes
            self.running[i] = 0.99 * self.running[i] + 0.01 * k
            self.rates[i] = max(0.0, self.rates[i] + self.eta * (1e-3 - self.running[i]))
            d = layer.weight.grad + self.weight_decay * layer.weight
            self.buffers[i] = self.momentum * self.buffers[i] + d
            layer.weight -= self.rates[i] * self.buffers[i]


def sgd_steps(repeats: int) -> Iterator[Case]:
    """An SGDT step of ResNet-50 over SGD's foreach step."""
    plain, quantized = networks()
    weights = sum(layer.weight.numel() for layer in quantized_layers(quantized).values())
    variants = {
        "SGD foreach": torch.optim.SGD(plain.parameters(), foreach=True, **SGD).step,
        "SGDT step, fused": t_step(quantized, torch.optim.SGD, True, SGD),
        "SGDT step, eager": t_step(quantized, torch.optim.SGD, False, SGD),
        "SGDT step, layer by layer": NaiveSGDT(quantized, **SGD).step,
    }
    moved = {
        # w, g, v and the old codes in; w, v and the new codes out
        "SGDT step, fused": weights * (4 * 3 + 1 + 4 * 2 + 1) / 2**20,
        "SGDT step, layer by layer": moved_mib(variants["SGDT step, layer by layer"]),
    }
    variants["SGDT step, eager"]()  # makes the codes
    moved["SGDT step, eager"] = moved_mib(variants["SGDT step, eager"])
    targets = {"SGDT step, fused": 1.0}
    note = "ResNet-50, 4-bit codes"
    yield from ratio_rows(variants, "SGD foreach", repeats, targets, note=note, moved_mib=moved)


def adam_steps(repeats: int) -> Iterator[Case]:
    """An AdamT step, which takes the general path, over Adam's foreach step."""
    plain, quantized = networks()
    options = ADAM | {"foreach": True}
    variants = {
        "Adam foreach": torch.optim.Adam(plain.parameters(), **options).step,
        "AdamT step, fused": t_step(quantized, torch.optim.Adam, True, options),
        "AdamT step, eager": t_step(quantized, torch.optim.Adam, False, options),
    }
    yield from ratio_rows(variants, "Adam foreach", repeats, {}, note="ResNet-50, 4-bit codes")


class _Reads(TorchDispatchMode):
    """Count how often a value is read back from the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def device_reads() -> Iterator[Case]:
    """Values that a step reads back, each of which would stall a GPU.

    Counted on the way that a GPU takes without fused kernels; on a CPU SGDT reads its rates.
    """
    _, quantized = networks()
    serves, sgd_step.applies_to = sgd_step.applies_to, lambda *_, **__: False
    try:
        steps = {
            "SGDT": t_step(quantized, torch.optim.SGD, False, SGD),
            "SGDT, layer by layer": NaiveSGDT(quantized, **SGD).step,
        }
        for name, step in steps.items():
            step()
            with _Reads() as reads:
                step()
            target = 0.0 if name == "SGDT" else None
            yield Case(f"values read back in a step, {name}", None, "-", None, reads.count, target)
    finally:
        sgd_step.applies_to = serves

"""Cases of `lowbit-bench bench quant`: the cost of quantizers compared with other implementations."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.backbones import create_backbone
from lowbit.quant import Precision, calibrate, quantize, quantized_layers, use_fused_kernels
from lowbit.quant.kernels.learned_scale_quantize import interval, lsq
from lowbit.quant.kernels.range_quantize import fake_quantize
from lowbit.tools.benchmarks.qat import sgd_steps
from lowbit.tools.benchmarks.timing import Case, moved_mib, ratio_rows

W4A4 = Precision(4, 4)
ACTIVATION = (32, 64, 32, 32)  # 8 MiB of float32


def cases(quick: bool = False) -> Iterator[dict]:
    """Yield the rows of the table, group by group; each group is one interleaved run."""
    yield from operators(repeats=5 if quick else 31)
    yield from saved_activations()
    yield from sgd_steps(repeats=3 if quick else 9)
    yield from networks("resnet18_cifar", 32, batch=16, repeats=2 if quick else 7)
    if not quick:
        yield from networks("resnet18_cifar", 32, batch=16, repeats=5, channels_last=True)
        yield from networks("resnet18", 224, batch=4, repeats=5)
        yield from compiled_networks("resnet18_cifar", 32, batch=16, repeats=7)


# operators -------------------------------------------------------------------------------------


def naive_lsq(v: Tensor, s: Tensor, q_n: int, q_p: int, g: float) -> Tensor:
    """LSQ as public repositories write it: autograd through detach tricks."""
    scale = (s - s * g).detach() + s * g
    q = torch.clamp(v / scale, -q_n, q_p)
    return ((q.round() - q).detach() + q) * scale


def native_lsq(v: Tensor, s: Tensor, q_n: int, q_p: int, g: float) -> Tensor:
    """torch's own learnable fake-quantization (not LSQ's gradient at 2 and 3 bits)."""
    return torch._fake_quantize_learnable_per_tensor_affine(v, s, torch.zeros(1), -q_n, q_p, g)


def operators(repeats: int) -> Iterator[dict]:
    """An operator forward and backward over copying its tensor twice: the physical floor.

    The copies go into new memory, as an operator's outputs do. Into memory that is there already, and
    in the cache, a copy is faster still; that is a row of its own.
    """
    x = torch.randn(ACTIVATION)
    v, s = x.clone().requires_grad_(), torch.tensor([0.3], requires_grad=True)
    fixed, upstream, target = torch.tensor([0.3]), torch.randn_like(x), torch.empty_like(x)

    def both(function: Callable, *leaves: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(), leaves, upstream)

    def with_fused(run: Callable, fused: bool) -> Callable[[], object]:
        def call():
            use_fused_kernels(fused)
            run()

        return call

    def clone_twice() -> None:
        first, second = x.clone(), upstream.clone()
        del first, second

    def overwrite_twice() -> None:
        target.copy_(x)
        target.copy_(upstream)

    ours = {
        "LSQ": both(lambda: lsq(v, s, 8, 7, 0.01), v, s),
        "min-max": both(lambda: fake_quantize(v, fixed, None, -8, 7), v),
        "interval": both(lambda: interval(v, s, -8, 7, 8), v, s),
    }
    peers = {
        "LSQ op, plain autograd": both(lambda: naive_lsq(v, s, 8, 7, 0.01), v, s),
        "LSQ op, torch native": both(lambda: native_lsq(v, s, 8, 7, 0.01), v, s),
    }
    variants = {"copy": clone_twice, "overwriting copy": overwrite_twice}
    moved = {"overwriting copy": 4 * x.nbytes / 2**20}
    for name, run in ours.items():
        variants[f"{name} op, fused"] = with_fused(run, True)
        variants[f"{name} op, eager"] = with_fused(run, False)
        moved[f"{name} op, fused"] = 5 * x.nbytes / 2**20  # v -> v̂; v, g -> dv
        moved[f"{name} op, eager"] = moved_mib(run)
    for name, run in peers.items():
        variants[name] = run
        moved[name] = moved_mib(run)
    targets = {"LSQ op, fused": 1.7, "LSQ op, eager": 3.8}
    note = "8 MiB, read + write twice"
    yield from ratio_rows(variants, "copy", repeats, targets, note=note, moved_mib=moved)


# saved activations -------------------------------------------------------------------------------


def saved_activations() -> Iterator[dict]:
    """Memory kept for the backward pass by BN-ReLU-quantizer-conv, over the activation itself."""
    x = torch.randn(8, 32, 32, 32)

    def kept(quantizer: Callable[[Tensor], Tensor]) -> float:
        layer = nn.Sequential(nn.BatchNorm2d(32), nn.ReLU())
        conv = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        sizes: dict[int, int] = {}

        def pack(t: Tensor) -> Tensor:
            sizes[t.data_ptr()] = t.numel() * t.element_size()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            out = conv(quantizer(layer(x.clone().requires_grad_())))
        del out
        return sum(size for size in sizes.values() if size > 65536) / (x.numel() * 4)

    s = torch.tensor([0.3], requires_grad=True)
    routes = {
        "full precision": lambda t: t,
        "LSQ": lambda t: lsq(t, s, 0, 15, 0.01),
        "interval": lambda t: interval(t, s, 0, 15, 16),
        "min-max": lambda t: fake_quantize(t, s.detach(), None, 0, 15),
        "LSQ, plain autograd": lambda t: naive_lsq(t, s, 0, 15, 0.01),
    }
    for name, quantizer in routes.items():
        target = 3.05 if name in ("LSQ", "interval", "min-max") else None
        yield Case(
            f"saved activations, {name}", None, "the activation", None, kept(quantizer), target
        )


# networks -----------------------------------------------------------------------------------------


class NaiveConv2d(nn.Conv2d):
    """A convolution with plain-autograd LSQ on weight and input, for comparison only."""

    def forward(self, x: Tensor) -> Tensor:
        x = naive_lsq(x, self.a_scale, *((0, 15) if self.unsigned else (8, 7)), 0.01)
        w = naive_lsq(self.weight, self.w_scale, 8, 7, 0.01)
        return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


def naive_network(net: nn.Module, reference: nn.Module) -> nn.Module:
    """Give `net` NaiveConv2d layers with the scales of the LSQ network `reference`."""
    scales = quantized_layers(reference)
    for name, module in net.named_modules():
        if name in scales:
            layer = scales[name]
            module.__class__ = NaiveConv2d
            module.w_scale = nn.Parameter(layer.w_quant.scale.detach().clone())
            module.a_scale = nn.Parameter(layer.a_quant.scale.detach().clone())
            module.unsigned = not layer.a_quant.signed
    return net


def brevitas_network(net: nn.Module, reference: nn.Module) -> nn.Module | None:
    """Replace the quantized layers by brevitas' QuantConv2d, if brevitas is installed."""
    try:
        from brevitas.nn import QuantConv2d
        from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat
    except ImportError:
        return None
    for name in quantized_layers(reference):
        old = net.get_submodule(name)
        parent, _, child = name.rpartition(".")
        new = QuantConv2d(
            old.in_channels,
            old.out_channels,
            old.kernel_size,
            stride=old.stride,
            padding=old.padding,
            bias=False,
            weight_quant=Int8WeightPerTensorFloat,
            weight_bit_width=4,
            input_quant=Int8ActPerTensorFloat,
            input_bit_width=4,
        )
        new.weight.data.copy_(old.weight.data)
        setattr(net.get_submodule(parent), child, new)
    return net


def networks(
    architecture: str, size: int, *, batch: int, repeats: int, channels_last: bool = False
) -> Iterator[dict]:
    """A training step of a whole network, forward and backward, over full precision."""
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.randn(batch, 3, size, size).to(memory_format=layout)
    full = create_backbone(architecture).train().to(memory_format=layout)

    def step(net: nn.Module, fused: bool = False) -> Callable[[], None]:
        def run() -> None:
            use_fused_kernels(fused)
            net(images).square().mean().backward()
            net.zero_grad(set_to_none=True)

        return run

    learned, ranges, fixed = (low_bit(full, policy, images) for policy in ("lsq", "ssql", "tr"))
    variants = {
        "full precision": step(full),
        "LSQ 4w4a, fused": step(learned, True),
        "LSQ 4w4a, eager": step(learned),
        "min-max 4w4a, fused": step(ranges, True),
        "min-max 4w4a, eager": step(ranges),
        "interval 4w4a, fused": step(fixed, True),
        "interval 4w4a, eager": step(fixed),
        "LSQ 4w4a, plain autograd": step(naive_network(copy.deepcopy(full), learned)),
    }
    if (peer := brevitas_network(copy.deepcopy(full), learned)) is not None:
        variants["4w4a, brevitas QuantConv2d"] = step(peer.train())
    targets = {
        "LSQ 4w4a, fused": 1.07,
        "LSQ 4w4a, eager": 1.25,
        "min-max 4w4a, fused": 1.08,
        "interval 4w4a, fused": 1.15,
    }
    note = f"{architecture}, {batch} x {size} px{', channels_last' if channels_last else ''}"
    yield from ratio_rows(variants, "full precision", repeats, targets, note=note)


def low_bit(full: nn.Module, policy: str, images: Tensor) -> nn.Module:
    """Return a calibrated 4w4a copy in train mode."""
    net = quantize(copy.deepcopy(full), policy, W4A4)
    calibrate(net, [images])
    return net.train()


def compiled_networks(architecture: str, size: int, *, batch: int, repeats: int) -> Iterator[dict]:
    """The same with the whole network under `torch.compile`, full precision as well."""
    torch.manual_seed(0)
    use_fused_kernels(False)
    images = torch.randn(batch, 3, size, size)
    full = create_backbone(architecture).train()
    nets = {
        "full precision, compiled": full,
        **{
            f"{name} 4w4a, compiled": low_bit(full, policy, images)
            for name, policy in (("LSQ", "lsq"), ("min-max", "ssql"), ("interval", "tr"))
        },
    }

    def step(net: nn.Module) -> Callable[[], None]:
        compiled = torch.compile(net, fullgraph=True)

        def run() -> None:
            compiled(images).square().mean().backward()
            net.zero_grad(set_to_none=True)

        return run

    variants = {name: step(net) for name, net in nets.items()}
    note = f"{architecture}, {batch} x {size} px"
    targets = {"LSQ 4w4a, compiled": 1.08}
    yield from ratio_rows(variants, "full precision, compiled", repeats, targets, note=note)
